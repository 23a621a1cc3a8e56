"""What each file of a workspace must hold, and the command that makes it again.

`Workspace` reads every table and every JSON record through the contract of its path: a file that reads well and holds
something else is an error that names it and the next step, before its content is used.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from store.schema import (
    CATALOG_COLUMNS,
    CLEANING,
    FAILURES,
    HOLDOUT_PRICE,
    KEY_TYPE,
    LOG_PRICE,
    PERCEPTUAL_HASHES,
    PRICE,
    REJECTED,
    TUNING_HISTORY,
)


@dataclass(frozen=True)
class ListOf:
    """A list whose items all have a shape, of a length where one is stated."""

    item: "Shape"
    length: int | None = None


@dataclass(frozen=True)
class Each:
    """An object of any names, whose values all have a shape."""

    value: "Shape"


@dataclass(frozen=True)
class May:
    """A name of an object that may be missing or null."""

    shape: "Shape"


# The shape of JSON: a type or several, text of a pattern, or names that must be there with the shape of each.
Shape = type | tuple[type, ...] | Mapping[str, Any] | re.Pattern[str] | ListOf | Each | May
NUMBER = (int, float)
RECORD_BYTES = 2**26  # that a JSON record has at most
IMAGE_BYTES = 2**28  # that the file of one image has at most
TEXT_OR_NULL = (str, type(None))


@dataclass(frozen=True)
class ColumnKind:
    """Any of several Arrow types."""

    words: str
    fits: Callable[[pa.DataType], bool]


ID = ColumnKind("int64 or string", lambda kind: kind in (pa.int64(), pa.string()))
INTEGER = ColumnKind("integer", pa.types.is_integer)
VECTOR = ColumnKind("fixed_size_binary", pa.types.is_fixed_size_binary)


@dataclass(frozen=True)
class Column:
    """A column that must be there."""

    kind: pa.DataType | ColumnKind
    nullable: bool = True

    def problem(self, name: str, schema: pa.Schema) -> str | None:
        """What is wrong with the column of this name; None where nothing is."""
        at = schema.get_field_index(name)
        if at < 0:
            return f"it has no column {name!r}"
        found = schema.field(at).type
        if isinstance(self.kind, ColumnKind):
            return None if self.kind.fits(found) else f"column {name!r} is {found}, not {self.kind.words}"
        return None if found == self.kind else f"column {name!r} is {found}, not {self.kind}"


@dataclass(frozen=True)
class Contract:
    """One kind of file.

    Args:
        files: pattern of its path.
        made_by: what makes it again, as the end of a sentence.
        columns: of a table; every one must be there.
        shape: of a JSON record, or of the JSON beside a table's columns.
        most_bytes: that such a file can have, where that is known.
    """

    files: str
    made_by: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    shape: Shape = dict
    most_bytes: int | None = None


def _columns(*schemas: pa.Schema | tuple[pa.Field, ...] | Mapping[str, pa.DataType]) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for schema in schemas:
        if isinstance(schema, Mapping):
            found |= {name: Column(kind) for name, kind in schema.items()}
        else:
            found |= {one.name: Column(one.type, one.nullable) for one in schema}
    return found


_ID = {"sample_id": Column(ID, nullable=False)}
_OUT_OF_FOLD = _ID | {"fold": Column(INTEGER, nullable=False)} | _columns((LOG_PRICE,))
_INGEST = "run 'shelfprice catalog ingest' again with the files of the catalogue"
_IMAGES = "run 'shelfprice catalog ingest' with --images again, or 'shelfprice catalog images' for links"
_EMBED = "run 'shelfprice embed run' to make it again"
_HEADS = "run 'shelfprice heads run' to make it again"
_BLEND = "run 'shelfprice ensemble blend' to make it again"
_TUNED = "delete its folder and run 'shelfprice embed finetune' again"
ENCODER = {
    "name": str,
    "modality": str,
    "library": str,
    "model": str,
    "weights_sha256": str,
    "dim": int,
    "preprocessing": dict,
    "pooling": str,
    "normalize": bool,
}
CONTRACTS = (
    Contract(
        r"shelfprice\.toml(\.last)?", "run 'shelfprice status', which says how to go on", most_bytes=2**20
    ),
    Contract(
        r"catalog/train\.parquet",
        _INGEST,
        _ID | _columns(CATALOG_COLUMNS, (PRICE,)),
        {"digest": str},
    ),
    Contract(r"catalog/test\.parquet", _INGEST, _ID | _columns(CATALOG_COLUMNS), {"digest": str}),
    Contract(r"catalog/rejected\.parquet", _INGEST, _columns(REJECTED)),
    Contract(
        r"catalog/readings\.json",
        _INGEST,
        shape={
            "text": list,
            "image": TEXT_OR_NULL,
            "columns": dict,
            "currency": TEXT_OR_NULL,
            "images_per_row": str,
        },
    ),
    Contract(r"catalog/holdout\.parquet", _INGEST, _ID | _columns((HOLDOUT_PRICE,))),
    Contract(
        r"catalog/relatives\.parquet",
        _BLEND,
        _ID | {"product": Column(INTEGER, nullable=False), "family": Column(INTEGER, nullable=False)},
        {"catalog_digest": str},
    ),
    Contract(
        r"images/links\.parquet",
        "run 'shelfprice catalog ingest' or 'shelfprice catalog images' to make it again",
        {"link": Column(pa.string(), nullable=False), "sha256": Column(pa.string())},
    ),
    Contract(r"images/blobs/.*", _IMAGES, most_bytes=IMAGE_BYTES),
    Contract(
        r"images/hashes\.parquet",
        "run 'shelfprice catalog clean' to make it again",
        _columns(PERCEPTUAL_HASHES),
    ),
    Contract(
        r"folds\.parquet",
        "run 'shelfprice catalog folds' to decide them again",
        _ID | {"fold": Column(INTEGER, nullable=False), "group": Column(INTEGER, nullable=False)},
    ),
    Contract(
        r"cleaning\.parquet",
        "run 'shelfprice catalog clean' to make it again",
        _ID | _columns(CLEANING),
        {"catalog_digest": str, "folds_hash": str, "digest": TEXT_OR_NULL},
    ),
    Contract(
        r"vectors/[^/]+/part-\w+\.parquet",
        _EMBED,
        {"key": Column(KEY_TYPE, nullable=False), "vector": Column(VECTOR, nullable=False)},
    ),
    Contract(r"vectors/[^/]+/failed-\w+\.parquet", _EMBED, _columns(FAILURES)),
    Contract(r"vectors/[^/]+/encoder\.json", _EMBED, shape=ENCODER),
    Contract(
        r"vectors/current/[^/]+\.json",
        f"{_EMBED}, or delete it where its encoder is not in use any more",
        shape=ENCODER,
    ),
    Contract(r"vectors/.+\.json", _EMBED),
    Contract(r"predictions/[^/]+/oof\.parquet", _HEADS, _OUT_OF_FOLD),
    Contract(r"predictions/[^/]+/(test|curve)\.parquet", _HEADS, _ID | _columns((LOG_PRICE,))),
    Contract(r"predictions/[^/]+/evidence\.parquet", _HEADS, _ID | {"split": Column(pa.string())}),
    Contract(
        r"predictions/[^/]+/head\.json",
        _HEADS,
        shape={"head": str, "inputs": {"folds_hash": str, "catalog_digest": str}, "report": dict},
    ),
    Contract(
        r"predictions/[^/]+\.json",
        _HEADS,
        shape={"head": str, "folder": re.compile(r"predictions/(?!\.)[^/]+")},
    ),
    Contract(
        r"tuning/[^/]+\.json",
        "delete it, or run 'shelfprice heads tune' again",
        shape={
            "head": str,
            "bound_to": dict,
            "folds": dict,
            "refit": dict,
            "trials": (int, dict),
            "inner_smape": (float, int, type(None), dict),
        },
    ),
    Contract(
        r"blend/[^/]+/blend\.json",
        _BLEND,
        shape={
            "inputs": {"heads": dict, "folds_hash": str, "catalog_digest": str, "code_version": int},
            "mean": str,
            "weights": dict,
            "calibration": dict,
            "scores": {"nested": NUMBER},
        },
    ),
    Contract(r"blend/[^/]+/oof\.parquet", _BLEND, _OUT_OF_FOLD),
    Contract(r"blend/current\.json", _BLEND, shape={"folder": re.compile(r"blend/(?!\.)[^/]+")}),
    Contract(
        r"blend/[^/]+/report-[a-z]+\.json",
        "run 'shelfprice ensemble report' to make it again",
        shape={"code_version": int, "effort": NUMBER, "found": dict},
    ),
    Contract(
        r"finetune/[^/]+/fold-\d+/fold\.json",
        _TUNED,
        shape={"weights_sha256": str, "frozen_smape": NUMBER, "seconds": NUMBER},
    ),
    Contract(r"finetune/[^/]+/fold-\d+/history\.parquet", _TUNED, _columns(TUNING_HISTORY)),
    Contract(r"finetune/[^/]+/run\.json", _TUNED, shape={"encoders": list}),
    Contract(r"finetune/.+", _TUNED),
)
_COMPILED = tuple(
    (
        re.compile(one.files),
        replace(one, most_bytes=RECORD_BYTES) if isinstance(one.shape, dict) and not one.columns else one,
    )
    for one in CONTRACTS
)
ANY = Contract("", "delete it and run the command that made it again")


def contract_of(relative: str) -> Contract:
    """The contract of a path within a workspace; one that asks for nothing where none is declared."""
    return next((one for pattern, one in _COMPILED if pattern.fullmatch(relative)), ANY)


def shape_problem(value: Any, shape: Shape, where: str = "") -> str | None:
    """What is wrong with plain data; None where nothing is."""
    if isinstance(shape, Mapping | Each):
        if not isinstance(value, dict):
            return f"{where or 'it'} is {_kind(value)}, not an object"
        parts = dict.fromkeys(value, shape.value) if isinstance(shape, Each) else shape
        problems = (
            shape_problem(value[name], one, f"{where}.{name}".lstrip("."))
            if name in value
            else f"it has no {f'{where}.{name}'.lstrip('.')!r}"
            for name, one in parts.items()
            if name in value or not isinstance(one, May)
        )
        return next((problem for problem in problems if problem), None)
    if isinstance(shape, ListOf):
        if not isinstance(value, list):
            return f"{where or 'it'} is {_kind(value)}, not a list"
        if shape.length is not None and len(value) != shape.length:
            return f"{where or 'it'} has {len(value)} items, not {shape.length}"
        items = (shape_problem(one, shape.item, f"{where}[{at}]") for at, one in enumerate(value))
        return next((problem for problem in items if problem), None)
    if isinstance(shape, May):
        return None if value is None else shape_problem(value, shape.shape, where)
    if isinstance(shape, re.Pattern):
        if isinstance(value, str) and shape.fullmatch(value):
            return None
        return f"{where or 'it'} is {_kind(value) if not isinstance(value, str) else 'another text'}"
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, bool) and bool not in kinds:
        return f"{where or 'it'} is true or false"
    return None if isinstance(value, kinds) else f"{where or 'it'} is {_kind(value)}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def table_problem(schema: pa.Schema, contract: Contract) -> str | None:
    """What is wrong with the columns of a table; None where nothing is."""
    problems = (column.problem(name, schema) for name, column in contract.columns.items())
    return next((problem for problem in problems if problem), None)


def null_problem(table: pa.Table, contract: Contract) -> str | None:
    """Which column that was read holds a null and may not; None: none does."""
    for name in table.column_names:
        column = contract.columns.get(name)
        if column is not None and not column.nullable and table[name].null_count:
            return f"column {name!r} lacks {table[name].null_count} values"
    return None


def parse_json(content: bytes | str) -> Any:
    """Plain data.

    Raises:
        ValueError: this is not JSON, or it is nested deeper than any record is.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
