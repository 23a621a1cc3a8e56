"""Which predictions are blended, and their rows side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from heads.registry import learning_exponent
from store.catalog.images.links import have_image, known_links
from store.catalog.read import columns_of_images, present_splits, read_split, split_path
from store.config import CONFIG_FILE
from store.errors import CatalogError, FoldMismatchError, HeadError, RowMismatchError
from store.folds.assign import LEAST_BY_TIME, Folds, read_folds
from store.folds.own_groups import known_own_groups
from store.folds.relatives import Relatives, read_relatives
from store.freshness import present_rows, why_changed
from store.predictions import CURVE_FILE, read_predictions
from store.schema import WEIGHT
from store.standing import read_standing
from store.vectors.sets import TUNED
from store.weights import row_weights
from store.workspace import Workspace

MIN_GROUPS_PER_FOLD = 2


@dataclass(frozen=True)
class Selection:
    """The predictions that a blend is made of; finding them reads no prediction."""

    folders: dict[str, str]  # head -> predictions folder, sorted by head
    folds_hash: str
    catalog_digest: str
    notes: tuple[str, ...]  # what was passed over, in words


@dataclass(frozen=True)
class TrainingRows:
    """Out-of-fold predictions of every head beside the truth, in catalogue order."""

    sample_id: pa.Array  # (n_rows,)
    heads: tuple[str, ...]
    log_prices: np.ndarray  # (n_rows, n_heads), each predicted by a model that never saw the row's fold
    log_actual: np.ndarray  # (n_rows,)
    fold: np.ndarray  # (n_rows,)
    group: np.ndarray  # (n_rows,)
    n_test: int | None  # rows of the test catalogue; None: there is none
    level: np.ndarray | None = (
        None  # (n_rows,) closest relative in another fold, see `Relatives`; None: unknown
    )
    test_level: np.ndarray | None = None  # (n_test,) closest relative in train
    curve: "CurveRows | None" = None
    has_image: np.ndarray | None = None  # (n_rows,) bool; None: unknown
    weight: np.ndarray | None = None  # (n_rows,) what a row counts, > 0; None: all alike
    looks_back: bool = False  # folds follow one another in time
    known_groups: float | None = None  # see `store.folds.own_groups`

    def subset(self, chosen: np.ndarray) -> "TrainingRows":
        """The chosen rows, positions or bool of shape (n_rows,), without a learning curve."""
        at = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        names = ("log_prices", "log_actual", "fold", "group", "level", "has_image", "weight")
        parts = {name: getattr(self, name)[at] for name in names if getattr(self, name) is not None}
        return replace(self, sample_id=self.sample_id.take(pa.array(at)), curve=None, **parts)

    def repeated(self, times: np.ndarray) -> "TrainingRows":
        """Each row so many times, shape (n_rows,) int, without a learning curve."""
        return self.subset(np.repeat(np.arange(len(times)), times))


@dataclass(frozen=True)
class CurveRows:
    """What some of the heads predict of a sample of the rows when they learn from the sample alone."""

    rows: np.ndarray  # (n_rows,) bool: sampled
    heads: tuple[str, ...]
    log_prices: np.ndarray  # (n_sampled, n_heads)
    level: np.ndarray  # (n_sampled,) closest relative in another fold of the sample
    share: float  # of the rows in the sample
    exponents: tuple[float, ...]  # of each head, see `Head.learning_exponent`


def select_predictions(
    workspace: Workspace, asked: Sequence[str] = (), configured: Sequence[str] | None = None
) -> Selection:
    """The predictions that stand for each head, all of the catalogue, folds and decisions on disk.

    Args:
        asked: heads to blend, each of which must have predictions; none: those of the configuration and those that
            were tuned along with their encoders.
        configured: heads of the run: one without predictions is noted, one of other folds refused. None: every head
            that has predictions.

    Raises:
        HeadError: a head that was asked for, or every head, has no predictions, or several and nothing says which stand.
        WorkspaceError: there are no folds.
        FoldMismatchError: a head's predictions belong to other folds; names both hashes.
        RowMismatchError: a head's predictions belong to another catalogue.
    """
    read_folds(workspace)
    rows, standing = present_rows(workspace), read_standing(workspace)
    there = {*standing.folders, *standing.unclear}
    tuned = {head for head in there if head.startswith(TUNED)}
    wanted = set(asked) or (there if configured is None else {*configured, *tuned})
    folders, notes = {}, list(standing.notes)
    for head in sorted(wanted):
        if head in standing.unclear:
            raise HeadError(
                f"{standing.unclear[head]}: {_how_to_train(head)}, which records the one that it would make"
            )
        if head not in there:
            if head in asked:
                have = ", ".join(sorted(there)) or "none"
                raise HeadError(
                    f"{head!r} has no finished predictions in {workspace.root} (finished: {have}): {_how_to_train(head)}"
                )
            notes.append(f"{head} is left out: it has no finished predictions")
            continue
        inputs = workspace.read_json(f"{standing.folders[head]}/head.json")["inputs"]
        if why_changed(inputs, rows):
            if head in asked or head in (configured or ()):
                _refuse_stale(head, inputs, rows["folds_hash"])
            notes.append(f"{head} is left out: its predictions belong to other folds, rows or decisions")
            continue
        folders[head] = standing.folders[head]
    if not folders:
        of = f" of {', '.join(sorted(wanted))}" if wanted else ""
        raise HeadError(
            f"no finished predictions{of} in {workspace.root}: run 'shelfprice heads run -w {workspace.root}'"
        )
    if others := sorted(there - wanted) if not asked else []:
        notes.append(f"{', '.join(others)}: not in heads.run of {CONFIG_FILE}, blended with --head alone")
    return Selection(folders, rows["folds_hash"], rows["catalog_digest"], tuple(notes))


def selection_of(workspace: Workspace, inputs: dict[str, Any]) -> Selection:
    """The predictions that a blend was made of.

    Args:
        inputs: of its blend.json.

    Raises:
        FoldMismatchError, RowMismatchError: the folds or the catalogue are others now.
    """
    rows = present_rows(workspace)
    if inputs["folds_hash"] != rows["folds_hash"]:
        raise FoldMismatchError(
            f"the blend belongs to folds {inputs['folds_hash']} and the workspace's folds are {rows['folds_hash']}: "
            "run 'shelfprice heads run', then 'shelfprice ensemble blend'"
        )
    if inputs["catalog_digest"] != rows["catalog_digest"]:
        raise RowMismatchError(
            f"the blend belongs to catalogue {inputs['catalog_digest']} and {rows['catalog_digest']} is ingested: "
            "run 'shelfprice heads run', then 'shelfprice ensemble blend'"
        )
    return Selection(dict(inputs["heads"]), inputs["folds_hash"], inputs["catalog_digest"], ())


def _how_to_train(head: str) -> str:
    if head.startswith(TUNED):
        return "run 'shelfprice embed finetune' with the options that it was made with"
    return f"run 'shelfprice heads run --head {head}'"


def _refuse_stale(head: str, inputs: dict[str, Any], folds_hash: str) -> None:
    if inputs.get("folds_hash") == folds_hash:
        raise RowMismatchError(
            f"predictions of {head} belong to another catalogue, or other decisions of 'catalog clean', than now: "
            f"{_how_to_train(head)}"
        )
    raise FoldMismatchError(
        f"predictions of {head} belong to folds {inputs.get('folds_hash')} and the workspace's folds are {folds_hash}: "
        f"{_how_to_train(head)}"
    )


def read_training_rows(workspace: Workspace, selection: Selection) -> TrainingRows:
    """Every selected head's out-of-fold predictions in catalogue order, checked against the folds.

    Raises:
        CatalogError: every training price is the same.
        RowMismatchError: a head predicts other rows, a row twice, something not finite, or lacks its
            test predictions; or a fold is too small to score.
        FoldMismatchError: a head's rows carry other folds than folds.parquet, or a single fold in order of time is scored.
    """
    with workspace.parquet(split_path("train")) as file:
        given = [name for name in (WEIGHT.name,) if name in file.schema_arrow.names]
    columns_read = ["sample_id", *columns_of_images(workspace, "train"), "price", *given]
    train = read_split(workspace, "train", columns_read).combine_chunks()
    sample_id = train["sample_id"].combine_chunks()
    log_actual = np.log(train["price"].to_numpy())
    if np.ptp(log_actual) == 0:
        raise CatalogError(
            f"all {len(log_actual)} training prices are {np.exp(log_actual[0]):g}: there is nothing to learn: ingest rows of different prices"
        )
    folds = read_folds(workspace).aligned(sample_id)
    check_fold_sizes(folds.fold, folds.group)
    n_test = _test_rows(workspace)
    columns = []
    for head, folder in selection.folders.items():
        predictions = read_predictions(workspace, folder)
        columns.append(_in_order(f"{head}: out-of-fold predictions", predictions.oof, sample_id))
        own_fold = predictions.oof["fold"].to_numpy()[_positions(predictions.oof, sample_id)]
        if not np.array_equal(own_fold, folds.fold):
            row = int(np.flatnonzero(own_fold != folds.fold)[0])
            raise FoldMismatchError(
                f"{head} predicted row {sample_id[row]} as fold {own_fold[row]} and folds.parquet says "
                f"{folds.fold[row]}: run 'shelfprice heads run --head {head}'"
            )
        if n_test is not None and predictions.test is None:
            raise RowMismatchError(
                f"{head} has no predictions of the {n_test} test rows: run 'shelfprice heads run --head {head}'"
            )
    relatives = read_relatives(workspace)
    rows = TrainingRows(
        sample_id,
        tuple(selection.folders),
        np.stack(columns, axis=1),
        log_actual,
        folds.fold,
        folds.group,
        n_test,
        relatives.of_train(folds.fold, looks_back=folds.looks_back),
        relatives.of_test() if n_test is not None else None,
        _curve(workspace, selection, sample_id, folds, relatives),
        np.array(have_image(train, known_links(workspace)), bool),
        row_weights(train),
        folds.looks_back,
        known_own_groups(workspace, folds),
    )
    if not folds.looks_back:
        return rows
    scored = rows.subset(folds.fold > folds.fold.min())
    if len(np.unique(scored.fold)) < LEAST_BY_TIME - 1:
        raise FoldMismatchError(
            f"{workspace.root} has {len(np.unique(folds.fold))} folds in order of time, of which the first is not scored, and a "
            f"blend needs two that are: run 'shelfprice catalog folds -k {LEAST_BY_TIME}', then 'shelfprice heads run'"
        )
    return scored


def curves_of(workspace: Workspace, folders: dict[str, str]) -> list[str]:
    """Heads whose predictions have a learning curve beside them."""
    return [head for head, folder in folders.items() if workspace.exists(f"{folder}/{CURVE_FILE}")]


def _curve(
    workspace: Workspace, selection: Selection, sample_id: pa.Array, folds: Folds, relatives: Relatives
) -> CurveRows | None:
    """The learning curves that are of one sample; None where no head has one."""
    rows: np.ndarray | None = None
    heads, columns, share = [], [], 0.0
    for head in curves_of(workspace, selection.folders):
        path = f"{selection.folders[head]}/{CURVE_FILE}"
        table = workspace.read_table(path).combine_chunks()
        position = pc.index_in(sample_id, value_set=table["sample_id"].combine_chunks())
        sampled = position.is_valid().to_numpy(zero_copy_only=False)
        if rows is None:
            rows, share = sampled, float(workspace.read_metadata(path)["share"])
        if np.array_equal(rows, sampled):
            heads.append(head)
            columns.append(table["log_price"].to_numpy()[position.drop_null().to_numpy()])
    if rows is None:
        return None
    level = relatives.of_train(folds.fold, seen=rows)[rows]
    exponents = tuple(map(learning_exponent, heads))
    return CurveRows(rows, tuple(heads), np.stack(columns, axis=1), level, share, exponents)


def read_test_log_prices(workspace: Workspace, folders: dict[str, str], sample_id: pa.Array) -> np.ndarray:
    """Every head's predictions of the test rows in the order of `sample_id`, shape (n_test, n_heads).

    Raises:
        RowMismatchError: a head has none, or they are not of exactly these rows, or one is not finite.
    """
    columns = []
    for head, folder in folders.items():
        predictions = read_predictions(workspace, folder)
        if predictions.test is None:
            raise RowMismatchError(
                f"{head} has no predictions of the test rows: run 'shelfprice heads run --head {head}'"
            )
        columns.append(_in_order(f"{head}: test predictions", predictions.test, sample_id))
    return np.stack(columns, axis=1)


def _test_rows(workspace: Workspace) -> int | None:
    if "test" not in present_splits(workspace):
        return None
    return len(read_split(workspace, "test", ["sample_id"]))


def _positions(table: pa.Table, sample_id: pa.Array) -> np.ndarray:
    found = pc.index_in(sample_id, value_set=table["sample_id"].combine_chunks())
    return np.asarray(found.fill_null(-1).to_numpy())


def _in_order(what: str, table: pa.Table, sample_id: pa.Array) -> np.ndarray:
    """The table's log prices in the order of `sample_id`, shape (n_rows,)."""
    if table["sample_id"].type != sample_id.type:
        raise RowMismatchError(
            f"{what} have ids of type {table['sample_id'].type} and the catalogue's are {sample_id.type}: "
            "run 'shelfprice heads run' again"
        )
    position = _positions(table, sample_id)
    if len(table) != len(sample_id) or (position < 0).any():
        first = f" (first without one: {sample_id[int(position.argmin())]})" if (position < 0).any() else ""
        raise RowMismatchError(
            f"{what} have {len(table)} rows and cover {int((position >= 0).sum())} of the catalogue's "
            f"{len(sample_id)} rows{first}: run 'shelfprice heads run' again"
        )
    log_price = table["log_price"].to_numpy()[position]
    if not np.isfinite(log_price).all():
        row = int(np.flatnonzero(~np.isfinite(log_price))[0])
        raise RowMismatchError(f"{what} must be finite, row {sample_id[row]} has {log_price[row]}")
    return log_price


def check_fold_sizes(fold: np.ndarray, group: np.ndarray) -> None:
    """Raises RowMismatchError where folds, both arguments of shape (n_rows,), are too few or too small for a score."""
    if len(np.unique(fold)) < 2:
        raise RowMismatchError(
            "an honest score needs at least 2 folds with rows, got 1: run 'shelfprice catalog folds'"
        )
    for k in np.unique(fold):
        n_groups = len(np.unique(group[fold == k]))
        if n_groups < MIN_GROUPS_PER_FOLD:
            raise RowMismatchError(
                f"each fold needs at least {MIN_GROUPS_PER_FOLD} groups of rows for a score, fold {k} has {n_groups} "
                f"({int((fold == k).sum())} rows): take fewer folds or more rows"
            )
