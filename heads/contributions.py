"""What moved a head's log price: exact parts that add up to it, by word, number, category, vector set."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from heads.base import Head
from heads.features.categories import LevelColumns
from heads.features.design import FieldBlock
from heads.features.rows import Rows

Kind = Literal["word", "number", "category", "vectors", "similar", "head"]
Part = tuple[Kind, str]  # what moved the price: a word, a field's or set's name, `category=level`, ""


@dataclass(frozen=True)
class Contributions:
    """Of one head for some rows: `base` and the parts of a row add up to its log price."""

    base: float
    parts: list[dict[Part, float]]  # one a row


def explain_rows(models: Sequence[Head], rows: Rows, mean: float) -> Contributions:
    """What moved the log price of rows; of several models the mean.

    Args:
        mean: log price that a head which can't tell its own parts is compared with, such as the training rows' mean.
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
    # What compares with training rows can't be split by word; other heads are told as a whole.
    part: Part = (
        ("similar", "") if head.name in ("kernel-ridge", "neighbours", "svr") else ("head", head.name)
    )
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
        texts = rows.text(terms.composition)
        X = weighting.transform(counts_of(vectorizer, texts)).tocsr()
        vocabulary = getattr(vectorizer, "vocabulary_", None) or {}
        names = _spelled(head, vectorizer, vocabulary)
        for at in range(len(rows)):
            here = slice(X.indptr[at], X.indptr[at + 1])
            words = _words_with(str(texts[at]))
            for column, value in zip(X.indices[here], X.data[here], strict=True):
                term = names[weighting.columns[column]]
                effect = float(value) * float(coefficients[start + column])
                of = words(term) if terms.analyzer.startswith("char") else term.split(" ")
                for word in of:
                    key: Part = ("word", word)
                    parts[at][key] = parts[at].get(key, 0.0) + effect / len(of)
        start += len(weighting.columns)
    further = further_rows(rows)
    owner: list[Part | None] = [None] * len(model.further.names_)
    _own_fields(owner, model.further, 0)
    X = model.further.transform(further).astype(np.float64) * coefficients[start:]
    for total, x in zip(parts, X, strict=True):
        for part, value in _gathered(x, owner).items():
            total[part] = total.get(part, 0.0) + value
    return Contributions(model.mean, parts)


def _spelled(head: Any, vectorizer: Any, vocabulary: dict[str, int]) -> list[str]:
    """Every term of a counter by number, made once a head."""
    known: dict[int, list[str]] = vars(head).setdefault("_spelled", {})
    if id(vectorizer) not in known:
        known[id(vectorizer)] = [str(term) for term in sorted(vocabulary, key=vocabulary.__getitem__)]
    return known[id(vectorizer)]


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


def _xgboost(head: Any, rows: Rows) -> Contributions:
    import xgboost

    if head.components:
        values, owner = head.features_.transform(rows), []
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
    for at in np.flatnonzero(values):
        part = owner[at]
        assert part is not None
        found[part] = found.get(part, 0.0) + float(values[at])
    return found


_WAYS: dict[str, Callable[[Any, Rows], Contributions]] = {
    "lightgbm": _lightgbm,
    "ridge": _ridge,
    "sparse": _sparse,
    "xgboost": _xgboost,
}
