"""The fold of each training row: grouped, stratified or in order of time, decided once, hashed."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.read import present_splits, read_split, split_path
from store.config import Config, Grouping, keep_settings
from store.errors import (
    CatalogError,
    CorruptFileError,
    FoldMismatchError,
    RowMismatchError,
    WorkspaceError,
)
from store.folds.stratify import deal_groups
from store.schema import FOLD, GROUP, OWN_GROUP, TIME
from store.workspace import Workspace

FOLDS_FILE = "folds.parquet"
CODE_VERSION = 2  # raised when the same record yields other folds
OLDEST_STANDING = 1  # folds of versions before this one are decided again
MOST_BINS = 50  # of log price
LEAST_BY_TIME = 3  # folds in order of time: the first is not scored, and a blend needs two that are
FIRST_SHARE = 0.4  # of the rows, in the first of folds in order of time: enough to learn from


@dataclass(frozen=True)
class Folds:
    """Folds of the training rows, in the order of `sample_id`."""

    sample_id: pa.Array  # (n_rows,)
    fold: np.ndarray  # (n_rows,) int16, 0..k-1
    group: np.ndarray  # (n_rows,) int64
    hash: str  # over (sample_id, fold, group) sorted by id: the same whatever the row order
    looks_back: bool = False  # folds follow one another in time, and models may learn from earlier ones alone

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
        return Folds(sample_id, self.fold[order], self.group[order], self.hash, self.looks_back)


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
        CatalogError: there is no catalogue.
        WorkspaceError: none were decided yet.
    """
    if not workspace.exists(FOLDS_FILE):
        present_splits(workspace)  # raises where nothing was ingested
        raise WorkspaceError(
            f"no folds in {workspace.root}: run 'shelfprice heads run -w {workspace.root}', which decides them and trains"
        )
    table = workspace.read_table(FOLDS_FILE).combine_chunks()
    sample_id = table["sample_id"].combine_chunks()
    fold, group = table["fold"].to_numpy(), table["group"].to_numpy()
    looks_back = bool(workspace.read_metadata(FOLDS_FILE).get("looks_back", False))
    return Folds(sample_id, fold, group, folds_hash(sample_id, fold, group), looks_back)


@dataclass(frozen=True)
class FoldsRecord:
    """What folds were decided by: the metadata of folds.parquet. A file without it was brought along."""

    k: int
    seed: int
    grouping: Grouping  # in a record on disk never `auto`
    train_digest: str  # of the training rows
    code_version: int
    asked: str = ""  # the grouping of the configuration; empty in records of code version 1
    looks_back: bool = False  # folds follow one another in time


def read_record(workspace: Workspace) -> FoldsRecord | None:
    """What the folds on disk were decided by; None where a file without a record was put there."""
    found = workspace.read_metadata(FOLDS_FILE)
    fields = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(FoldsRecord)}
    is_record = {name for name, required in fields.items() if required} <= found.keys() <= fields.keys()
    return FoldsRecord(**found) if is_record else None


def wanted_record(workspace: Workspace, config: Config) -> FoldsRecord:
    """What folds would be decided by now."""
    if "train" not in present_splits(workspace):
        read_split(workspace, "train")  # says what is missing
    digest, group = str(workspace.read_metadata(split_path("train")).get("digest")), config.folds.group
    looks_back = bool(config.columns.time)
    return FoldsRecord(config.folds.k, config.seed, group, digest, CODE_VERSION, group, looks_back)


def why_stale(found: FoldsRecord, wanted: FoldsRecord) -> str | None:
    """Why folds must be decided again, in words; None where they need not be."""
    if found.train_digest != wanted.train_digest:
        return "the training catalogue has changed"
    names = ["k", "seed", "looks_back"]
    if wanted.grouping != "auto" or found.asked not in ("", "auto"):
        names.insert(1, "grouping")
    if found.code_version < OLDEST_STANDING:
        names.append("code_version")
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
            publish_folds(workspace, *decide(workspace, wanted))
            return read_folds(workspace)
        if found is None:
            ids = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
            return held.aligned(ids)
        reason = why_stale(found, wanted)
        if reason is None:
            return held
        log(f"folds are decided again: {reason}")
    publish_folds(workspace, *decide(workspace, wanted))
    return read_folds(workspace)


def decide(workspace: Workspace, wanted: FoldsRecord) -> tuple[pa.Table, FoldsRecord]:
    """Folds of the ingested training rows, and the record of them with the grouping that `auto` came to.

    The table is sorted by id: the order of the file decides nothing.

    Raises:
        CatalogError: no train catalogue, or rows that can't be split as asked.
    """
    from store.folds.relatives import fitting_grouping

    grouping = wanted.grouping
    if grouping == "auto":
        grouping = cast(Grouping, fitting_grouping(workspace, wanted.k))
    record = dataclasses.replace(wanted, grouping=grouping)
    rows = read_split(workspace, "train").sort_by("sample_id")
    group = _groups(workspace, rows, grouping)
    log_price = np.log(rows["price"].to_numpy())
    if record.looks_back:
        fold = deal_by_time(rows[TIME.name].to_numpy(), group, record.k)
    else:
        fold = decide_folds(log_price, group, record.k, record.seed)
    columns = [rows["sample_id"], pa.array(fold, FOLD.type), pa.array(group, GROUP.type)]
    return pa.table(columns, names=["sample_id", FOLD.name, GROUP.name]), record


def _groups(workspace: Workspace, rows: pa.Table, grouping: Grouping) -> np.ndarray:
    """The group of each row, shape (n_rows,), joined with the user's own where there is one."""
    from store.catalog.clean.duplicates import codes, joined
    from store.folds.relatives import group_labels

    group = np.arange(len(rows)) if grouping == "none" else group_labels(workspace, rows, grouping)
    return joined(group, codes(rows[OWN_GROUP.name])[0]) if OWN_GROUP.name in rows.column_names else group


def publish_folds(workspace: Workspace, table: pa.Table, record: FoldsRecord) -> None:
    """Put folds in place, with what they were decided by."""
    workspace.publish_table(FOLDS_FILE, table, metadata=dataclasses.asdict(record))


def deal_by_time(time: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Folds that follow one another in time: the first holds the earliest rows, which no score is taken from.

    Args:
        time: shape (n_rows,), any unit. Rows of one time share a fold.
        groups: shape (n_rows,): a group is as old as its latest row, so that none of it is known before.

    Returns:
        int16, shape (n_rows,), 0..k-1: fold 0 holds `FIRST_SHARE` of the rows, the others alike many.

    Raises:
        CatalogError: there are fewer distinct times than folds, or fewer than `LEAST_BY_TIME` folds are asked for.
    """
    if k < LEAST_BY_TIME:
        raise CatalogError(
            f"folds in order of time need at least {LEAST_BY_TIME}, since the first is not scored, got {k}: run "
            f"'shelfprice catalog folds -k {LEAST_BY_TIME}', or ingest without --time-column"
        )
    latest = np.full(int(groups.max()) + 1, -np.inf)
    np.maximum.at(latest, groups, time)
    latest = latest[groups]
    moments = np.unique(latest)
    if len(moments) < k:
        can_be_fewer = len(moments) >= LEAST_BY_TIME
        fewer = f"run 'shelfprice catalog folds -k {len(moments)}', or " if can_be_fewer else ""
        raise CatalogError(
            f"{k} folds in order of time need at least {k} times, got {len(moments)}: {fewer}ingest without --time-column"
        )
    ends = FIRST_SHARE + (1 - FIRST_SHARE) * np.arange(k) / (k - 1)
    before = np.searchsorted(np.sort(latest), moments) / len(time)
    fold, at = np.empty(len(moments), np.int16), 0
    for i, wanted in enumerate(np.searchsorted(ends, before, side="right").tolist()):
        latest_start = k - (len(moments) - i)  # a time of its own is left for each fold that follows
        at = min(max(at, wanted, latest_start), at + (i > 0))
        fold[i] = at
    return fold[np.searchsorted(moments, latest)]


def decide_folds(
    log_price: np.ndarray, groups: np.ndarray | None = None, k: int = 5, seed: int = 42
) -> np.ndarray:
    """A fold for each row: groups are not split, and folds are similar in size and in log price.

    >>> folds = decide_folds([1.0, 1.1, 2.0, 3.0, 4.0, 5.0], groups=["tea", "tea", "oil", "rice", "salt", "jam"], k=2)
    >>> bool(folds[0] == folds[1])  # one product, one fold
    True
    >>> np.bincount(folds)
    array([3, 3])

    Args:
        log_price: shape (n_rows,); prices do as well, since only their order counts.
        groups: shape (n_rows,), labels of any kind: rows of one group are the same product, such as rows with one
            text. None: each row is a group of its own.
        k: number of folds, at least 2.
        seed: of the random order of equal groups.

    Returns:
        int16, shape (n_rows,), 0..k-1, no fold empty.

    Raises:
        CatalogError: fewer groups than folds, or one group holds more than half of the rows.
        RowMismatchError: groups and log_price differ in length.
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
            f"all {n_rows} training rows share a text or an image and count as one product, so none can be predicted "
            "from the others. Check --text-column and --image-column of 'shelfprice catalog ingest', and "
            "'shelfprice catalog show' for a text or image that stands in for missing ones"
        )
    if len(size) < k:
        raise CatalogError(
            f"{k} folds need at least {k} groups, got {len(size)} "
            f"({n_rows} rows): ingest more rows or run 'shelfprice catalog folds -k {len(size)}'"
        )
    if 2 * largest > n_rows:
        raise CatalogError(
            f"one group holds {largest} of {n_rows} rows, so its fold can't be predicted from the others. Run "
            "'shelfprice catalog folds --group exact', or check 'shelfprice catalog show' for a text or image that stands "
            "in for missing ones; 'shelfprice catalog ingest --images-per-row first' compares only the first image of a row"
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
