"""A workspace's standing blend -> one folder that prices new products without it."""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.blend import PRICE_FLOOR, price_limits, read_blend, read_honest
from ensemble.conformal import latest_of
from ensemble.inputs import TrainingRows, read_training_rows, selection_of
from ensemble.model.card import card_of
from ensemble.model.encoders import CONVERTED, pack_encoder
from ensemble.model.folder import CALIBRATION, RELATIVES, ModelFolder, check_replaceable, write_folder
from ensemble.model.lacks import lacks
from ensemble.model.nearness import calibrate
from ensemble.model.packed_heads import Log, check_heads, head_inputs, vector_sets, write_head
from ensemble.model.pricing import Pricer, fit_model_intervals
from ensemble.model.relatives import TrainingRelatives
from ensemble.model.rows import RowShape
from ensemble.model.training_rows import write_test_vectors, write_training, write_vectors
from ensemble.outlook import kinds_of
from ensemble.submission import check_current
from heads.features.fields import FieldColumns
from heads.features.inputs import read_inputs
from heads.registry import head_class
from store.catalog.ingest.readings import read_readings
from store.catalog.parse.fields import FIELDS_VERSION
from store.catalog.read import read_split, split_path
from store.config import ROW_NUMBER, load_config
from store.errors import WorkspaceError
from store.folds.assign import read_folds
from store.schema import CATEGORICAL_PREFIX
from store.workspace import Workspace

COVERAGES = (0.5, 0.8, 0.9, 0.95, 0.99)  # of which intervals are fitted beforehand
PACKAGES = (
    "shelfprice",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "xgboost",
    "faiss-cpu",
    "openvino",
    "pyarrow",
)


def pack(
    workspace: Workspace | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    images: bool = True,
    log: Log = lambda line: None,
) -> ModelFolder:
    """Write the standing blend, the fitted heads and encoders behind it and what they need into one folder.

    Args:
        to: the folder; a model that is there is replaced, unless there are other files beside it.
        images: keep a small image of each training row, to show near products by.

    Raises:
        WorkspaceError: there is no standing blend, or the folder holds something else.
        HeadError: a head of the blend can't be packed; names it and the next step.
        RowMismatchError, FoldMismatchError: the blend is older than the catalogue or the folds; or a packed head does
            not price the test rows as it did.
    """
    workspace = Workspace.of(workspace)
    check_replaceable(to)
    record, config = read_blend(workspace), load_config(workspace)
    floor = record["inputs"].get("price_floor", PRICE_FLOOR)
    check_current(workspace, record["inputs"], floor)
    if workspace.read_metadata(split_path("train")).get("fields_version", FIELDS_VERSION) != FIELDS_VERSION:
        raise WorkspaceError(
            f"the texts of {workspace.root} were parsed by another version of shelfprice, and new products would be parsed by "
            f"this one: run 'shelfprice catalog ingest -w {workspace.root}', then 'shelfprice heads run' and 'shelfprice ensemble "
            "blend', and pack again"
        )
    folders = {
        head: folder for head, folder in record["inputs"]["heads"].items() if record["weights"][head] > 0
    }
    inputs_of = {head: head_inputs(workspace, head, folder, log) for head, folder in folders.items()}
    sets = vector_sets(workspace, inputs_of)
    texts = sorted({text for head in folders for text in head_class(head).texts})
    found = read_inputs(workspace, sets, texts, read_folds(workspace))
    train = read_split(workspace, "train").combine_chunks()
    columns = FieldColumns.of(train)
    shape = RowShape(read_readings(workspace), columns, tuple(sets), tuple(texts), _levels(train))
    rows = read_training_rows(workspace, selection_of(workspace, record["inputs"]))
    known = _known(workspace, record, rows, list(folders), floor)

    def fill(work: Path) -> dict[str, Any]:
        entries = [write_head(workspace, work, head, folders[head], inputs_of[head]) for head in folders]
        log("encoders: " + ", ".join(dict.fromkeys(one.encoder for one in sets)))
        encoders = {one.encoder: pack_encoder(workspace, one, work) for one in sets}
        write_vectors(work, found.train)
        if found.test is not None:
            write_test_vectors(workspace, work, sets)
        write_training(workspace, work, train, found.train.group, images, log)
        TrainingRelatives.of(workspace).save(work / RELATIVES)
        residual = np.full(len(train), np.nan)  # of rows that no earlier block could predict
        position = pc.index_in(rows.sample_id, value_set=found.train.sample_id).to_numpy()
        residual[position] = np.abs(known["nested"] - known["actual"])
        vectors = {matrix.name: matrix for matrix in found.train.matrices}
        thresholds, widens = calibrate(vectors, found.train.group, residual)
        scores = record["scores"]
        manifest: dict[str, Any] = {
            "blend": {name: record[name] for name in ("method", "mean", "weights", "calibration")},
            "scores": scores,
            "coverage": {
                name: record["intervals"][name] for name in ("coverage", "measured_coverage", "median_factor")
            },
            "price_floor": floor,
            "log_price_range": [float(found.log_price.min()), float(found.log_price.max())],
            "heads": entries,
            "encoders": list(encoders.values()),
            "rows": shape.to_json(),
            "interval_limits": list(price_limits(known["actual"], float(np.log(floor)))),
            "size_factor": scores["expected"]["test"]["size_factor"] if "expected" in scores else 1.0,
            "unlike": thresholds,
            "unlike_widens": widens,
            "data": _data(record, train, known["actual"]),
            "slices": _slices(known["nested"], known["actual"]),
            "versions": _versions(),
            "fields_version": FIELDS_VERSION,
            "licences": _licences(encoders),
            "seed": config.seed,
            "fit": {"heads": list(config.heads.run), "vectors": list(config.heads.vectors)},
            "id_columns": [
                name
                for name in (config.columns.test_id, config.columns.sample_id)
                if name and name != ROW_NUMBER
            ],
        }
        manifest["intervals"] = [fit_model_intervals(known, manifest, one).to_json() for one in COVERAGES]
        pricer = Pricer(ModelFolder(work, manifest), load_encoders=False)
        check_heads(workspace, pricer, folders, found)
        held = known | lacks(pricer, shape, workspace, found, train)
        np.savez(work / CALIBRATION, **held)  # type: ignore[arg-type]
        return manifest

    return write_folder(to, fill, card_of)


def _known(
    workspace: Workspace,
    record: dict[str, Any],
    rows: TrainingRows,
    heads: Sequence[str],
    floor: float,
) -> dict[str, np.ndarray]:
    """What the blend's intervals are fitted on, each (n_rows,): honest and true log prices, `RowKinds`, which are the latest."""
    nested = np.maximum(read_honest(workspace, record), np.log(floor))
    kinds = vars(kinds_of(rows, heads))
    latest = {"latest": latest_of(rows.fold)} if rows.looks_back else {}
    known = {"nested": nested, "actual": rows.log_actual} | latest
    return known | {n: v for n, v in kinds.items() if v is not None}


def _levels(train: pa.Table) -> dict[str, frozenset[str]]:
    """Categories of each categorical column."""
    names = [name for name in train.column_names if name.startswith(CATEGORICAL_PREFIX)]
    return {
        name: frozenset(level for level in train[name].unique().to_pylist() if level is not None)
        for name in names
    }


def _data(record: dict[str, Any], train: pa.Table, actual: np.ndarray) -> dict[str, Any]:
    """What the model was fitted on."""
    return {
        "catalog_digest": record["inputs"]["catalog_digest"],
        "folds_hash": record["inputs"]["folds_hash"],
        "n_rows": record["n_rows"],
        "n_groups": record["n_groups"],
        "with_image": train.num_rows - train["image"].null_count,
        "price": [float(q) for q in np.quantile(np.exp(actual), [0, 0.25, 0.5, 0.75, 1])],
    }


def _slices(nested: np.ndarray, actual: np.ndarray) -> list[dict[str, Any]]:
    """Honest SMAPE by quarter of price."""
    from store.metric import smape_rows

    loss = smape_rows(actual, nested)
    edges = np.quantile(actual, [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, actual, side="right")
    return [
        {
            "from": float(np.exp(actual[quarter == q].min())),
            "to": float(np.exp(actual[quarter == q].max())),
            "n_rows": int((quarter == q).sum()),
            "smape": float(loss[quarter == q].mean()),
        }
        for q in np.unique(quarter)
    ]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _licences(encoders: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Encoder -> licence of its weights, as its own card or package states it."""
    from embed.encoders.base import Sources
    from embed.encoders.show import show
    from store.errors import ShelfpriceError

    found = {}
    for name in encoders:
        try:
            found[name] = show([name], Sources(offline=True))[0].licence or "not stated"
        except ShelfpriceError:
            found[name] = "not stated"
    return found


def torch_free(manifest: Mapping[str, Any]) -> bool:
    """Whether every encoder of a model is a converted one."""
    return all(entry["kind"] == CONVERTED for entry in manifest["encoders"])
