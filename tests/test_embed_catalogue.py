from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import embed
from embed.encoders import registry
from store.errors import CatalogError, ConfigError, FailureLimitError, FoldMismatchError, MissingVectorsError
from store.folds.assign import read_folds
from store.vectors.folded import all_folds
from store.vectors.sets import VectorSet, iter_image_keys, publish_current
from store.vectors.shard import publish_shard
from store.workspace import Workspace
from tests import letter_encoder
from tests.fakes import catalog_table, fake_spec, publish_catalog, publish_folds
from tests.letter_encoder import expected

NAMES = ["green tea", None, "olive oil", "green tea"]


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"letters": letter_encoder})


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    rows = [{"sample_id": i, "name": name, "text": name, "price": 1.0} for i, name in enumerate(NAMES)]
    publish_catalog(
        workspace, catalog_table(rows), catalog_table([{"sample_id": 9, "name": "aioli"}], priced=False)
    )
    return workspace


def test_every_row_of_both_splits_is_embedded_and_read_in_its_place(workspace):
    said = []
    (outcome,) = embed.embed_catalogue(
        workspace.root, ["vowels@name"], device="cpu", max_coverage_gap=1.0, say=said.append
    )
    assert outcome.n_embedded == 3
    assert any(line.startswith("vowels: 3 to embed") for line in said)
    X = embed.vectors(workspace.root, "vowels@name")
    assert X.dtype == np.float32
    np.testing.assert_array_equal(
        X, [[np.nan] * 5 if name is None else expected(name, "aeiou") for name in NAMES]
    )
    assert embed.vectors(workspace, "vowels@name", "test").tolist() == [expected("aioli", "aeiou")]


def test_an_encoder_alone_stands_for_its_default_composition(workspace):
    (outcome,) = embed.embed_catalogue(workspace, "vowels", device="cpu", max_coverage_gap=1.0)
    assert [one.vector_set for one in outcome.plan.sets] == ["vowels@structured"]


def test_the_limits_and_options_are_those_of_the_command(workspace):
    with pytest.raises(FailureLimitError, match=r"train 25\.0%, test 0\.0%"):
        embed.embed_catalogue(workspace, "vowels@name", device="cpu")
    with pytest.raises(ConfigError, match="i from 1 to n"):
        embed.embed_catalogue(workspace, "vowels@name", share="3/2")
    halves = [
        embed.embed_catalogue(workspace, "vowels@name", device="cpu", share=share, max_coverage_gap=1.0)[0]
        for share in ("1/2", "2/2")
    ]
    assert sum(half.n_embedded for half in halves) == 3


def test_what_there_is_no_vector_of_is_an_error_that_names_the_command(workspace, tmp_path):
    with pytest.raises(MissingVectorsError, match="run 'shelfprice embed run -e vowels'"):
        embed.vectors(workspace, "vowels@name")
    embed.embed_catalogue(workspace, "vowels@name", device="cpu", max_coverage_gap=1.0)
    with pytest.raises(CatalogError, match="no valid catalogue"):
        embed.vectors(workspace, "vowels@name", "valid")
    with pytest.raises(CatalogError, match="no catalogue in"):
        embed.embed_catalogue(tmp_path / "empty")


def test_of_a_fine_tuned_encoder_the_fold_must_be_named(workspace):
    publish_folds(workspace, np.array([0, 1, 0, 1]))
    wanted, folds_hash = VectorSet("finetuned:vowels", "name"), read_folds(workspace).hash
    specs = [
        replace(fake_spec(wanted.encoder, 1, weights=str(fold) * 64), fold=fold, folds_hash=folds_hash)
        for fold in (0, 1)
    ]
    row_keys = [
        keys for split in ("train", "test") for ((_, keys),) in iter_image_keys(workspace, wanted, split)
    ]
    keys = pa.concat_arrays(row_keys).drop_null().unique()
    for spec in specs:
        publish_shard(workspace, spec.folder, keys, np.full((len(keys), 1), spec.fold, np.float16), {})
    publish_current(workspace, all_folds(specs))
    with pytest.raises(FoldMismatchError, match="has vectors for each fold: name one"):
        embed.vectors(workspace, str(wanted))
    X = embed.vectors(workspace, str(wanted), fold=1)
    np.testing.assert_array_equal(X[:, 0], [1.0, np.nan, 1.0, 1.0])
    with pytest.raises(FoldMismatchError, match="no vectors for fold 7"):
        embed.vectors(workspace, str(wanted), fold=7)
