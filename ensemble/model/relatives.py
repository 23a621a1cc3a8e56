"""Which new rows have a relative among the training rows, as `store.folds.relatives` finds it for the test rows."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from store.arrays import read_arrays
from store.catalog.clean.duplicates import NEAR_JACCARD, SHARED_ROWS
from store.catalog.clean.near import NearIndex
from store.catalog.images.links import further_row_images, known_links, row_images
from store.catalog.read import extra_columns, present_splits, read_split
from store.errors import CorruptFileError
from store.folds.relatives import read_relatives
from store.workspace import Workspace

FAMILY, PRODUCT = 1, 2  # as `ensemble.expected.LEVELS`


@dataclass(frozen=True)
class TrainingRelatives:
    """What training rows have that a relative of theirs would have too, as hashes of 64 bits.

    A row is compared with the training rows only, not with other new rows, so its interval does not depend on them.
    """

    family: np.ndarray  # (n,) uint64, sorted: their texts and images
    product: np.ndarray  # (n,) uint64, sorted: these, with the values of the row's further columns
    shared: (
        np.ndarray
    )  # (n,) uint64, sorted: images that are further ones of many rows, and tell nothing there
    near: NearIndex  # their distinct texts
    through: (
        np.ndarray
    )  # (n,) uint64, sorted: test rows that are related to a training row through another test row
    through_level: np.ndarray  # (n,) int64, as `through`

    @classmethod
    def of(cls, workspace: Workspace) -> "TrainingRelatives":
        """Of the training rows of a workspace."""
        table, images = _rows(workspace, "train")
        n_rows: dict[str, int] = {}
        for row in images:
            for sha256 in row[1:]:
                n_rows[sha256] = n_rows.get(sha256, 0) + 1
        shared = hashes_of({bytes.fromhex(sha256) for sha256, n in n_rows.items() if n > SHARED_ROWS})
        texts, own = table["text"].to_pylist(), further_values(table)
        parts = [_parts(text, row, shared) for text, row in zip(texts, images, strict=True)]
        none = np.array([], np.uint64)
        found = cls(
            hashes_of({part for row in parts for part in row}),
            hashes_of({part + values for row, values in zip(parts, own, strict=True) for part in row}),
            shared,
            NearIndex.of(pa.array(sorted({text for text in texts if text}), pa.string())),
            none,
            none.astype(np.int64),
        )
        if "test" not in present_splits(workspace):
            return found
        table, images = _rows(workspace, "test")
        level = read_relatives(workspace).of_test()
        other = np.flatnonzero(level != found.levels(table, images))
        texts, own = table["text"].to_pylist(), further_values(table)
        through = {
            _hash(b"".join(_parts(texts[at], images[at], shared)) + own[at]): at for at in other.tolist()
        }
        keys = np.array(sorted(through), np.uint64)
        return replace(
            found, through=keys, through_level=level[[through[int(key)] for key in keys]].astype(np.int64)
        )

    def levels(self, table: pa.Table, images: Sequence[Sequence[str]]) -> np.ndarray:
        """Each row's closest relative: 2 the same product, 1 one of its family, 0 none; shape (n_rows,).

        Args:
            table: new rows with the catalogue's columns.
            images: hex SHA-256 of each row's images, the first one first.
        """
        own = further_values(table)
        level = np.zeros(len(table), np.int64)
        known = np.zeros(len(table), bool)
        for at, text in enumerate(table["text"].to_pylist()):
            parts = _parts(text, images[at], self.shared)
            place = _place(self.through, b"".join(parts) + own[at])
            if place is not None:
                level[at], known[at] = self.through_level[place], True
            elif any(_place(self.product, part + own[at]) is not None for part in parts):
                level[at] = PRODUCT
            elif any(_place(self.family, part) is not None for part in parts):
                level[at] = FAMILY
        alone = np.flatnonzero((level == 0) & ~known)
        near = self.near.has_near(table["text"].take(pa.array(alone)), NEAR_JACCARD)
        level[alone[near]] = FAMILY
        return level

    def save(self, path: Path) -> None:
        """Write an `.npz`."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "near"}
        np.savez_compressed(path, **own, **self.near.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "TrainingRelatives":
        """What `save` wrote."""
        arrays = read_arrays(path)
        kinds = {"family": "u8", "product": "u8", "shared": "u8", "through": "u8", "through_level": "i8"}
        kinds |= {"steps": "u4", "sizes": "i4"}
        texts = arrays.get("texts", np.zeros(0))
        is_whole = all(name in arrays and arrays[name].dtype.str[1:] == one for name, one in kinds.items())
        if (
            not is_whole
            or any(one.ndim != 1 for one in arrays.values())
            or len(arrays["through"]) != len(arrays["through_level"])
            or texts.dtype.kind != "u"
            or len(texts) != len(arrays["steps"])
            or int(texts.max(initial=0)) >= max(1, len(arrays["sizes"]))
        ):
            raise CorruptFileError(f"{path} is not what shelfprice wrote: copy the model again")
        own = {field.name: arrays[field.name] for field in fields(cls) if field.name != "near"}
        return cls(near=NearIndex.from_arrays(arrays), **own)


def _rows(workspace: Workspace, split: str) -> tuple[pa.Table, list[list[str]]]:
    """Rows of a split, and hex SHA-256 of each one's images."""
    table, known = read_split(workspace, split).combine_chunks(), known_links(workspace)
    firsts, further = row_images(table["image"], known), further_row_images(table, known)
    pairs = zip(firsts.to_pylist(), further.to_pylist(), strict=True)
    return table, [[one for one in (first, *others) if one is not None] for first, others in pairs]


def further_values(table: pa.Table) -> list[bytes]:
    """The values of each row's further columns, written down."""
    numeric, categorical = extra_columns(table.schema)
    names = sorted((*numeric, *categorical))
    columns: list[list[Any]] = [table[name].to_pylist() for name in names]
    rows = zip(*columns, strict=True) if columns else [()] * len(table)
    return [b"\0" + json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]


def _parts(text: str | None, images: Sequence[str], shared: np.ndarray) -> list[bytes]:
    """What a row may have in common with a relative."""
    contents = [bytes.fromhex(one) for one in images]
    own = [*contents[:1], *(one for one in contents[1:] if _place(shared, one) is None)]
    return [*([b"text" + text.encode()] if text else []), *(b"image" + one for one in own)]


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def hashes_of(contents: set[bytes]) -> np.ndarray:
    """Sorted, uint64."""
    return np.array(sorted(map(_hash, contents)), np.uint64)


def _place(hashes: np.ndarray, content: bytes) -> int | None:
    """Where a content is among sorted hashes; None: nowhere."""
    found = np.uint64(_hash(content))
    at = int(np.searchsorted(hashes, found))
    return at if at < len(hashes) and hashes[at] == found else None
