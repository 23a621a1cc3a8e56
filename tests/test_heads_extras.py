"""Heads of packages that are extras: `catboost`, and `tabicl` with a tiny checkpoint of its own class."""

import builtins

import numpy as np
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from heads.features.blocks import with_bare_numbers
from heads.fitted import read_fitted, write_fitted
from heads.folds.crossfit import crossfit
from heads.networks.tabicl import TabICL
from heads.registry import make_head
from heads.testing import folds_of, make_rows
from heads.trees.catboost import CatBoost
from store.cli import main
from store.config import Config, HeadConfig, save_config
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fake_rows import QUICK, with_one_core
from tests.fakes import catalog_table, publish_catalog, publish_folds, publish_vectors

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)
ROWS, LOG_PRICE = make_rows(240)
NEW = make_rows(30, seed=5)[0]


@pytest.mark.parametrize("name", ["catboost", "tabicl"])
def test_an_extra_that_is_not_installed_is_named_with_the_command(name, monkeypatch):
    monkeypatch.setattr("heads.base.import_module", lambda module: builtins.__import__(f"absent_{module}"))
    with pytest.raises(
        HeadError, match=rf"{name} needs absent_{name}, .* 'pip install shelfprice\[{name}\]'"
    ):
        make_head(name, {}).fit(ROWS, LOG_PRICE).predict(NEW)


# ---- catboost ------------------------------------------------------------------------------------


def test_catboost_stops_early_inside_the_rows_it_is_fitted_on_and_averages_the_folds_for_the_refit():
    pytest.importorskip("catboost")
    head = CatBoost(**QUICK["catboost"] | {"n_estimators": 300, "patience": 10})
    result = crossfit(head, ROWS, LOG_PRICE, folds_of(ROWS), NEW)
    iterations = [fold["iterations"] for fold in result.learned]
    assert 5 < min(iterations) < 300
    assert result.model.iterations_ == round(np.mean(iterations))
    assert smape_log(LOG_PRICE, result.oof) < 0.7 * smape_log(LOG_PRICE, np.full(240, np.median(LOG_PRICE)))
    noise = np.random.default_rng(0).permutation(LOG_PRICE)
    of_noise = crossfit(head, ROWS, noise, folds_of(ROWS))
    assert abs(np.corrcoef(of_noise.oof, noise)[0, 1]) < 0.2


def test_catboost_takes_rows_that_nothing_tells_apart_for_their_median():
    pytest.importorskip("catboost")
    log_price = np.log(np.linspace(1.0, 3.0, 11))
    head = CatBoost().fit(np.ones((11, 2)), log_price)
    np.testing.assert_allclose(head.predict(np.ones((3, 2))), np.log(2.0))


# ---- tabicl --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with an untrained checkpoint, as the hub's is written."""
    pytest.importorskip("tabicl")
    import torch
    from tabicl._model.tabicl import TabICL as Network

    sizes = {"embed_dim": 16, "col_num_inds": 4, "row_num_cls": 2, "max_classes": 0, "num_quantiles": 19}
    sizes |= {f"{part}_num_blocks": 1 for part in ("col", "row", "icl")}
    sizes |= {f"{part}_nhead": 2 for part in ("col", "row", "icl")}
    torch.manual_seed(0)
    network = Network(**sizes)
    for values in network.parameters():
        torch.nn.init.normal_(values, std=0.3)  # new layers start at zero, and all rows would cost the same
    folder = tmp_path_factory.mktemp("models")
    torch.save({"config": sizes, "state_dict": network.state_dict()}, folder / "tiny.ckpt")
    return folder


def tiny(models, **params):
    return TabICL(models=str(models), checkpoint="tiny.ckpt", n_estimators=2, device="cpu", **params)


def test_tabicl_predicts_what_the_package_does_of_components_and_fields(models):
    import tabicl

    head = tiny(models).fit(ROWS, LOG_PRICE)
    found = head.predict(NEW)
    X = head.columns_.values(with_bare_numbers(NEW), slice(None))
    direct = tabicl.TabICLRegressor(
        n_estimators=2,
        model_path=models / "tiny.ckpt",
        allow_auto_download=False,
        device="cpu",
        random_state=42,
    ).fit(head.context_, LOG_PRICE)
    np.testing.assert_allclose(found, direct.predict(X, output_type="median"), atol=1e-5)
    assert np.ptp(found) > 1e-3
    files = write_fitted("tabicl", [head])
    (read,) = read_fitted(files.__getitem__, lambda ids: ROWS.subset(pc.index_in(ids, ROWS.sample_id)))
    np.testing.assert_allclose(read.predict(NEW), found, atol=1e-5)


def test_tabicl_reads_no_price_of_the_fold_that_it_predicts_and_no_more_context_than_asked_for(models):
    fold = folds_of(ROWS)
    before = crossfit(tiny(models), ROWS, LOG_PRICE, fold).oof
    others = np.where(fold == 0, LOG_PRICE[::-1] + 1, LOG_PRICE)
    after = crossfit(tiny(models), ROWS, others, fold).oof
    np.testing.assert_allclose(after[fold == 0], before[fold == 0], atol=1e-5)
    assert np.abs(after[fold != 0] - before[fold != 0]).max() > 1e-3
    assert len(tiny(models, context_rows=50).fit(ROWS, LOG_PRICE).context_) == 50


def test_the_command_takes_weights_from_a_folder_and_says_where_they_are_missing(models, tmp_path):
    workspace = Workspace(tmp_path / "w")
    rows = [{"sample_id": i, "text": f"tea {i}", "name": "tea", "price": 1.0 + i % 7} for i in range(40)]
    publish_catalog(workspace, catalog_table(rows))
    publish_folds(workspace, np.arange(40) % 4)
    publish_vectors(
        workspace,
        VectorSet("minilm", "structured"),
        {"train": np.random.default_rng(0).normal(size=(40, 6))},
    )
    params = {"tabicl": {"checkpoint": "tiny.ckpt", "n_estimators": 1, "device": "cpu"}}
    heads = HeadConfig(run=("tabicl",), vectors=("minilm@structured",), params=params)
    save_config(workspace, Config(heads=heads))
    command = ["heads", "run", "-w", workspace.root, "--models"]
    said = CliRunner().invoke(main, [*command, str(tmp_path)])
    assert said.exit_code == 1
    assert f"tabicl finds no tiny.ckpt in {tmp_path}" in said.output
    said = CliRunner().invoke(main, [*command, str(models)])
    assert said.exit_code == 0, said.output
    again = CliRunner().invoke(main, command[:-1])
    assert "already there" in again.output  # where the weights lie is no part of what they are
