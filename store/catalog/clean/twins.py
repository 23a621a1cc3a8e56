"""Rows that are the same twice, and nearly so: by text, by image, by both; and test rows that repeat train rows."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from store.catalog.clean.duplicates import NEAR_JACCARD, codes, first_seen
from store.catalog.clean.near import near_pairs
from store.catalog.clean.rows import Catalogue, Finding

Reason = Callable[[int, str], str]  # (rows in the group, id of its first row) -> words


def exact_twins(rows: Catalogue) -> list[Finding]:
    """Same text and image (or neither with one); same image, other text; same text, other image."""
    text, image = text_codes(rows), codes(rows.image)[0]
    both = np.where(text >= 0, _joint(text, image), -1)
    return [
        _grouped("same_text_image", rows, both, None, lambda n, first: _same("text and image", n, first)),
        _grouped(
            "same_image", rows, image, text, lambda n, first: _same("image, with other texts,", n, first)
        ),
        _grouped(
            "same_text", rows, text, image, lambda n, first: _same("text, with other images,", n, first)
        ),
    ]


def near_texts(rows: Catalogue) -> Finding:
    """Rows whose texts differ in few words: Jaccard similarity of word shingles, see `store.catalog.clean.near`."""
    text = text_codes(rows)
    linked = _linked(text, lambda first: near_pairs(rows.text.take(pa.array(first)), NEAR_JACCARD))
    return _grouped(
        "near_text", rows, linked, text, lambda n, first: f"nearly the text of {first}, {n} rows alike"
    )


def near_images(rows: Catalogue, pairs_of: Callable[[list[str]], np.ndarray]) -> Finding:
    """Rows whose images look alike.

    Args:
        pairs_of: takes distinct image digests, gives pairs of their positions, shape (n_pairs, 2).
    """
    image = codes(rows.image)[0]
    linked = _linked(image, lambda first: pairs_of(rows.image.take(pa.array(first)).to_pylist()))
    return _grouped(
        "near_image", rows, linked, image, lambda n, first: f"nearly the image of {first}, {n} rows alike"
    )


def repeats_of_train(rows: Catalogue) -> Finding:
    """Test rows with the same text or image as a training row; they are scored as they are."""
    n_train = rows.n_train
    first_by = [
        _first_row(part[:n_train], part[n_train:]) for part in (text_codes(rows), codes(rows.image)[0])
    ]
    found = np.flatnonzero((first_by[0] >= 0) | (first_by[1] >= 0))
    reasons = []
    for i in found.tolist():
        parts = [
            f"{what} of train row {rows.id_of(first[i])}"
            for what, first in zip(("text", "image"), first_by, strict=True)
            if first[i] >= 0
        ]
        reasons.append(" and ".join(parts))
    return Finding("test_repeats", n_train + found, None, reasons)


def text_codes(rows: Catalogue) -> np.ndarray:
    """A number per distinct text, -1 for an empty one, shape (n_rows,)."""
    text, _ = codes(rows.text)
    empty = np.flatnonzero(np.array(pc.equal(rows.text, ""), dtype=bool))
    text[empty] = -1
    return text


def _first_row(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The first training row with the code of each test row, -1 where none has it; shape (n_test,)."""
    first = np.full(int(max(train.max(initial=-1), test.max(initial=-1))) + 2, -1)
    first[train[::-1]] = np.arange(len(train))[::-1]
    first[-1] = -1  # where code -1 points
    return first[test]


def _joint(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A number per distinct pair, counted from 0: they are bins, of which there must not be rows times rows."""
    pair = left * (int(right.max(initial=-1)) + 2) + right + 1
    return np.unique(pair, return_inverse=True)[1]


def _linked(code: np.ndarray, pairs_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Codes joined where their distinct values are linked, -1 where there is none; shape (n_rows,)."""
    n_codes = int(code.max(initial=-1)) + 1
    if n_codes < 2:
        return code
    first = np.full(n_codes, len(code))
    have = np.flatnonzero(code >= 0)
    np.minimum.at(first, code[have], have)
    used = np.flatnonzero(first < len(code))
    pairs = used[pairs_of(first[used])]
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n_codes, n_codes))
    label = connected_components(graph, directed=False)[1]
    return np.where(code >= 0, label[code], -1)


def _grouped(
    name: str, rows: Catalogue, group: np.ndarray, differing: np.ndarray | None, reason: Reason
) -> Finding:
    """Groups of two and more rows; with `differing`, those that hold two and more values of it."""
    have = group >= 0
    size = np.bincount(group[have], minlength=1) if have.any() else np.zeros(1, np.int64)
    wanted = size > 1
    if differing is not None and have.any():
        pairs = np.unique(np.stack([group[have], differing[have]]), axis=1)
        wanted &= np.bincount(pairs[0], minlength=len(size)) > 1
    found = np.flatnonzero(have & wanted[np.where(have, group, 0)])
    label = first_seen(group[found]) if len(found) else np.empty(0, np.int64)
    first = found[np.unique(label, return_index=True)[1]]
    words = [reason(int(size[group[at]]), rows.id_of(at)) if len(found) else "" for at in first.tolist()]
    return Finding(name, found, label, [words[i] for i in label.tolist()])


def _same(what: str, n: int, first: str) -> str:
    return f"same {what} in {n} rows, first {first}"
