"""Out-of-fold and test predictions of one head: log price per row, keyed by `sample_id`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from store.catalog.read import split_path
from store.errors import RowMismatchError
from store.names import file_name
from store.schema import FOLD, LOG_PRICE
from store.standing import PREDICTIONS, PREDICTIONS_LOCK, standing_file
from store.vectors.spec import digest
from store.workspace import Workspace

PRICES = ("oof.parquet", "test.parquet")
CURVE_FILE = "curve.parquet"  # out-of-fold log prices of a sample of rows, by models of the sample alone


@dataclass(frozen=True)
class Predictions:
    """Predictions of one head for every row.

    `inputs` is all that the predictions depend on (head, parameters, vector sets with fingerprints,
    catalogue digest, folds hash, seed, code version); its digest names the folder. Two of them are read by others
    and have fixed names: `folds_hash` and `catalog_digest`.
    """

    head: str
    inputs: dict[str, Any]
    oof: pa.Table  # sample_id, fold, log_price
    test: pa.Table | None  # sample_id, log_price; None: no test catalogue
    report: dict[str, Any]  # scores, seconds, versions: not part of the hash

    @property
    def folds_hash(self) -> str:
        return str(self.inputs["folds_hash"])


def predictions_folder(head: str, inputs: dict[str, Any]) -> str:
    """`predictions/<head>-<hash>` for a head with these inputs."""
    return f"{PREDICTIONS}/{file_name(head, 'a head')}-{digest(inputs)}"


def predictions_exist(workspace: Workspace, head: str, inputs: dict[str, Any]) -> bool:
    """True when a run with exactly these inputs has finished and all that it published is sound."""
    folder = predictions_folder(head, inputs)
    if not workspace.is_sound(f"{folder}/head.json"):
        return False
    tables = workspace.read_json(f"{folder}/head.json").get("tables")
    if tables is None:  # of version 0.1.0
        tables = PRICES if workspace.exists(split_path("test")) else PRICES[:1]
    return all(workspace.is_sound(f"{folder}/{name}", pages=name in PRICES) for name in tables)


def damaged_files(workspace: Workspace, folder: str) -> list[str]:
    """Files of a finished head's model that are gone or not as they were written; version 0.1.0 recorded none."""
    files = workspace.read_json(f"{folder}/head.json").get("files", {})
    return [
        name
        for name, sha256 in files.items()
        if not workspace.exists(f"{folder}/{name}")
        or hashlib.sha256(workspace.read_bytes(f"{folder}/{name}")).hexdigest() != sha256
    ]


def publish_predictions(
    workspace: Workspace,
    predictions: Predictions,
    files: Mapping[str, bytes] | None = None,
    tables: Sequence[str] = (),
) -> str:
    """Write files and both tables, then `head.json`, whose presence is the record; they stand from then on.

    Args:
        files: of the model, by name; the record has their digests.
        tables: names of further ones that stand in the folder already.

    Returns:
        The folder.

    Raises:
        RowMismatchError: a prediction is not finite.
    """
    folder = predictions_folder(predictions.head, predictions.inputs)
    parts = {"oof": predictions.oof} | ({"test": predictions.test} if predictions.test is not None else {})
    for part, table in parts.items():
        log_price = table["log_price"].to_numpy()
        if not np.isfinite(log_price).all():
            bad = int(np.flatnonzero(~np.isfinite(log_price))[0])
            raise RowMismatchError(
                f"{predictions.head}: {part} prediction of {table['sample_id'][bad]} is {log_price[bad]}, "
                "predictions must be finite"
            )
    workspace.sweep(PREDICTIONS, folder)
    for name, content in (files or {}).items():
        workspace.publish_bytes(f"{folder}/{name}", content)
    for part, table in parts.items():
        workspace.publish_table(
            f"{folder}/{part}.parquet", table, metadata={"folds_hash": predictions.folds_hash}
        )
    record = {
        "head": predictions.head,
        "inputs": predictions.inputs,
        "report": predictions.report,
        "tables": [*(f"{part}.parquet" for part in parts), *tables],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in (files or {}).items()},
    }
    with workspace.lock(PREDICTIONS_LOCK):
        workspace.publish_json(f"{folder}/head.json", record)
        workspace.publish_json(standing_file(predictions.head), {"head": predictions.head, "folder": folder})
    return folder


def read_predictions(workspace: Workspace, folder: str) -> Predictions:
    """Read one finished folder (`predictions/<head>-<hash>`)."""
    record = workspace.read_json(f"{folder}/head.json")
    test = f"{folder}/test.parquet"
    return Predictions(
        head=record["head"],
        inputs=record["inputs"],
        oof=workspace.read_table(f"{folder}/oof.parquet"),
        test=workspace.read_table(test) if workspace.exists(test) else None,
        report=record["report"],
    )


def finished_folders(workspace: Workspace) -> list[str]:
    """Every folder under predictions/ that holds a finished run whose record is sound."""
    folders = [f"{PREDICTIONS}/{name}" for name in workspace.names(PREDICTIONS) if not name.endswith(".json")]
    return [folder for folder in folders if workspace.is_sound(f"{folder}/head.json")]


def oof_predictions_table(sample_id: pa.Array, fold: np.ndarray, log_price: np.ndarray) -> pa.Table:
    """The out-of-fold table, arrays of shape (n_train,)."""
    schema = pa.schema([pa.field("sample_id", sample_id.type), FOLD, LOG_PRICE])
    return pa.table([sample_id, pa.array(fold, FOLD.type), pa.array(log_price, pa.float64())], schema=schema)


def test_predictions_table(sample_id: pa.Array, log_price: np.ndarray) -> pa.Table:
    """The test table, arrays of shape (n_test,)."""
    schema = pa.schema([pa.field("sample_id", sample_id.type), LOG_PRICE])
    return pa.table([sample_id, pa.array(log_price, pa.float64())], schema=schema)
