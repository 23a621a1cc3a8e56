"""What the files of a packed model must hold: each is held against it before anything of it is used.

The digests of a model tell damage. A model of someone else may have right digests and any content.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from ensemble.conformal import KINDS
from ensemble.means import MeanName
from store.arrays import read_arrays
from store.contracts import ENCODER, NUMBER, TEXT_OR_NULL, Each, ListOf, May, Shape, shape_problem
from store.errors import CorruptFileError
from store.schema import KEY_BYTES

PAIR = ListOf(NUMBER, 2)
NUMBERS, TEXTS = ListOf(NUMBER), ListOf(str)
MANIFEST: Mapping[str, Shape] = {
    "format": int,
    "blend": {
        "mean": re.compile("|".join(get_args(MeanName))),
        "weights": Each(NUMBER),
        "calibration": {"kind": str, "before": NUMBERS, "after": NUMBERS},
    },
    "scores": {"nested": NUMBER, "nested_interval": PAIR, "interval_level": NUMBER},
    "coverage": {"coverage": NUMBER, "measured_coverage": NUMBER},
    "price_floor": NUMBER,
    "log_price_range": PAIR,
    "heads": ListOf({"name": str, "folder": str, "sets": TEXTS}),
    "encoders": ListOf(
        {
            "kind": re.compile("converted|reference"),
            "encoder": str,
            "spec": ENCODER,
            "fingerprint": str,
            "folder": May(str),
        }
    ),
    "rows": {
        "readings": {
            "text": TEXTS,
            "image": TEXT_OR_NULL,
            "columns": Each(
                {
                    "kind": str,
                    "measure": May({"unit": TEXT_OR_NULL, "convention": dict, "sizes": Each(NUMBER)}),
                    "dates": str,
                    "last": str,
                }
            ),
            "currency": TEXT_OR_NULL,
            "images_per_row": re.compile("all|first"),
        },
        "columns": {
            "words": TEXTS,
            "facts": TEXTS,
            "numeric": TEXTS,
            "categorical": TEXTS,
            "spreads": Each(PAIR),
            "ranges": Each(PAIR),
            "cell_numbers": Each(TEXTS),
        },
        "sets": ListOf({"encoder": str, "composition": TEXT_OR_NULL}),
        "compositions": TEXTS,
        "levels": Each(TEXTS),
    },
    "interval_limits": PAIR,
    "size_factor": NUMBER,
    "unlike": Each(NUMBER),
    "unlike_widens": NUMBER,
    "versions": Each(str),
    "fields_version": May(int),
    "seed": int,
    "fit": May({"heads": May(TEXTS), "vectors": May(TEXTS)}),
    "id_columns": TEXTS,
    "intervals": ListOf(
        {
            "coverage": NUMBER,
            "edges": May(NUMBERS),
            "half_widths": May(NUMBERS),
            "knots": May(NUMBERS),
            "log_widths": May(NUMBERS),
            "slopes": May(Each(NUMBER)),
            "middles": May(Each(NUMBER)),
            "limits": May(PAIR),
        }
    ),
    "files": Each(re.compile("[0-9a-f]{64}")),
}


def manifest_problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with the content of a model.json; None: nothing."""
    return shape_problem(manifest, MANIFEST) or next(_contradictions(manifest), None)


def _contradictions(manifest: dict[str, Any]) -> Iterator[str]:
    """Parts of a manifest that have the right shape and don't fit others."""
    rows = manifest["rows"]
    sets = [one["encoder"] + (f"@{one['composition']}" if one["composition"] else "") for one in rows["sets"]]
    if not manifest["heads"]:
        yield "it has no heads"
    for head in manifest["heads"]:
        if head["name"] not in manifest["blend"]["weights"]:
            yield f"head {head['name']} has no weight"
        if not {*head["sets"]} <= {*sets}:
            yield f"head {head['name']} reads vectors that are not there"
    if not {one["encoder"] for one in rows["sets"]} <= {one["encoder"] for one in manifest["encoders"]}:
        yield "it lacks an encoder of its vectors"
    for encoder in manifest["encoders"]:
        if encoder["kind"] == "converted" and not encoder.get("folder"):
            yield f"encoder {encoder['encoder']} has no folder"
        if not 0 < encoder["spec"]["dim"] < 2**20:
            yield f"vectors of {encoder['encoder']} have {encoder['spec']['dim']} numbers"
    calibration = manifest["blend"]["calibration"]
    n_least = {"none": 0, "isotonic": 1, "scale": 2}.get(calibration["kind"])
    if n_least is None or not n_least <= len(calibration["before"]) == len(calibration["after"]):
        yield "blend.calibration has no such kind, or other knots"
    columns = rows["columns"]
    if {*rows["levels"], *columns["cell_numbers"]} - {*columns["categorical"]}:
        yield "rows.levels names a column that is not categorical"
    if {*columns["ranges"]} - {*columns["numeric"]}:
        yield "rows.columns.ranges names a column that is not numeric"
    for name in ("price_floor", "size_factor", "unlike_widens"):
        if manifest[name] <= 0:
            yield f"{name} is not above 0"
    for one in manifest["intervals"]:
        slopes = {*(one.get("slopes") or {})}
        widths = one.get("log_widths") if one.get("knots") else one.get("half_widths")
        n_widths = len(one["knots"]) if one.get("knots") else len(one.get("edges") or ()) + 1
        if len(widths or ()) != n_widths or not slopes <= {*KINDS} & {*(one.get("middles") or {})}:
            yield "an interval's knots, widths and slopes don't belong together"


# ---- tables and arrays ---------------------------------------------------------------------------


def read_training(path: Path) -> pa.Table:
    """Training rows: `id`, `name`, `price`, `group`, `image` (path of a small JPEG, or null).

    Raises:
        CorruptFileError: the file is no such table.
    """
    wanted = {"name": [pa.string()], "price": [pa.float64()], "image": [pa.string()]}
    wanted |= {"id": [pa.int64(), pa.string()], "group": [pa.int64()]}
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)
        kinds = {name: table[name].type for name in wanted}
        problem = next(
            (f"column {name} is {kind}" for name, kind in kinds.items() if kind not in wanted[name]), None
        )
        full = [name for name in ("id", "price", "group") if table[name].null_count]
        problem = problem or (f"column {full[0]} lacks values" if full else None)
    except (pa.ArrowException, KeyError, OSError, ValueError, OverflowError) as error:
        raise _not_ours(path, repr(error)) from error
    if problem:
        raise _not_ours(path, problem)
    return table


def read_calibration(path: Path) -> dict[str, np.ndarray]:
    """Honest and true log prices of the training rows, and what a lack of text or image moves; each (n,)."""
    held = read_arrays(path)
    if not {"nested", "actual"} <= {*held} or len(held["nested"].shape) != 1:
        raise _not_ours(path, "it lacks the prices")
    alike = ("actual", "spread", "level", "has_image")
    if any(held[name].shape != held["nested"].shape for name in alike if name in held) or not all(
        one.ndim == 1 and len(one) and one.dtype.kind in "biuf" for one in held.values()
    ):
        raise _not_ours(path, "its arrays don't belong together")
    return held


def read_vectors(path: Path, dims: Sequence[int], n_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Vectors of the training rows, float16 of shape (n_rows, dim), and which are there; of each set.

    Args:
        dims: of each set.
    """
    held = read_arrays(path)
    for at, dim in enumerate(dims):
        X, valid = held.get(f"X{at}"), held.get(f"valid{at}")
        if X is None or valid is None or X.dtype != np.float16 or valid.dtype != bool:
            raise _not_ours(path, f"it lacks vectors of set {at}")
        if X.shape != (n_rows, dim) or valid.shape != (n_rows,):
            raise _not_ours(
                path, f"its vectors of set {at} are not those of {n_rows} rows with {dim} numbers"
            )
    return [(held[f"X{at}"], held[f"valid{at}"]) for at in range(len(dims))]


def read_test_vectors(path: Path, dims: Mapping[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Content keys, uint8 of shape (n, KEY_BYTES), and vectors, float16 of shape (n, dim), by encoder.

    Args:
        dims: of the vectors of each encoder.
    """
    held, found = read_arrays(path), {}
    for name, dim in dims.items():
        if f"keys {name}" not in held:
            continue
        keys, X = held[f"keys {name}"], held.get(f"X {name}")
        if X is None or keys.dtype != np.uint8 or X.dtype != np.float16:
            raise _not_ours(path, f"it lacks vectors of {name}")
        if keys.shape != (len(X), KEY_BYTES) or X.shape != (len(keys), dim):
            raise _not_ours(path, f"its keys and vectors of {name} don't belong together")
        found[name] = keys, X
    return found


def _not_ours(path: Path, problem: str) -> CorruptFileError:
    return CorruptFileError(f"{path} is not what shelfprice wrote ({problem:.200}): copy the model again")
