"""Rows with several images in fine-tuning: the vector that is trained is the mean that heads see."""

import numpy as np
import pytest
import torch

from embed.finetune import network as network_module
from embed.finetune.feed import Feed, part_of
from embed.finetune.network import TunedNetwork
from store.catalog.ingest.run import ingest
from store.config import Config, EmbedConfig, FoldConfig, HeadConfig, save_config
from store.workspace import Workspace
from tests.fake_images import encoded, photo
from tests.finetune_runs import (
    PARAMS,
    embedded,
    save_tiny_efficientnet,
    tiny_job,
    tune,
    with_one_thread,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
one_thread = pytest.fixture(autouse=True, scope="module")(with_one_thread)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """40 rows of no, one, two or three images, of which one can't be decoded."""
    root = tmp_path_factory.mktemp("several")
    (root / "images").mkdir()
    rows = []
    for i in range(40):
        names = [f"{i}_{n}.jpg" for n in range(i % 4)]
        rows.append(f'{i},"tea number {i}","{";".join(names)}",{3 + i % 7}')
        for n, name in enumerate(names):
            content = encoded(photo(40, 36, seed=5 * i + n))
            (root / "images" / name).write_bytes(content if (i, n) != (6, 0) else content[:200])
    (root / "train.csv").write_text("sample_id,catalog_content,image_link,price\n" + "\n".join(rows) + "\n")
    workspace = Workspace(root / "workspace")
    ingest(workspace, str(root / "train.csv"), images=root / "images")
    config = Config(embed=EmbedConfig(vectors=()), folds=FoldConfig(k=2), heads=HeadConfig(params=PARAMS))
    save_config(workspace, config)
    encoder = str(save_tiny_efficientnet(root / "model"))
    return tiny_job(embedded(workspace, encoder), (encoder,), "several", epochs=1, batch_rows=8)


def test_the_vector_that_is_trained_is_the_mean_over_the_images_that_have_one(job):
    (matrix,) = job.inputs.train.matrices
    encoders = job.load_encoders()
    parts = job.head().parts(job.training_part(0).rows)
    network = TunedNetwork(encoders, parts, parts.network, job.recipe).eval()
    feed = Feed(job.workspace, job.towers, encoders, [matrix.valid], job.seed)
    rows = np.arange(40)
    prepared = feed.prepare(rows, None)
    augmented = feed.prepare(rows, 1)
    feed.close()
    (one,) = prepared.inputs
    assert np.bincount(one.owner).tolist() == [i % 4 - (i == 6) for i in rows if i % 4]
    assert augmented.inputs[0].arrays[0].shape == one.arrays[0].shape
    in_processes = Feed(job.workspace, job.towers, encoders, [matrix.valid], job.seed, processes=True)
    for epoch, alone in ((None, prepared), (1, augmented)):
        np.testing.assert_array_equal(
            in_processes.prepare(rows, epoch).inputs[0].arrays[0], alone.inputs[0].arrays[0]
        )
    in_processes.close()
    with torch.no_grad():
        vectors = network._encode(0, one).numpy()
        half = network._encode(0, part_of(prepared, 5, 30).inputs[0]).numpy()
    np.testing.assert_allclose(vectors, np.asarray(matrix.X[one.rows], np.float32), atol=2e-3)
    np.testing.assert_allclose(half, vectors[(one.rows >= 5) & (one.rows < 30)], atol=1e-5)


def test_fine_tuning_asks_for_attention_that_is_right(job, monkeypatch):
    asked: list[dict] = []
    monkeypatch.setattr(network_module, "avoid_wrong_attention", asked.append)
    encoders = job.load_encoders()
    parts = job.head().parts(job.training_part(0).rows)
    TunedNetwork(encoders, parts, parts.network, job.recipe)
    assert asked == [encoders[0].spec.preprocessing]


def test_a_fold_of_such_rows_is_tuned_and_priced(job):
    outcome = tune(job, (0,))
    assert outcome.missing == (1,)
    assert 0 < outcome.prices[0].smape < 200
