"""A workspace's standing blend -> one folder that prices new products without it."""

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.blend import PRICE_FLOOR, price_limits, read_blend
from ensemble.inputs import read_test_log_prices, read_training_rows, selection_of
from ensemble.model.card import card_of
from ensemble.model.encoders import CONVERTED, pack_encoder
from ensemble.model.folder import CALIBRATION, TRAINING, VECTORS, ModelFolder, write_folder
from ensemble.model.nearness import calibrate
from ensemble.model.pricing import FURTHER, HEADS, Pricer, fit_model_intervals, record_of_shape
from ensemble.model.rows import RowShape, composed
from ensemble.outlook import head_spread
from ensemble.submission import check_current
from heads.features.fields import FieldColumns, field_table
from heads.features.inputs import Inputs, read_inputs
from heads.features.rows import Rows
from heads.fitted import TREE
from heads.registry import head_class
from heads.run import FITTED
from store.catalog.images.blobs import read_blob
from store.catalog.images.links import known_links, row_images
from store.catalog.ingest.readings import read_readings
from store.catalog.read import read_split
from store.config import ROW_NUMBER, load_config
from store.errors import HeadError, RowMismatchError, WorkspaceError
from store.folds.assign import read_folds
from store.names import file_name
from store.schema import CATEGORICAL_PREFIX
from store.vectors.folded import is_folded
from store.vectors.sets import TUNED, VectorSet, current_spec
from store.workspace import Workspace

COVERAGES = (0.5, 0.8, 0.9, 0.95, 0.99)  # of which intervals are fitted beforehand
CHECKED_ROWS = 2000  # test rows that the packed heads price again
MOVED_ROWS = 200  # rows that tell what a missing text or image moves
TOLERANCE = 1e-6  # log price
IMAGES = "images"
MOST_IMAGES = 10_000  # that are kept: each is a file that loading checks
THUMBNAIL = 160  # pixels of the longer edge of a training row's image
KEPT_BYTES = 8192  # an image that is no larger is kept as it is
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

Log = Callable[[str], None]


def pack(
    workspace: Workspace | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    images: bool = True,
    log: Log = lambda line: None,
) -> ModelFolder:
    """Write the standing blend, the fitted heads and encoders behind it and what they need into one folder.

    Args:
        to: the folder; a model that is there is replaced.
        images: keep a small image of each training row, to show near products by.

    Raises:
        WorkspaceError: there is no standing blend, or the folder holds something else.
        HeadError: a head of the blend can't be packed; names it and the next step.
        RowMismatchError, FoldMismatchError: the blend is older than the catalogue or the folds; or a packed head does
            not price the test rows as it did.
    """
    workspace = Workspace.of(workspace)
    record, config = read_blend(workspace), load_config(workspace)
    floor = record["inputs"].get("price_floor", PRICE_FLOOR)
    check_current(workspace, record["inputs"], floor)
    folders = {
        head: folder for head, folder in record["inputs"]["heads"].items() if record["weights"][head] > 0
    }
    inputs_of = {head: _head_inputs(workspace, head, folder, log) for head, folder in folders.items()}
    sets = _sets(workspace, inputs_of)
    texts = sorted({text for head in folders for text in head_class(head).texts})
    found = read_inputs(workspace, sets, texts, read_folds(workspace))
    train = read_split(workspace, "train").combine_chunks()
    columns = FieldColumns.of(train)
    shape = RowShape(read_readings(workspace), columns, tuple(sets), tuple(texts), _levels(train))

    def fill(work: Path) -> dict[str, Any]:
        entries = [_write_head(workspace, work, head, folders[head], inputs_of[head]) for head in folders]
        log("encoders: " + ", ".join(dict.fromkeys(one.encoder for one in sets)))
        encoders = {one.encoder: pack_encoder(workspace, one, work) for one in sets}
        _write_vectors(work, found.train)
        _write_training(workspace, work, train, found.train.group, images)
        nested, actual = _nested(workspace, record, train["sample_id"].combine_chunks()), found.log_price
        of_rows = read_training_rows(workspace, selection_of(workspace, record["inputs"]))
        spread = head_spread(of_rows.log_prices[:, [of_rows.heads.index(head) for head in folders]])
        held = {"nested": np.maximum(nested, np.log(floor)), "actual": actual}
        has_image = _has_image(shape, found.train)
        held |= {} if spread is None else {"spread": spread}
        held |= {} if has_image is None else {"has_image": has_image}
        residual = np.abs(np.maximum(nested, np.log(floor)) - actual)
        thresholds, widens = calibrate(
            {matrix.name: matrix for matrix in found.train.matrices}, found.train.group, residual
        )
        manifest: dict[str, Any] = {
            "blend": {name: record[name] for name in ("method", "mean", "weights", "calibration")},
            "scores": record["scores"],
            "coverage": {
                name: record["intervals"][name] for name in ("coverage", "measured_coverage", "median_factor")
            },
            "price_floor": floor,
            "log_price_range": [float(actual.min()), float(actual.max())],
            "heads": entries,
            "encoders": list(encoders.values()),
            "rows": record_of_shape(shape),
            "interval_limits": list(price_limits(actual, float(np.log(floor)))),
            "size_factor": record["expected"]["test"]["size_factor"] if "expected" in record else 1.0,
            "unlike": thresholds,
            "unlike_widens": widens,
            "data": {
                "catalog_digest": record["inputs"]["catalog_digest"],
                "folds_hash": record["inputs"]["folds_hash"],
                "n_rows": record["n_rows"],
                "n_groups": record["n_groups"],
                "with_image": train.num_rows - train["image"].null_count,
                "price": [float(q) for q in np.quantile(np.exp(actual), [0, 0.25, 0.5, 0.75, 1])],
            },
            "slices": _slices(nested, actual, floor),
            "versions": _versions(),
            "licences": _licences(encoders),
            "seed": config.seed,
            "id_columns": [
                name
                for name in (config.columns.test_id, config.columns.sample_id)
                if name and name != ROW_NUMBER
            ],
        }
        manifest["intervals"] = [fit_model_intervals(held, manifest, one).to_json() for one in COVERAGES]
        pricer = Pricer(ModelFolder(work, manifest), load_encoders=False)
        _check_heads(workspace, pricer, folders, found)
        np.savez(work / CALIBRATION, **held, **_moved(pricer, shape, workspace, found, train))
        return manifest

    return write_folder(to, fill, card_of)


# ---- heads ---------------------------------------------------------------------------------------


def _head_inputs(workspace: Workspace, head: str, folder: str, log: Log) -> dict[str, Any]:
    """What a head's predictions depend on; fits it again where an older version did not keep it."""
    if head.startswith(TUNED):
        raise HeadError(
            f"{head} is tuned along with its encoders, fold by fold, and can't be packed: blend the others with "
            "'shelfprice ensemble blend --standing --head NAME …'"
        )
    inputs: dict[str, Any] = workspace.read_json(f"{folder}/head.json")["inputs"]
    folded = [
        name for name, *_ in inputs["vectors"] if is_folded(current_spec(workspace, name.partition("@")[0]))
    ]
    if folded:
        raise HeadError(
            f"{head} reads {folded[0]}, which is fine-tuned fold by fold, and can't be packed: blend the others with "
            "'shelfprice ensemble blend --standing --head NAME …'"
        )
    if not workspace.exists(f"{folder}/{FITTED}/{TREE}"):
        log(f"{head} was not kept as fitted: it is fitted again")
        _fit_again(workspace, head, folder)
    return inputs


def _fit_again(workspace: Workspace, head: str, folder: str) -> None:
    """Train a head anew in the place of predictions that were made without keeping it."""
    from heads.fitted import write_fitted
    from heads.run import plan_heads, train_head
    from store.catalog.read import catalog_digest

    folds, config = read_folds(workspace), load_config(workspace)
    ((_, plan),) = plan_heads(workspace, config, [head], folds, catalog_digest(workspace))
    if isinstance(plan, Exception) or plan.folder != folder:
        raise HeadError(
            f"{head} of the blend was trained with other parameters than now: run 'shelfprice heads run --head {head}' and "
            "'shelfprice ensemble blend'"
        ) from (plan if isinstance(plan, Exception) else None)
    inputs = read_inputs(workspace, [one.vector_set for one in plan.sets], plan.head.texts, folds)
    model = train_head(workspace, plan, inputs, lambda line: None)
    assert model.status == "trained"
    if not workspace.exists(f"{folder}/{FITTED}/{TREE}"):
        fitted = plan.head.clone().fit(inputs.train, inputs.log_price)
        write_fitted(head, [fitted])  # says why it can't be written


def _write_head(
    workspace: Workspace, work: Path, head: str, folder: str, inputs: dict[str, Any]
) -> dict[str, Any]:
    name = file_name(head, "a head")
    target = work / HEADS / name
    target.mkdir(parents=True)
    for file in workspace.names(f"{folder}/{FITTED}"):
        (target / file).write_bytes(workspace.read_bytes(f"{folder}/{FITTED}/{file}"))
    return {"name": head, "folder": name, "sets": [one[0] for one in inputs["vectors"]]}


def _sets(workspace: Workspace, inputs_of: Mapping[str, dict[str, Any]]) -> list[VectorSet]:
    """Vector sets of all heads; those that the heads were fitted on."""
    found: dict[str, VectorSet] = {}
    for head, inputs in inputs_of.items():
        for name, fingerprint, *_ in inputs["vectors"]:
            spec = current_spec(workspace, name.partition("@")[0])
            if spec.fingerprint != fingerprint:
                raise RowMismatchError(
                    f"{head} was fitted on {name} of fingerprint {fingerprint}, and {spec.fingerprint} stands now: run "
                    f"'shelfprice heads run --head {head}' and 'shelfprice ensemble blend'"
                )
            found[name] = VectorSet.parse(name, spec.modality)
    return list(found.values())


def _check_heads(workspace: Workspace, pricer: Pricer, folders: dict[str, str], found: Inputs) -> None:
    """Hold what the packed heads say of test rows against their predictions."""
    if found.test is None:
        return
    index = np.arange(0, len(found.test), max(1, len(found.test) // CHECKED_ROWS))
    rows = found.test.subset(index)
    expected = read_test_log_prices(workspace, folders, found.test.sample_id)[index]
    got = pricer.log_prices(rows)
    for at, head in enumerate(folders):
        apart = np.abs(got[:, at] - expected[:, at])
        if apart.max() > TOLERANCE:
            worst = int(apart.argmax())
            raise RowMismatchError(
                f"{head} as packed prices test row {rows.sample_id[worst]} at {np.exp(got[worst, at]):.6g}, and its "
                f"predictions say {np.exp(expected[worst, at]):.6g}: run 'shelfprice heads run --head {head}' with this version"
            )


# ---- training rows -------------------------------------------------------------------------------


def _write_vectors(work: Path, train: Rows) -> None:
    arrays: dict[str, np.ndarray] = {}
    for at, matrix in enumerate(train.matrices):
        arrays |= {f"X{at}": np.asarray(matrix.X, np.float16), f"valid{at}": matrix.valid}
    np.savez(work / VECTORS, **arrays)  # type: ignore[arg-type]


def _write_training(
    workspace: Workspace, work: Path, train: pa.Table, group: np.ndarray, images: bool
) -> None:
    names = [
        name or (text or "")[:120]
        for name, text in zip(train["name"].to_pylist(), train["text"].to_pylist(), strict=True)
    ]
    table = pa.table(
        {
            "id": train["sample_id"].combine_chunks(),
            "name": pa.array(names, pa.string()),
            "price": train["price"].combine_chunks(),
            "group": pa.array(group),
            "image": pa.array(
                _thumbnails(workspace, work, train) if images else [None] * len(names), pa.string()
            ),
        }
    )
    with pa.OSFile(str(work / TRAINING), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _thumbnails(workspace: Workspace, work: Path, train: pa.Table) -> list[str | None]:
    """Small copies of the rows' images as files; the path of each row's."""
    from concurrent.futures import ThreadPoolExecutor

    from store.catalog.images.open import quiet_pillow

    digests = row_images(train["image"], known_links(workspace)).to_pylist()
    wanted = list(dict.fromkeys(one for one in digests if one is not None))[:MOST_IMAGES]
    (work / IMAGES).mkdir()

    def make(sha256: str) -> tuple[str, str | None]:
        content, name = _thumbnail(workspace, sha256), f"{IMAGES}/{sha256[:20]}.jpg"
        if content is None:
            return sha256, None
        (work / name).write_bytes(content)
        return sha256, name

    with quiet_pillow(), ThreadPoolExecutor() as pool:
        made = dict(pool.map(make, wanted))
    return [None if one is None else made.get(one) for one in digests]


def _thumbnail(workspace: Workspace, sha256: str) -> bytes | None:
    """A small JPEG of an image; None where it can't be had."""
    from PIL import ImageOps

    from store.catalog.images.open import WHITE, UndecodableError, flattened, open_image, room_for

    try:
        content = read_blob(workspace, sha256)
        with open_image(content) as image:
            if len(content) <= KEPT_BYTES and image.format == "JPEG":
                return content
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            with room_for(image):
                image.load()
                small: Any = ImageOps.exif_transpose(flattened(image, WHITE)).convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=80)
            return out.getvalue()
    except (UndecodableError, WorkspaceError, OSError):
        return None


def _levels(train: pa.Table) -> dict[str, frozenset[str]]:
    names = [name for name in train.column_names if name.startswith(CATEGORICAL_PREFIX)]
    return {
        name: frozenset(level for level in train[name].unique().to_pylist() if level is not None)
        for name in names
    }


# ---- what a lack moves ---------------------------------------------------------------------------


def _moved(
    pricer: Pricer, shape: RowShape, workspace: Workspace, found: Inputs, train: pa.Table
) -> dict[str, np.ndarray]:
    """By how much log prices move where text, image or further columns are taken away, each (n_rows,)."""
    rows, table = (found.train, train)
    if found.test is not None and len(found.test) >= MOVED_ROWS:
        rows, table = found.test, read_split(workspace, "test").combine_chunks()
    index = np.arange(0, len(rows), max(1, len(rows) // MOVED_ROWS))
    rows, table = rows.subset(index), table.take(pa.array(index))
    before = pricer.log_price(rows)
    without: dict[str, Rows] = {}
    if any(one.has_image for one in shape.sets):
        without["image"] = replace(rows, matrices=_taken(rows, shape, lambda one: one.has_image))
    blank = table.set_column(table.column_names.index("text"), "text", pa.array([""] * len(table)))
    for name in ("name", "description", "value", "unit", "quantity", "quantity_unit"):
        blank = blank.set_column(blank.column_names.index(name), name, pa.nulls(len(table), blank[name].type))
    for name in ("bullets", "numbers"):
        empty = pa.array([[]] * len(table), blank[name].type)
        blank = blank.set_column(blank.column_names.index(name), name, empty)
    ones = pa.array(np.ones(len(table)))
    blank = blank.set_column(blank.column_names.index("pack_count"), "pack_count", ones)
    without["text"] = replace(
        rows,
        matrices=_taken(rows, shape, lambda one: one.text is not None),
        texts={name: composed(blank, name) for name in shape.compositions},
        fields=field_table(blank, columns=shape.columns),
    )
    if further := [*shape.columns.numeric, *shape.columns.categorical]:
        bare = table
        for name in further:
            if name in bare.column_names:
                nulls = pa.nulls(len(table), bare[name].type)
                bare = bare.set_column(bare.column_names.index(name), name, nulls)
            else:
                kind = pa.string() if name.startswith(CATEGORICAL_PREFIX) else pa.float64()
                bare = bare.append_column(name, pa.nulls(len(table), kind))
        without[FURTHER] = replace(rows, fields=field_table(bare, columns=shape.columns))
    return {name: np.abs(pricer.log_price(lacking) - before) for name, lacking in without.items()}


def _has_image(shape: RowShape, rows: Rows) -> np.ndarray | None:
    """Which rows have an image that was embedded; None where no head looks at images."""
    named = {str(one) for one in shape.sets if one.has_image}
    valid = [matrix.valid for matrix in rows.matrices if matrix.name in named]
    return np.logical_or.reduce(valid) if valid else None


def _taken(rows: Rows, shape: RowShape, which: Callable[[VectorSet], bool]) -> tuple[Any, ...]:
    chosen = {str(one) for one in shape.sets if which(one)}
    return tuple(
        replace(matrix, X=np.zeros_like(np.asarray(matrix.X)), valid=np.zeros(len(rows), bool))
        if matrix.name in chosen
        else matrix
        for matrix in rows.matrices
    )


# ---- for the card --------------------------------------------------------------------------------


def _nested(workspace: Workspace, record: dict[str, Any], sample_id: pa.Array) -> np.ndarray:
    """Honest log prices of the training rows, in their order."""
    table = workspace.read_table(f"{record['folder']}/oof.parquet")
    position = pc.index_in(sample_id, value_set=table["sample_id"].combine_chunks())
    return np.asarray(table["log_price"].to_numpy()[position.to_numpy()])


def _slices(nested: np.ndarray, actual: np.ndarray, floor: float) -> list[dict[str, Any]]:
    """Honest SMAPE by quarter of price."""
    from store.metric import smape_rows

    loss = smape_rows(actual, np.maximum(nested, np.log(floor)))
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
