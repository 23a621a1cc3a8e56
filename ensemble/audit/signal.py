"""Checks that features predict prices; where they don't, prices are probably assigned to the wrong rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensemble.audit.check import Check
from ensemble.audit.evidence import TrainingEvidence, compress
from ensemble.audit.forest import MIN_LEAF, forest_values
from ensemble.audit.shuffled import N_COMPONENTS, SURE, out_of_fold, without_features
from ensemble.groups import gain_and_error
from heads.features.fields import columns_read, field_table
from heads.features.tfidf import token_pattern
from store.catalog.read import read_split, split_path
from store.metric import smape_rows
from store.workspace import Workspace

LEAST_GAIN = 0.01  # of the median's score
LEAST_TEXTS = 2  # that hold a word
MOST_WORDS = 20_000
N_WORD_COMPONENTS = 32


def check_signal(workspace: Workspace, rows: TrainingEvidence, vectors: Sequence[str], seed: int) -> Check:
    """Ridge on the cached vectors and fields against the median, then trees on columns and words.

    Ridge reads categories as codes, whose order says nothing: where few rows have a text, trees may see more.

    Args:
        vectors: that heads learn from. Where none is there, fields and words may tell nothing although vectors would.
    """
    has_vectors = not rows.blocks.keys() <= {"fields"}
    if has_vectors:
        told = _told(rows, _by_vectors(rows, seed), "ridge", "Features")
        if told.verdict == "ok":
            return told
    by_columns = _told(rows, _by_fields_and_words(workspace, rows, seed), "trees", "Columns and words")
    if by_columns.verdict == "ok":
        return by_columns
    if not has_vectors and vectors:
        words = f"{by_columns.words}; no vectors of the training rows: what they tell can't be seen."
        return replace(by_columns, verdict="skipped", words=words)
    found = told if has_vectors else by_columns
    words = (
        f"{found.words}: prices may stand in other rows than their own, as after a shuffle or a wrong join"
        f"{', or the vectors are of another catalogue' if has_vectors else ''}."
    )
    return replace(found, words=words)


def _told(rows: TrainingEvidence, predicted: np.ndarray, by: str, features: str) -> Check:
    """Whether log prices that were predicted out of fold, shape (n_rows,), are better than the median."""
    guess, of = without_features(rows.log_actual, rows.fold)
    median_loss = smape_rows(rows.log_actual, guess)
    loss = smape_rows(rows.log_actual, predicted)
    gain, error = gain_and_error(median_loss - loss, rows.group)
    figures = {"median_smape": float(median_loss.mean()), f"{by}_smape": float(loss.mean()), "gain": gain,
               "gain_error": error, "n_rows": len(loss)}  # fmt: skip
    scores = f"{by} {figures[f'{by}_smape']:.2f}, {of} {figures['median_smape']:.2f}, gain {gain:+.2f} ± {error:.2f}"
    if gain > SURE * error and gain > LEAST_GAIN * figures["median_smape"]:
        return Check("signal", "ok", f"{features} tell the price ({scores}).", figures)
    return Check("signal", "caution", f"{features} tell nothing of the price ({scores})", figures)


def _by_vectors(rows: TrainingEvidence, seed: int) -> np.ndarray:
    """Log prices out of fold, shape (n_rows,)."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(inside: np.ndarray) -> np.ndarray:
        return compress(list(rows.blocks.values()), inside, N_COMPONENTS, seed)

    return out_of_fold(
        lambda: make_pipeline(StandardScaler(), Ridge(30.0)), features, rows.log_actual, rows.fold
    )


def _by_fields_and_words(workspace: Workspace, rows: TrainingEvidence, seed: int) -> np.ndarray:
    """As `_by_vectors`; categories are codes, which trees can take apart."""
    with workspace.parquet(split_path("train")) as file:
        columns = columns_read(file.schema_arrow)
    table = read_split(workspace, "train", columns).combine_chunks().take(rows.position)
    words = _words(table["text"].to_pylist(), seed)
    X = np.concatenate([*rows.blocks.values(), field_table(table).X, words], axis=1)
    predicted = np.empty(len(rows.fold))
    for k in np.unique(rows.fold):
        here = rows.fold == k
        predicted[here] = forest_values(X, rows.log_actual, ~here, here, MIN_LEAF, seed)
    return predicted


def _words(texts: list[str], seed: int) -> np.ndarray:
    """Components of the texts' weighted words, float32 of shape (n_rows, n_components); no price enters."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(min_df=LEAST_TEXTS, token_pattern=token_pattern(texts), max_features=MOST_WORDS)
    try:
        X = words.fit_transform(texts)
    except ValueError:  # no word is in two texts
        return np.empty((len(texts), 0), np.float32)
    n_components = min(N_WORD_COMPONENTS, X.shape[1] - 1)
    if n_components < 1:
        return X.toarray().astype(np.float32)  # type: ignore[no-any-return]
    return TruncatedSVD(n_components, random_state=seed).fit_transform(X).astype(np.float32)  # type: ignore[no-any-return]
