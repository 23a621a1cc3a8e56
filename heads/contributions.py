"""What moved a head's log price: exact parts that add up to it, by word, number, category, vector set."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from heads.base import Head
from heads.features.blocks import (
    Block,
    CategoryColumns,
    CurveColumns,
    NumberColumns,
    TermColumns,
    TermPresence,
    with_bare_numbers,
)
from heads.features.brands import BRAND_FACT
from heads.features.categories import LevelColumns
from heads.features.columns import BETWEEN, COLUMNS, texts_of, word_prefix
from heads.features.design import FieldBlock
from heads.features.rows import Rows
from heads.features.tfidf import Terms
from heads.folds.parallel import n_cores

Kind = Literal["word", "number", "category", "fields", "vectors", "row", "similar", "head"]
# What moved the price: a word, a field's or set's name, `category=level`, a row's id, "".
Part = tuple[Kind, str]
MOST_ROWS = 5  # training rows of one price that are named


@dataclass(frozen=True)
class Contributions:
    """Of one head for some rows: `base` and the parts of a row add up to its log price."""

    base: float
    parts: list[dict[Part, float]]  # one a row


def explain_rows(models: Sequence[Head], rows: Rows, mean: float) -> Contributions:
    """What moved the log price of rows; of several models the mean.

    Args:
        mean: log price that the effects of a head without parts of its own start from, such as the training rows' mean.
    """
    found = [_one(model, rows, mean) for model in models]
    parts: list[dict[Part, float]] = [{} for _ in range(len(rows))]
    for one in found:
        for total, own in zip(parts, one.parts, strict=True):
            for part, value in own.items():
                total[part] = total.get(part, 0.0) + value / len(found)
    return Contributions(float(np.mean([one.base for one in found])), parts)


def _one(head: Head, rows: Rows, mean: float) -> Contributions:
    of_kind = _WAYS.get(head.name)
    if of_kind is not None:
        return of_kind(head, rows)
    # Comparisons with training rows can't be split by word, and weights of single rows in a kernel cancel one another;
    # other heads give one effect.
    part: Part = ("similar", "") if head.name in ("kernel-ridge", "svr") else ("head", head.name)
    return Contributions(mean, [{part: float(value - mean)} for value in head.predict(rows)])


def _ridge(head: Any, rows: Rows) -> Contributions:
    layout, coefficients = head.layout_, head.path_.coefficients[:, 0]
    owner: list[Part | None] = [None] * layout.n_columns
    blocks = [block for block in layout.blocks if block.kind == "vectors"]
    for block, matrix in zip(blocks, rows.matrices, strict=True):
        owner[block.start : block.stop] = [("vectors", matrix.name)] * (block.stop - block.start)
    first = blocks[-1].stop if blocks else 0
    for at in range(layout.n_numbers):
        owner[first + at] = ("number", rows.fields.names[at])
    for start, _, indicator in layout.fills:
        owner[indicator] = owner[start]
    _own_levels(owner, layout.levels)
    X = layout.raw(rows, np.arange(len(rows)), np.float64) * coefficients
    return Contributions(float(head.path_.intercept[0]), [_gathered(x, owner) for x in X])


def _sparse(head: Any, rows: Rows) -> Contributions:
    from heads.features.tfidf import counts_of
    from heads.linear.sparse import further_rows

    model = head.model_
    coefficients, parts = model.coefficients[:, 0], [dict[Part, float]() for _ in range(len(rows))]
    start = 0
    for (terms, vectorizer), weighting in zip(head.vectorizers_.items(), model.weightings, strict=True):
        texts = texts_of(rows, terms.composition)
        X = weighting.transform(counts_of(vectorizer, texts)).tocsr()
        own = coefficients[start : start + len(weighting.columns)]
        names = _spelled(head, terms, vectorizer, weighting.columns)
        _add_terms(parts, X, own, names, terms, texts, _owners_of_words(rows))
        start += len(weighting.columns)
    _add_fields(parts, model.further, model.further.transform(further_rows(rows)) * coefficients[start:])
    return Contributions(model.mean, parts)


def _additive(head: Any, rows: Rows) -> Contributions:
    rows = with_bare_numbers(rows)
    fitted = head.sum_
    parts = _of_blocks(head, fitted.blocks, fitted.coefficients, rows)
    return Contributions(fitted.mean - sum(fitted.offsets.values()), parts)


def _gaussian_process(head: Any, rows: Rows) -> Contributions:
    rows = with_bare_numbers(rows)
    parts = _of_blocks(head, head.blocks_, head.coefficients_, rows)
    _add(parts, head.local_part(rows)[:, None], [("similar", "")])
    return Contributions(head.intercept_, parts)


def _neighbours(head: Any, rows: Rows) -> Contributions:
    """The neighbours of most weight, by how far their prices are from the middle; the others together."""
    predicted, position, weight = head.weighed(rows)
    position = np.maximum(position, 0)  # there is none: its weight is 0
    effect = weight * (head.log_price_[position] - head.mean_)
    named = position[:, :MOST_ROWS]
    ids = [head.sample_id_.take(pa.array(of_row)).to_pylist() for of_row in named]
    parts: list[dict[Part, float]] = [
        {("row", str(one)): float(value) for one, value in zip(of_row, values, strict=False) if value}
        for of_row, values in zip(ids, effect, strict=True)
    ]
    for own, log_price in zip(parts, predicted, strict=True):
        own["similar", ""] = float(log_price) - head.mean_ - sum(own.values())
    return Contributions(head.mean_, parts)


def _reranked(head: Any, rows: Rows) -> Contributions:
    """What `additive` adds up, and how the nearest rows move that: those of most weight by name."""
    found = _additive(head.below_, rows)
    if not head.boosters_:
        return found
    below, predicted, near = (
        head.below_.predict(rows),
        head.predict(rows),
        head.near_.retrieved(rows, MOST_ROWS),
    )
    position = np.maximum(near.position, 0)  # there is none: its weight is 0
    effect = near.weight * (head.log_price_[position] - below[:, None])
    for at, own in enumerate(found.parts):
        ids = head.near_.sample_id_.take(pa.array(position[at])).to_pylist()
        moved: dict[Part, float] = {
            ("row", str(one)): float(value) for one, value in zip(ids, effect[at], strict=True) if value
        }
        moved["similar", ""] = float(predicted[at] - below[at]) - sum(moved.values())
        own.update(moved)
    return found


def _of_blocks(
    head: Any, blocks: Mapping[str, Block], coefficients: Mapping[str, np.ndarray], rows: Rows
) -> list[dict[Part, float]]:
    """What blocks of columns add to the price of each row, by what they are of."""
    counts = head.counter_.count(rows)
    parts = [dict[Part, float]() for _ in range(len(rows))]
    for name, block in blocks.items():
        own = coefficients[name].astype(np.float64)
        X = block.transform(rows, counts)
        if isinstance(block, (TermColumns, TermPresence)):
            texts, terms = texts_of(rows, block.terms.composition), block.terms
            names = _spelled(head, terms, head.counter_.vectorizers[terms], block.columns_)
            _add_terms(parts, X.tocsr(), own, names, terms, texts, _owners_of_words(rows))
        elif isinstance(block, CategoryColumns):
            _add_fields(parts, block.block_, (X.toarray() if hasattr(X, "toarray") else X) * own)
        else:
            _add(parts, X * own, _block_owners(name, block, X.shape[1], rows))
    return parts


def _block_owners(name: str, block: Any, n_columns: int, rows: Rows) -> list[Part | None]:
    """Whose the columns of a block of an additive head are."""
    fields = rows.fields.names
    if isinstance(block, NumberColumns):
        kept = [fields[at] for at in block.kept_]
        lacking = [one for one, is_so in zip(kept, block.lacking_, strict=True) if is_so]
        return [("number", one) for one in (*kept, *lacking)]
    if isinstance(block, CurveColumns):
        return [("number", fields[at]) for at, knots in block.knots_ for _ in knots[1:]]
    kind, _, number = name.rpartition(" ")
    if kind.endswith("vectors"):
        return [("vectors", rows.matrices[int(number) - 1].name)] * n_columns
    return [("fields", "")] * n_columns


def _add_terms(
    parts: list[dict[Part, float]],
    X: Any,
    coefficients: np.ndarray,
    names: list[str],
    terms: Terms,
    texts: np.ndarray,
    columns: Mapping[str, Part],
) -> None:
    """Add what terms moved to the words that they stand in, or to the column that they are of."""
    for at, total in enumerate(parts):
        here = slice(X.indptr[at], X.indptr[at + 1])
        words = _words_with(str(texts[at]))
        for column, value in zip(X.indices[here], X.data[here], strict=True):
            term, effect = names[column], float(value) * float(coefficients[column])
            of = words(term) if terms.analyzer.startswith("char") else term.split(" ")
            for word in of:
                before, is_named, _ = word.partition(BETWEEN)
                own = columns.get(before + is_named) if terms.composition == COLUMNS else None
                key: Part = own or ("word", word)
                total[key] = total.get(key, 0.0) + effect / len(of)


def _owners_of_words(rows: Rows) -> dict[str, Part]:
    """What stands before the words of a further column -> that column."""
    fields = rows.fields.further()
    found: dict[str, Part] = {word_prefix(name): ("number", name) for name in fields.names}
    return found | {word_prefix(name): ("category", name) for name in fields.categories}


def _add_fields(parts: list[dict[Part, float]], block: FieldBlock, effects: np.ndarray) -> None:
    owner: list[Part | None] = [None] * len(block.names_)
    _own_fields(owner, block, 0)
    _add(parts, effects, owner)


def _add(parts: list[dict[Part, float]], effects: np.ndarray, owner: Sequence[Part | None]) -> None:
    for total, x in zip(parts, effects, strict=True):
        for part, value in _gathered(x, owner).items():
            total[part] = total.get(part, 0.0) + value


def _spelled(head: Any, terms: Terms, vectorizer: Any, columns: np.ndarray) -> list[str]:
    """The terms of a family in the order of their columns, made once a head."""
    known: dict[Terms, list[str]] = vars(head).setdefault("_terms_spelled", {})
    if terms not in known:
        vocabulary = getattr(vectorizer, "vocabulary_", None) or {}
        ordered = [str(term) for term in sorted(vocabulary, key=vocabulary.__getitem__)]
        known[terms] = [ordered[at] for at in columns]
    return known[terms]


def _words_with(text: str) -> Callable[[str], list[str]]:
    """Run of characters -> the words of a text that hold it; itself where none does."""
    words = dict.fromkeys(text.lower().split())
    padded = [(word, f" {word} ") for word in words]
    bare = {word: word.strip(string.punctuation) or word for word in words}
    return lambda run: [bare[word] for word, within in padded if run in within] or [run.strip() or run]


def _lightgbm(head: Any, rows: Rows) -> Contributions:
    values = head.columns_.values(rows, slice(None))
    found = np.asarray(head.booster_.predict(values, pred_contrib=True))
    return _of_trees(found, _tree_owners(head.columns_, rows), head.middle_)


def _boosted(head: Any, rows: Rows) -> Contributions:
    rows = with_bare_numbers(rows)
    X = head._values(rows, head.statistics_.transform(rows.fields), head._below(rows))
    found = np.mean([booster.predict(X, pred_contrib=True) for booster in head.boosters_], axis=0)
    owner: list[Part | None] = [
        one for one in _tree_owners(head.columns_, rows) if one is not None and one[0] != "category"
    ]
    owner += [("category", name) for name in head.statistics_.statistics_ for _ in range(2)]
    return _of_trees(found, owner, head.middle_)


def _catboost(head: Any, rows: Rows) -> Contributions:
    if head.model_ is None:  # the median alone
        return Contributions(head.middle_, [{} for _ in range(len(rows))])
    rows = with_bare_numbers(rows)
    pool, cores = head._pool(rows), n_cores(head.n_jobs)
    found = head.model_.get_feature_importance(pool, type="ShapValues", thread_count=cores)
    return _of_trees(np.asarray(found), _tree_owners(head.columns_, rows), head.middle_)


def _xgboost(head: Any, rows: Rows) -> Contributions:
    import xgboost

    owner: list[Part | None] = []
    if head.components:
        values = head.features_.transform(rows)
        for block, axes, matrix in zip(
            head.features_.blocks_, head.features_.axes_, rows.matrices, strict=True
        ):
            owner += [("vectors", matrix.name)] * (axes.shape[1] + block.indicates_)
        fields = head.features_.field_block_
        if fields is not None:
            start = len(owner)
            owner += [None] * len(fields.names_)
            _own_fields(owner, fields, start)
    else:
        values, owner = head.columns_.values(rows, slice(None)), _tree_owners(head.columns_, rows)
    found = head.booster_.predict(xgboost.DMatrix(values, nthread=head._threads), pred_contribs=True)
    return _of_trees(np.asarray(found, np.float64), owner, 0.0)


def _xgboost_baseline(head: Any, rows: Rows) -> Contributions:
    """Of log(1 + price), all parts of a row stretched alike to add up in log price."""
    import xgboost

    from heads.trees.baseline import log_price_of

    values, brands = head._values(rows, None if head.reader_ is None else head.reader_.read(rows))
    n_vectors, n_fields = len(head.vectors_.mean_) + head.vectors_.indicates_, len(head.fields_.names_)
    owner: list[Part | None] = [("vectors", rows.matrices[0].name)] * n_vectors
    owner += [None] * n_fields
    _own_fields(owner, head.fields_, n_vectors)
    brand: Part = ("category", BRAND_FACT)
    owner += [brand] * (values.shape[1] - len(owner))
    found = head.booster_.predict(xgboost.DMatrix(values, nthread=head.n_jobs), pred_contribs=True)
    told = _of_trees(np.asarray(found, np.float64), owner, 0.0)
    base = float(log_price_of(np.array(told.base)))
    for parts, log_price, name in zip(
        told.parts, head.predict(rows), brands or [""] * len(rows), strict=True
    ):
        total = sum(parts.values())
        stretch = (float(log_price) - base) / total if total else 0.0
        for part in list(parts):
            own: Part = ("category", f"{BRAND_FACT}={name or 'none'}") if part == brand else part
            parts[own] = parts.pop(part) * stretch
    return Contributions(base, told.parts)


def _of_trees(found: np.ndarray, owner: list[Part | None], shift: float) -> Contributions:
    """The last column is the expected value, the same in every row."""
    base = float(found[0, -1]) if len(found) else 0.0
    return Contributions(base + shift, [_gathered(x[:-1], owner) for x in found])


def _tree_owners(columns: Any, rows: Rows) -> list[Part | None]:
    axes = getattr(columns, "axes_", None)
    widths = [one.shape[1] for one in axes] if axes is not None else [matrix.dim for matrix in rows.matrices]
    owner: list[Part | None] = []
    for width, matrix in zip(widths, rows.matrices, strict=True):
        owner += [("vectors", matrix.name)] * width
    rest = getattr(columns, "rest_", columns)
    owner += [("number", name) for name in rows.fields.names[: rest.n_numbers]]
    return owner + [("category", name) for name in rest.levels]


def _own_fields(owner: list[Part | None], block: FieldBlock, start: int) -> None:
    """Whose the columns of a block of fields are."""
    for at, name in enumerate(block.names_):
        owner[start + at] = ("number", name.removeprefix("missing:"))
    for name, columns in block.levels_.levels.items():
        for level, column in columns.items():
            owner[start + column] = ("category", f"{name}={level}")


def _own_levels(owner: list[Part | None], levels: LevelColumns) -> None:
    for name, columns in levels.levels.items():
        for level, column in columns.items():
            owner[column] = ("category", f"{name}={level}")


def _gathered(values: np.ndarray, owner: Sequence[Part | None]) -> dict[Part, float]:
    """Sums of the values by what they are of, without zeros."""
    found: dict[Part, float] = {}
    for at in np.flatnonzero(values).tolist():
        part = owner[at]
        assert part is not None
        found[part] = found.get(part, 0.0) + float(values[at])
    return found


_WAYS: dict[str, Callable[[Any, Rows], Contributions]] = {
    "additive": _additive,
    "boosted": _boosted,
    "catboost": _catboost,
    "gaussian-process": _gaussian_process,
    "lightgbm": _lightgbm,
    "neighbours": _neighbours,
    "reranked-neighbours": _reranked,
    "ridge": _ridge,
    "sparse": _sparse,
    "xgboost": _xgboost,
    "xgboost-baseline": _xgboost_baseline,
}
