"""The figures of a catalogue: counted here, written as a page or as text elsewhere."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.download.addresses import read_link
from store.catalog.images.links import MADE_AGAIN, is_given, read_links
from store.catalog.read import extra_columns, image_references, present_splits, read_split
from store.catalog.show.doubts import Doubts, read_doubts
from store.config import load_config
from store.schema import CATEGORICAL_PREFIX, NUMERIC_PREFIX
from store.workspace import Workspace

BINS = 36
LEAST_GAP = 0.001  # of a field's shares, below which train and test agree
_FIELDS = ("name", "bullets", "description", "value", "unit", "quantity", "image_link")


@dataclass(frozen=True)
class SplitFacts:
    """One split, counted in rows."""

    name: str
    rows: int
    with_link: int
    with_image: int
    with_several: int  # images
    texts: int  # distinct
    n_images: int  # distinct
    missing: dict[str, int]  # why rows have no image -> rows, most frequent first
    missing_ids: dict[str, list[str]]  # the same -> first rows


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width on a log axis."""

    edges: np.ndarray  # (n_bins + 1,)
    counts: dict[str, np.ndarray]  # split -> (n_bins,)


@dataclass(frozen=True)
class Facts:
    """Everything that is shown."""

    workspace: str
    splits: list[SplitFacts]
    price: Histogram  # training rows, currency of the catalogue
    price_quantiles: dict[str, float]  # "1%" -> price
    length: Histogram  # characters of the text, rows with text
    coverage: dict[str, dict[str, float]]  # field -> split -> share of rows that have it
    against: list[tuple[str, float, float]]  # (what, in train, in test); empty without a test split
    doubts: Doubts

    @property
    def typical_price(self) -> float:
        """The median, which decides how all prices are written."""
        return self.price_quantiles["50%"]


def facts_record(facts: Facts) -> dict[str, Any]:
    """As plain values."""
    return {field.name: _plain(getattr(facts, field.name)) for field in dataclasses.fields(facts)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def read_facts(workspace: Workspace) -> Facts:
    """Take stock of the ingested catalogue.

    Raises:
        CatalogError: there is no train catalogue.
    """
    read_split(workspace, "train", ["sample_id"])  # says what is missing
    tables = {split: read_split(workspace, split) for split in present_splits(workspace)}
    links = read_links(workspace)
    digests = dict(zip(links["link"].to_pylist(), links["sha256"].to_pylist(), strict=True))
    failed = dict(zip(links["link"].to_pylist(), links["reason"].to_pylist(), strict=True))
    images = {
        split: [[digest for one in row if (digest := digests.get(one))] for row in image_references(table)]
        for split, table in tables.items()
    }
    takes_all = load_config(workspace).columns.images_per_row == "all"
    price = tables["train"]["price"].to_numpy()
    lengths = {split: pc.utf8_length(table["text"]).to_numpy() for split, table in tables.items()}
    quantiles = {f"{q:g}%": float(np.percentile(price, q)) for q in (0, 1, 25, 50, 75, 99, 100)}
    coverage = coverage_of(tables)
    return Facts(
        workspace=workspace.root,
        splits=[_split(name, table, images[name], failed, takes_all) for name, table in tables.items()],
        price=histogram({"train": price}),
        price_quantiles=quantiles,
        length=histogram(lengths),
        coverage=coverage,
        against=against(tables, lengths, coverage) if "test" in tables else [],
        doubts=read_doubts(workspace, tables, images),
    )


def histogram(values: dict[str, np.ndarray], bins: int = BINS) -> Histogram:
    """Values above 0 by split, in bins of equal width on a log axis."""
    logs = {split: np.log10(found[found > 0]) for split, found in values.items()}
    together = np.concatenate(list(logs.values()))
    low, high = (float(together.min()), float(together.max())) if len(together) else (0.0, 1.0)
    if high - low < 0.02:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = {split: np.histogram(found, edges)[0] for split, found in logs.items()}
    return Histogram(10**edges, counts)


def _split(
    name: str, table: pa.Table, images: list[list[str]], failed: dict[str, str | None], takes_all: bool
) -> SplitFacts:
    reasons: list[str] = []
    where: dict[str, list[str]] = {}
    lacking = [at for at, row in enumerate(images) if not row]
    columns = (
        table.select(["sample_id", "image", "image_link"]).take(pa.array(lacking, pa.int64())).to_pylist()
    )
    for row in columns:
        reason = failed.get(row["image"]) or _without_image(row["image"], row["image_link"], takes_all)
        reasons.append(reason)
        first = where.setdefault(reason, [])
        if len(first) < 3:
            first.append(str(row["sample_id"]))
    missing = dict(Counter(reasons).most_common())
    return SplitFacts(
        name=name,
        rows=len(table),
        with_link=len(table) - table["image_link"].null_count,
        with_image=len(images) - len(lacking),
        with_several=sum(len(row) > 1 for row in images),
        texts=len(pc.unique(table["text"])),
        n_images=len({one for row in images for one in row}),
        missing=missing,
        missing_ids={reason: where[reason] for reason in missing},
    )


def _without_image(reference: str | None, cell: str | None, takes_all: bool) -> str:
    if is_given(reference):
        return f"its row in images/links.parquet is lost: {MADE_AGAIN}"
    link = read_link(cell, take_all=takes_all)
    if link.url is not None:
        return "a link, not fetched yet"
    return link.problem or "no link"


def coverage_of(tables: dict[str, pa.Table]) -> dict[str, dict[str, float]]:
    """Field -> split -> share of rows that have it."""
    extras = [name for table in tables.values() for part in extra_columns(table.schema) for name in part]
    names = list(dict.fromkeys([*_FIELDS, *extras]))
    shares: dict[str, dict[str, float]] = {name: {} for name in names}
    for split, table in tables.items():
        columns = dict(
            zip(table.column_names, table.columns, strict=True)
        )  # to ask a table by name takes all names
        for name in names:
            shares[name][split] = _share(columns[name]) if name in columns else 0.0
    return shares


def _share(column: pa.ChunkedArray) -> float:
    if len(column) == 0:
        return 0.0
    if pa.types.is_list(column.type):
        return float(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0) / len(column)
    return 1.0 - column.null_count / len(column)


def _own_name(column: str) -> str:
    """A further column as the user's file calls it."""
    return column.removeprefix(NUMERIC_PREFIX).removeprefix(CATEGORICAL_PREFIX)


def against(
    tables: dict[str, pa.Table], lengths: dict[str, np.ndarray], coverage: dict[str, dict[str, float]]
) -> list[tuple[str, float, float]]:
    """Train and test side by side: means, then shares."""
    found: list[tuple[str, float, float]] = []
    parts = {"characters of text": lengths}
    parts["bullets"] = {s: pc.list_value_length(t["bullets"]).to_numpy() for s, t in tables.items()}
    for label, values in parts.items():
        means = [float(np.mean(values[s])) if len(values[s]) else 0.0 for s in ("train", "test")]
        found.append((f"mean {label}", means[0], means[1]))
    for unit in ("g", "ml", "count"):
        shares = [
            float(pc.sum(pc.equal(tables[s]["quantity_unit"], unit)).as_py() or 0) / max(len(tables[s]), 1)
            for s in ("train", "test")
        ]
        found.append((f"share sold by {unit}", shares[0], shares[1]))
    found.extend(
        (f"share with {_own_name(name)}", by["train"], by["test"])
        for name, by in coverage.items()
        if abs(by["train"] - by["test"]) >= LEAST_GAP
    )
    return found
