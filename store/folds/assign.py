"""The fold of each training row: grouped, stratified, decided once, hashed."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.images.links import further_row_images, known_links, row_images
from store.catalog.read import columns_of_images, present_splits, read_split, split_path
from store.config import Config, Grouping, keep_settings
from store.errors import (
    CatalogError,
    CorruptFileError,
    FoldMismatchError,
    RowMismatchError,
    WorkspaceError,
)
from store.folds.stratify import deal_groups
from store.schema import FOLD, GROUP
from store.workspace import Workspace

FOLDS_FILE = "folds.parquet"
CODE_VERSION = 1  # raised when the same record yields other folds
MOST_BINS = 50  # of log price


@dataclass(frozen=True)
class Folds:
    """Folds of the training rows, in the order of `sample_id`."""

    sample_id: pa.Array  # (n_rows,)
    fold: np.ndarray  # (n_rows,) int16, 0..k-1
    group: np.ndarray  # (n_rows,) int64
    hash: str  # over (sample_id, fold, group) sorted by id: the same whatever the row order

    @property
    def k(self) -> int:
        return int(self.fold.max()) + 1

    def aligned(self, sample_id: pa.Array) -> "Folds":
        """The same folds in the order of other ids.

        Raises:
            FoldMismatchError: the ids are not exactly the ones that folds were decided for.
        """
        position = pc.index_in(sample_id, value_set=self.sample_id)
        if len(sample_id) != len(self.sample_id) or position.null_count:
            raise FoldMismatchError(
                f"{FOLDS_FILE} was decided for {len(self.sample_id)} rows and the catalogue has {len(sample_id)} "
                f"({position.null_count} of them without a fold): run 'shelfprice catalog folds' to decide again"
            )
        order = position.to_numpy()
        return Folds(sample_id, self.fold[order], self.group[order], self.hash)


def folds_hash(sample_id: pa.Array, fold: np.ndarray, group: np.ndarray) -> str:
    """16 hex characters over rows sorted by id."""
    order = pc.array_sort_indices(sample_id).to_numpy()
    ids = "\n".join(str(value) for value in sample_id.take(pa.array(order)).to_pylist())
    content = hashlib.sha256(ids.encode())
    content.update(np.ascontiguousarray(fold[order], dtype="<i2").tobytes())
    content.update(np.ascontiguousarray(group[order], dtype="<i8").tobytes())
    return content.hexdigest()[:16]


def read_folds(workspace: Workspace) -> Folds:
    """The folds on disk.

    Raises:
        WorkspaceError: none were decided yet.
    """
    if not workspace.exists(FOLDS_FILE):
        raise WorkspaceError(
            f"no folds in {workspace.root}: run 'shelfprice heads run -w {workspace.root}', which decides them and trains"
        )
    table = workspace.read_table(FOLDS_FILE).combine_chunks()
    sample_id = table["sample_id"].combine_chunks()
    fold, group = table["fold"].to_numpy(), table["group"].to_numpy()
    return Folds(sample_id, fold, group, folds_hash(sample_id, fold, group))


@dataclass(frozen=True)
class FoldsRecord:
    """What folds were decided by: the metadata of folds.parquet. A file without it was brought along."""

    k: int
    seed: int
    grouping: Grouping
    train_digest: str  # of the training rows
    code_version: int


def read_record(workspace: Workspace) -> FoldsRecord | None:
    """What the folds on disk were decided by; None where a file without a record was put there."""
    found = workspace.read_metadata(FOLDS_FILE)
    names = {field.name for field in dataclasses.fields(FoldsRecord)}
    return FoldsRecord(**found) if set(found) == names else None


def wanted_record(workspace: Workspace, config: Config) -> FoldsRecord:
    """What folds would be decided by now."""
    if "train" not in present_splits(workspace):
        read_split(workspace, "train")  # says what is missing
    digest = str(workspace.read_metadata(split_path("train")).get("digest"))
    return FoldsRecord(config.folds.k, config.seed, config.folds.group, digest, CODE_VERSION)


def why_stale(found: FoldsRecord, wanted: FoldsRecord) -> str | None:
    """Why folds must be decided again, in words; None where they need not be."""
    if found.train_digest != wanted.train_digest:
        return "the training catalogue has changed"
    names = ("k", "grouping", "seed", "code_version")
    changes = [
        f"{name} {getattr(found, name)} became {getattr(wanted, name)}"
        for name in names
        if getattr(found, name) != getattr(wanted, name)
    ]
    return ", ".join(changes) or None


def ensure_folds(
    workspace: Workspace, config: Config, log: Callable[[str], None] = lambda line: None
) -> Folds:
    """The folds that the configuration asks for: those on disk while they hold, else decided now.

    A folds.parquet without a record of how it was decided is the user's own: it stays, and must cover
    exactly the training rows.

    Args:
        log: takes a line for people when folds are decided again.

    Raises:
        CatalogError: no train catalogue, or rows that can't be split as asked.
        FoldMismatchError: the user's own folds are of other rows.
    """
    keep_settings(workspace, log)
    wanted = wanted_record(workspace, config)
    if workspace.exists(FOLDS_FILE):
        try:
            found, held = read_record(workspace), read_folds(workspace)
        except CorruptFileError as error:
            log(f"{error}; they are decided again now")
            publish_folds(workspace, folds_table(workspace, wanted), wanted)
            return read_folds(workspace)
        if found is None:
            ids = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
            return held.aligned(ids)
        reason = why_stale(found, wanted)
        if reason is None:
            return held
        log(f"folds are decided again: {reason}")
    table = folds_table(workspace, wanted)
    publish_folds(workspace, table, wanted)
    return read_folds(workspace)


def folds_table(workspace: Workspace, record: FoldsRecord) -> pa.Table:
    """Folds of the ingested training rows, sorted by id: the order of the file decides nothing.

    Raises:
        CatalogError: no train catalogue, or rows that can't be split as asked.
    """
    from store.catalog.clean.duplicates import group_rows

    columns_read = ["sample_id", "text", "price", *columns_of_images(workspace, "train")]
    rows, known = read_split(workspace, "train", columns_read).sort_by("sample_id"), known_links(workspace)
    image, further = row_images(rows["image"], known), further_row_images(rows, known)
    group = group_rows(rows["text"], image, near=record.grouping == "near", further=further)
    fold = decide_folds(np.log(rows["price"].to_numpy()), group, record.k, record.seed)
    columns = [rows["sample_id"], pa.array(fold, FOLD.type), pa.array(group, GROUP.type)]
    return pa.table(columns, names=["sample_id", FOLD.name, GROUP.name])


def publish_folds(workspace: Workspace, table: pa.Table, record: FoldsRecord) -> None:
    """Put folds in place, with what they were decided by."""
    workspace.publish_table(FOLDS_FILE, table, metadata=dataclasses.asdict(record))


def decide_folds(
    log_price: np.ndarray, groups: np.ndarray | None = None, k: int = 5, seed: int = 42
) -> np.ndarray:
    """A fold for each row: groups stay whole, folds are alike in size and in log price.

    Args:
        log_price: shape (n_rows,); prices do as well, since only their order counts.
        groups: shape (n_rows,), labels of any kind: rows of one group are the same product, such as rows with one
            text. None: each row is its own.

    Returns:
        int16, shape (n_rows,), 0..k-1, no fold empty.

    Raises:
        CatalogError: fewer groups than folds, or one group holds more than half of the rows.
    """
    log_price = np.asarray(log_price)
    n_rows = len(log_price)
    group = np.arange(n_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    if group.shape != (n_rows,):
        raise RowMismatchError(f"folds need one group a row, got {len(group)} groups for {n_rows} log prices")
    size = np.bincount(group)
    largest = int(size.max(initial=0))
    if n_rows == 1:
        raise CatalogError("1 training row is too few to learn from and to score: ingest more rows")
    if len(size) == 1:
        raise CatalogError(
            f"one group holds all {n_rows} training rows: they share a text or an image and count as one product, so that "
            "none could be predicted from the others. See whether 'catalog ingest' was given the right --text-column and "
            "--image-column, and whether one text or image fills in for missing ones ('shelfprice catalog show' counts "
            "them); with '--group near' nearly equal texts are one product as well"
        )
    if len(size) < k:
        raise CatalogError(
            f"{k} folds need at least {k} groups of rows that are not the same product, got {len(size)} "
            f"({n_rows} rows): ingest more rows or run 'shelfprice catalog folds -k {len(size)}'"
        )
    if 2 * largest > n_rows:
        raise CatalogError(
            f"one group holds {largest} of {n_rows} rows, so that no fold could be predicted from the others: "
            "run 'shelfprice catalog folds --group exact', or look for one text or image that fills in for missing ones"
        )
    n_bins = max(1, min(MOST_BINS, n_rows // (2 * k)))
    rank = np.argsort(np.argsort(log_price, kind="stable"), kind="stable")
    return deal_groups(rank * n_bins // n_rows, group, k, seed)


def sample_of_groups(group: np.ndarray, n_rows: int | None, seed: int) -> np.ndarray:
    """Which rows are looked at, shape (n_rows,) bool: whole groups drawn at random, about so many rows."""
    if n_rows is None or n_rows >= len(group):
        return np.ones(len(group), bool)
    index = np.unique(group, return_inverse=True)[1]
    size = np.bincount(index)
    order = np.random.default_rng(seed).permutation(len(size))
    taken = np.zeros(len(size), bool)
    taken[order[np.cumsum(size[order]) <= n_rows]] = True
    return np.asarray(taken[index])
