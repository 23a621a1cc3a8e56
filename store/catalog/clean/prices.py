"""Doubtful prices: prices of one text that contradict, and prices far from those of the nearest names.

A training row is compared with neighbours of its own fold only. So the finding is the same whatever the prices
of the other folds are, and a fold's prices never decide on which rows the model that predicts it is trained.
"""

import numpy as np

from store.catalog.clean.duplicates import first_seen
from store.catalog.clean.rows import Catalogue, Finding
from store.catalog.clean.twins import text_codes
from store.cleaning import CONTRADICTION

NEIGHBOURS = 10
LEAST_SIMILARITY = 0.35  # mean cosine to the neighbours below which they say nothing
FAR = 4.0  # robust standard deviations
LEAST_FACTOR = 3.0  # a price within this factor of its neighbours' median is no outlier
LEAST_ROWS = 50  # rows of a fold; with fewer, neighbours are not compared
_DIMENSIONS = 128  # that TF-IDF is projected to; cosines keep within about 0.09
_TO_SIGMA = 1.4826  # median absolute deviation -> standard deviation


def contradictions(rows: Catalogue) -> Finding:
    """Training rows of one text whose highest price is `CONTRADICTION` times the lowest or more."""
    text = text_codes(rows)[: rows.n_train]
    have = text >= 0
    n_texts = int(text.max(initial=-1)) + 1
    low, high = np.full(n_texts, np.inf), np.zeros(n_texts)
    np.minimum.at(low, text[have], rows.price[have])
    np.maximum.at(high, text[have], rows.price[have])
    contradict = high >= low * CONTRADICTION
    found = np.flatnonzero(have & contradict[np.where(have, text, 0)]) if n_texts else np.empty(0, np.int64)
    group = first_seen(text[found]) if len(found) else np.empty(0, np.int64)
    size = np.bincount(text[found], minlength=n_texts) if len(found) else np.empty(0)
    reasons = [
        f"price {rows.price[i]:.2f}, its text sells for {low[text[i]]:.2f} to {high[text[i]]:.2f} in {size[text[i]]} rows"
        for i in found.tolist()
    ]
    return Finding("price", found, group, reasons)


def outliers(rows: Catalogue) -> Finding:
    """Training rows whose log price is far from their nearest neighbours' by name."""
    names = np.array([name or "" for name in rows.name[: rows.n_train].to_pylist()], dtype=object)
    log_price = np.log(rows.price)
    found, reasons = [], []
    for fold in np.unique(rows.fold):
        here = np.flatnonzero(rows.fold == fold)
        here = here[[bool(names[i]) for i in here]]
        if len(here) < LEAST_ROWS:
            continue
        similarity, neighbour = nearest(names[here])
        nearby = log_price[here][neighbour]
        middle = np.median(nearby, axis=1)
        off = log_price[here] - middle
        known = similarity.mean(axis=1) >= LEAST_SIMILARITY
        spread = _TO_SIGMA * np.median(np.abs(nearby - middle[:, None]), axis=1)
        usual = _TO_SIGMA * float(np.median(np.abs(off[known]))) if known.any() else np.inf
        far = known & (np.abs(off) > FAR * np.hypot(spread, usual)) & (np.abs(off) > np.log(LEAST_FACTOR))
        for i in np.flatnonzero(far).tolist():
            found.append(int(here[i]))
            reasons.append(
                f"price {rows.price[here[i]]:.2f}, its {neighbour.shape[1]} nearest names cost {np.exp(middle[i]):.2f} "
                f"(median), among them {rows.id_of(here[neighbour[i, 0]])}"
            )
    order = np.argsort(found) if found else np.empty(0, np.int64)
    return Finding("outlier", np.array(found, np.int64)[order], None, [reasons[i] for i in order.tolist()])


def nearest(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarity and position of each name's nearest other names, both (n_names, NEIGHBOURS) or fewer columns.

    TF-IDF of words, projected at random (always the same way) so that every pair can be compared.
    """
    import faiss
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\w+", dtype=np.float32)
    try:
        X = tfidf.fit_transform(names)
    except ValueError:  # no word is in two names
        return np.zeros((len(names), 1)), np.zeros((len(names), 1), np.int64)
    draw = np.random.default_rng(0)
    projection = draw.standard_normal((X.shape[1], _DIMENSIONS), dtype=np.float32)
    dense = np.ascontiguousarray(X @ projection)
    faiss.normalize_L2(dense)
    wanted = min(NEIGHBOURS, len(names) - 1)
    similarity, position = faiss.knn(dense, dense, wanted + 1, metric=faiss.METRIC_INNER_PRODUCT)
    # A row is its own nearest, or one of several with the same words: it goes, wherever it stands.
    own = position == np.arange(len(names))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(names), wanted)
    return similarity[~own].reshape(shape), position[~own].reshape(shape).astype(np.int64)
