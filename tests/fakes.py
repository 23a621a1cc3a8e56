"""Stand-ins for what a test must not depend on: catalogues and vectors made on the spot."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from store.catalog.images.links import known_links
from store.catalog.read import catalog_digest, read_split
from store.folds.assign import FOLDS_FILE, read_folds
from store.predictions import Predictions, oof_predictions_table, publish_predictions, test_predictions_table
from store.schema import CATALOG_COLUMNS, FOLD, GROUP, NUMBERS_TYPE, PRICE, TIME, WEIGHT
from store.vectors.sets import VectorSet, iter_image_keys, publish_current
from store.vectors.shard import publish_shard
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace


def catalog_table(rows: list[dict[str, Any]], *, priced: bool = True) -> pa.Table:
    """Catalogue rows by contract; every column not given is empty. `sample_id` is needed."""
    defaults: dict[str, Any] = {"text": "", "bullets": [], "pack_count": 1.0, "numbers": []}
    columns = {"sample_id": pa.array([row["sample_id"] for row in rows])}
    for name, kind in CATALOG_COLUMNS.items():
        columns[name] = pa.array([row.get(name, defaults.get(name)) for row in rows], kind)
    assert columns["numbers"].type == NUMBERS_TYPE
    for name in rows[0] if rows else ():
        if ":" in name:
            is_number = name.startswith("numeric:") or name in (TIME.name, WEIGHT.name)
            kind = pa.float64() if is_number else pa.string()
            columns[name] = pa.array([row.get(name) for row in rows], kind)
    if priced:
        columns["price"] = pa.array([row["price"] for row in rows], PRICE.type)
    return pa.table(columns)


def publish_catalog(workspace: Workspace, train: pa.Table, test: pa.Table | None = None) -> None:
    """Put catalogue tables where ingest would, digests included."""
    for split, table in (("train", train), ("test", test)):
        if table is not None:
            content = hashlib.sha256(repr(table.sort_by("sample_id").to_pylist()).encode()).hexdigest()[:16]
            workspace.publish_table(f"catalog/{split}.parquet", table, metadata={"digest": content})


def image_digests(workspace: Workspace) -> dict[str, str]:
    """Image reference -> hex SHA-256, for every image that is there."""
    return {link: sha256 for link, sha256 in known_links(workspace).items() if sha256 is not None}


def fake_spec(
    name: str = "fake", dim: int = 4, modality: Any = "text", weights: str = "0" * 64
) -> EncoderSpec:
    """A spec of an encoder that does not exist."""
    return EncoderSpec(
        name=name,
        modality=modality,
        library="fake",
        model=name,
        weights_sha256=weights,
        dim=dim,
        preprocessing={},
        pooling="mean",
        normalize=False,
    )


def publish_vectors(
    workspace: Workspace, vector_set: VectorSet, vectors: dict[str, np.ndarray]
) -> EncoderSpec:
    """Publish given vectors, split -> (n_rows, dim) in catalogue order, as if an encoder had made them."""
    dim = next(iter(vectors.values())).shape[1]
    spec = fake_spec(vector_set.encoder, dim, "text" if vector_set.composition else "image")
    publish_current(workspace, spec)
    rows: dict[bytes, np.ndarray] = {}
    for split, X in vectors.items():
        keys = pa.concat_arrays([keys for (_, keys), *_ in iter_image_keys(workspace, vector_set, split)])
        rows.update({key: x for key, x in zip(keys.to_pylist(), X, strict=True) if key is not None})
    keys = pa.array(list(rows), pa.binary(16))
    publish_shard(workspace, spec.folder, keys, np.stack(list(rows.values())), {})
    return spec


def publish_folds(workspace: Workspace, fold: np.ndarray, group: np.ndarray | None = None) -> None:
    """Put given folds where `catalog folds` would; `fold` and `group` are in catalogue order."""
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
    group = np.arange(len(fold)) if group is None else group
    table = pa.table(
        [sample_id, pa.array(fold, FOLD.type), pa.array(group, GROUP.type)],
        names=["sample_id", "fold", "group"],
    )
    workspace.publish_table(FOLDS_FILE, table.sort_by("sample_id"))


def publish_fake_predictions(
    workspace: Workspace,
    head: str,
    oof: np.ndarray,
    test: np.ndarray | None = None,
    **inputs: Any,
) -> str:
    """Publish log prices in catalogue order as if a head had made them; returns the folder.

    `inputs` go into the record over the current folds hash and catalogue digest.
    """
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"].combine_chunks()
    folds = read_folds(workspace)
    test_table = None
    if test is not None:
        test_id = read_split(workspace, "test", ["sample_id"])["sample_id"].combine_chunks()
        test_table = test_predictions_table(test_id, test)
    current = {"folds_hash": folds.hash, "catalog_digest": catalog_digest(workspace), "head": head}
    predictions = Predictions(
        head=head,
        inputs=current | inputs,
        oof=oof_predictions_table(sample_id, folds.aligned(sample_id).fold, oof),
        test=test_table,
        report={},
    )
    return publish_predictions(workspace, predictions)
