"""Prices of the tuned models, from their cached vectors: `finetuned:<name>`, a head like others."""

import dataclasses
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from embed.finetune.job import FinetuneJob
from embed.finetune.record import CODE_VERSION, DONE
from embed.finetune.vectors import publish_all_folds, read_best, tuned_specs
from heads.features.inputs import input_coverage
from heads.features.rows import Rows
from heads.networks.training import predict_network
from store.catalog.read import catalog_digest
from store.metric import scores, smape_log
from store.predictions import (
    Predictions,
    oof_predictions_table,
    predictions_exist,
    predictions_folder,
    publish_predictions,
    test_predictions_table,
)
from store.standing import let_stand
from store.vectors.matrix import matrix_of
from store.vectors.sets import TUNED


@dataclass(frozen=True)
class FoldPrices:
    """Prices by one fold's model."""

    fold: int
    oof: np.ndarray  # (n_fold,) log price of the rows it never saw
    test: np.ndarray | None  # (n_test,)
    smape: float  # of `oof`, percent
    frozen_smape: float  # of the head after its warm-up, on frozen vectors of the same rows


def predict_fold(job: FinetuneJob, fold: int) -> FoldPrices:
    """Prices of the held-out fold's rows and of the test rows by one fold's model, off its cached vectors."""
    workspace, inputs, folder = job.workspace, job.inputs, job.fold_folder(fold)
    head = job.head()
    parts = head.parts(job.training_part(fold).rows)
    tensors, record = read_best(job, fold)
    own = {name.partition("/head.")[2]: t for name, t in tensors.items() if "/head." in name}
    parts.network.load_state_dict(own)
    held_out = np.flatnonzero(inputs.fold == fold)

    def prices(rows: Rows, split: str, chosen: np.ndarray) -> np.ndarray:
        matrices = tuple(
            matrix_of(workspace, spec, tower.tuned, split, np.float16).rows(chosen)
            for tower, spec in zip(job.towers, tuned_specs(job, fold), strict=True)
        )
        batch = head.batch_of(dataclasses.replace(rows.subset(chosen), matrices=matrices))
        here = np.arange(len(chosen))
        found: np.ndarray = (
            predict_network(parts.network, batch, here, parts.recipe.precision) + record["mean"]
        )
        return found

    oof = prices(inputs.train, "train", held_out)
    test = None if inputs.test is None else prices(inputs.test, "test", np.arange(len(inputs.test)))
    smape = smape_log(inputs.log_price[held_out], oof)
    return FoldPrices(fold, oof, test, smape, workspace.read_json(f"{folder}/{DONE}")["frozen_smape"])


def publish_prices(job: FinetuneJob, prices: list[FoldPrices]) -> tuple[str, dict[str, Any]]:
    """Publish the vectors' names and the predictions; every fold must be there.

    Returns:
        The predictions' folder and their report.
    """
    inputs = job.inputs
    specs = publish_all_folds(job)
    name = f"{TUNED}{job.name}"
    coverages = [input_coverage(job.workspace, tower.tuned) for tower in job.towers]
    record: dict[str, Any] = {
        "head": name,
        "params": job.configuration,
        "vectors": [[str(c.vector_set), c.fingerprint, c.digest] for c in coverages],
        "texts": [],
        "catalog_digest": catalog_digest(job.workspace),
        "folds_hash": job.folds.hash,
        "seed": job.seed,
        "code_version": CODE_VERSION,
    }
    assert [c.fingerprint for c in coverages] == [spec.fingerprint for spec in specs]
    if job.configuration["cleaning"] is not None:
        record["cleaning"] = job.configuration["cleaning"]
    oof = np.full(len(inputs.log_price), np.nan)
    for one in prices:
        oof[inputs.fold == one.fold] = one.oof
    folds = [job.workspace.read_json(f"{job.fold_folder(one.fold)}/{DONE}") for one in prices]
    frozen = np.average([one.frozen_smape for one in prices], weights=[len(one.oof) for one in prices])
    report = {
        **scores(inputs.log_price, oof),
        "frozen_smape": float(frozen),
        "seconds": round(sum(fold["seconds"] for fold in folds), 3),
        "learned": folds,
        "versions": {package: version(package) for package in ("shelfprice", "torch")},
    }
    folder = predictions_folder(name, record)
    if not (predictions_exist(job.workspace, name, record) and let_stand(job.workspace, name, folder)):
        test = None
        if inputs.test is not None:
            mean = np.mean([one.test for one in prices if one.test is not None], axis=0)
            test = test_predictions_table(inputs.test.sample_id, mean)
        table = oof_predictions_table(inputs.train.sample_id, inputs.fold, oof)
        publish_predictions(job.workspace, Predictions(name, record, table, test, report))
    return folder, report
