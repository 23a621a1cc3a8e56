import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from heads.features.rows import FieldTable, Rows
from heads.folds.crossfit import crossfit
from heads.networks import training
from heads.networks.fusion import Fusion
from heads.networks.head import LARGE_ROWS
from heads.networks.layers import (
    Dropout,
    Filled,
    FusionNetwork,
    SparseNetwork,
    batch_norm_mlp,
    layer_norm_mlp,
)
from heads.networks.mlp import MlpBatchNorm, MlpLayerNorm
from heads.networks.sparse_mlp import SparseMlp
from heads.networks.tabm import TabM
from heads.networks.training import (
    TrainingRecipe,
    clipped_step,
    predict_network,
    stopping_rows,
    train_network,
)
from heads.testing import make_rows
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix

QUICK = TrainingRecipe(
    learning_rate=0.02, batch_rows=32, epochs=30, patience=30, precision="fp32", average=0.9
)


def linear_rows(n_rows=300, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4)).astype(np.float32)
    return X, 3 + X @ np.array([0.5, -0.3, 0.2, 0.0])


def batch_of(X):
    tensor = torch.from_numpy(X)
    return lambda network, index: network(tensor[index])


def train(X, log_price, recipe=QUICK, seed=0, group=None):
    torch.manual_seed(seed)
    group = np.arange(len(X)) if group is None else group
    return train_network("mlp", nn.Linear(X.shape[1], 1), batch_of(X), log_price, group, recipe, seed)


def shapes(network):
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def test_the_networks_are_layer_for_layer_those_of_the_winning_system():
    assert shapes(layer_norm_mlp(1536)) == [(1536, 1024), (1024, 512), (512, 256), (256, 128), (128, 1)]
    assert shapes(batch_norm_mlp(2048))[:3] == [(2048, 2048), (2048, 1024), (1024, 512)]
    assert shapes(batch_norm_mlp(2048))[3:] == [(512, 256), (256, 128), (128, 1)]
    fusion = FusionNetwork([1792, 768])
    assert [p[0].out_features for p in fusion.projections] == [512, 512]
    assert shapes(fusion.mlp) == [(1536, 768), (768, 384), (384, 192), (192, 1)]
    assert shapes(FusionNetwork([1792, 768, 30], side=1).mlp)[0] == (1536, 768)
    assert sum(isinstance(m, nn.LayerNorm) for m in layer_norm_mlp(8).modules()) == 4
    assert sum(isinstance(m, nn.BatchNorm1d) for m in batch_norm_mlp(8).modules()) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_dropout_drops_its_share_keeps_the_mean_and_lets_gradients_through_where_it_kept(p, dtype):
    dropout, x = Dropout(p), torch.ones(1001, 1003, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    out = dropout(x)
    out.sum().backward()
    kept = out.detach() != 0
    assert out.dtype == dtype
    assert 1 - kept.float().mean() == pytest.approx(p, abs=0.5 / 256 + 0.002)
    assert out.detach().float().mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(x.grad != 0, kept)
    assert kept.float().mean(dim=0).std() == pytest.approx((p * (1 - p) / 1001) ** 0.5, rel=0.1)  # no stripes
    torch.manual_seed(0)
    assert torch.equal(dropout(x), out)
    assert not torch.equal(dropout(x), out)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("p", [0.0, 0.001, 1.0])
def test_dropout_of_nothing_and_of_everything(p):
    x = torch.ones(3, 5)
    assert torch.equal(Dropout(p)(x), torch.zeros(3, 5) if p == 1 else x)


@pytest.mark.parametrize("most", [0.01, 100.0])
def test_a_clipped_step_is_clipping_and_then_a_step(most):
    def weights(step):
        torch.manual_seed(0)
        network = nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
        for x in torch.randn(4, 7, 5):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            step(network, optimizer)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    def torch_own(network, optimizer):
        nn.utils.clip_grad_norm_(network.parameters(), most)
        optimizer.step()

    ours = weights(lambda network, optimizer: clipped_step(optimizer, most))
    assert torch.allclose(ours, weights(torch_own), rtol=1e-4)


@pytest.mark.parametrize("loss", ["smape", "huber-log", "mae-log"])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_line_is_learned_with_every_loss_and_schedule(loss, schedule):
    X, log_price = linear_rows()
    trained = train(X, log_price, dataclasses.replace(QUICK, loss=loss, schedule=schedule))
    predicted = predict_network(trained.network, batch_of(X), np.arange(len(X)), "fp32") + trained.mean
    assert smape_log(log_price, predicted) < 3.0


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    X, log_price = linear_rows()
    first, again, other = (train(X, log_price, seed=seed).network.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rows_of_one_group_are_set_aside_together_and_others_for_another_seed():
    group = np.repeat(np.arange(40), 3)
    aside = stopping_rows(group, 8, seed=0)
    assert 0 < aside.sum() < len(group)
    assert all(len(set(aside[group == g])) == 1 for g in range(40))
    assert not (aside & stopping_rows(group, 8, seed=1)).any()


def test_a_single_group_sets_nothing_aside_and_trains_to_the_end():
    X, log_price = linear_rows(50)
    trained = train(X, log_price, group=np.zeros(50, int))
    assert trained.smape is None
    assert trained.epochs == QUICK.epochs


def test_weights_with_the_best_score_are_kept_not_the_last():
    X, log_price = linear_rows(60)
    recipe = dataclasses.replace(
        QUICK, learning_rate=0.5, warmup=0.0, average=0.0, schedule="plateau", epochs=25
    )
    trained = train(X, log_price, recipe)
    aside = np.flatnonzero(stopping_rows(np.arange(60), recipe.aside, 0))
    predicted = predict_network(trained.network, batch_of(X), aside, "fp32") + trained.mean
    assert smape_log(log_price[aside], predicted) == pytest.approx(trained.smape)


def test_training_stops_when_patience_ends():
    X, _ = linear_rows(200)
    noise = np.random.default_rng(1).normal(size=200)
    trained = train(X, noise, dataclasses.replace(QUICK, epochs=500, patience=3))
    assert trained.epochs < 400


def test_a_network_that_diverges_is_an_error_naming_head_and_epoch():
    X, log_price = linear_rows()
    X[7] = np.nan
    with pytest.raises(HeadError, match="mlp diverged in epoch 1: its loss is nan; lower its learning_rate"):
        train(X, log_price, group=np.zeros(300, int))


def test_an_unknown_loss_is_refused_by_name():
    X, log_price = linear_rows()
    with pytest.raises(HeadError, match="loss must be one of smape, huber-log, mae-log, got 'rmse'"):
        train(X, log_price, dataclasses.replace(QUICK, loss="rmse"))


def test_a_missing_modality_is_a_learned_vector_not_zeros():
    filled = Filled([3, 2], nn.Identity())
    x = torch.zeros(2, 5)
    out = filled(x, torch.tensor([[False, False], [False, True]]))
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[1, :3], x[1, :3])
    assert torch.equal(out[1, 3:], filled.learned[1].detach())
    out.sum().backward()
    assert filled.learned[1].grad is not None


def test_rows_without_an_image_are_told_from_those_with_one():
    rng = np.random.default_rng(0)
    valid = rng.random(300) > 0.5
    X = np.where(valid[:, None], rng.normal(size=(300, 4)), 0).astype(np.float16)
    rows = Rows(
        pa.array(np.arange(300)),
        (Matrix("image", X, valid),),
        FieldTable((), np.empty((300, 0))),
        {},
        np.arange(300),
    )
    log_price = np.where(valid, 3.0, 4.0)
    head = MlpLayerNorm(
        hidden=(16,), seeds=1, batch_rows=32, epochs=30, learning_rate=1e-2, dropout=0.0, fields=False
    )
    assert smape_log(log_price, crossfit(head, rows, log_price, np.arange(300) % 3).oof) < 10


def test_the_sparse_network_is_the_dense_product():
    import scipy.sparse as sp

    X = sp.random(6, 20, density=0.3, format="csr", dtype=np.float32, random_state=0)
    network = SparseNetwork(20, hidden=(4, 3))
    columns, offsets = (
        torch.from_numpy(X.indices.astype(np.int64)),
        torch.from_numpy(X.indptr.astype(np.int64)),
    )
    out = network(columns, offsets, torch.from_numpy(X.data))
    dense = torch.from_numpy(X.toarray()) @ network.words.weight + network.bias
    assert torch.allclose(out, network.mlp(dense), atol=1e-6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_as_many_networks_are_averaged_as_there_are_seeds(seeds):
    rows, log_price = make_rows(120)
    head = TabM(members=2, width=8, blocks=1, epochs=2, seeds=seeds).fit(rows, log_price)
    assert len(head.learned()["epochs"]) == seeds
    assert head.predict(rows).shape == (120,)


def test_no_seed_at_all_is_refused():
    rows, log_price = make_rows(40)
    with pytest.raises(HeadError, match="seeds must be a whole number from 1 to 100, got 0"):
        TabM(seeds=0).fit(rows, log_price)


@pytest.mark.parametrize(
    "head",
    [
        MlpLayerNorm(hidden=(16, 8), seeds=1, epochs=15),
        MlpBatchNorm(hidden=(16, 8), seeds=1, epochs=15),
        Fusion(projected=16, hidden=(16,), seeds=1, epochs=15),
        SparseMlp(hidden=(16, 8), seeds=1, epochs=5),
    ],
    ids=lambda head: head.name,
)
def test_bf16_products_predict_what_fp32_does(head):
    rows, log_price = make_rows(200)
    results = [
        head.clone().set_params(precision=p).fit(rows, log_price).predict(rows) for p in ("fp32", "bf16")
    ]
    assert np.corrcoef(results[0], results[1])[0, 1] > 0.9


def test_many_rows_are_taken_by_twice_as_many_at_twice_the_rate_unless_the_user_says_how_many():
    def step(head, n_rows):
        recipe = head._recipe(n_rows)
        return recipe.batch_rows, recipe.learning_rate

    assert step(MlpLayerNorm(), LARGE_ROWS - 1) == (256, 1e-3)
    assert step(MlpLayerNorm(), LARGE_ROWS) == (512, 2e-3)
    assert step(MlpLayerNorm(batch_rows=128), LARGE_ROWS) == (128, 1e-3)
    assert step(TabM(), LARGE_ROWS) == (256, 2e-3)


def test_a_running_mean_of_every_fourth_step_predicts_what_that_of_every_step_does(monkeypatch):
    X, log_price = linear_rows()

    def predicted():
        trained = train(X, log_price)
        rows = np.arange(len(X))
        return predict_network(trained.network, batch_of(X), rows, "fp32") + trained.mean

    each = predicted()
    monkeypatch.setattr(training, "LONG_EPOCH", 1)
    fourth = predicted()
    assert not np.array_equal(fourth, each)
    assert smape_log(each, fourth) < 0.5
