"""Heads are compared, and nothing of that is kept."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from heads.compare import compare_heads
from heads.run import run_heads
from store.config import load_config
from store.errors import HeadError
from store.folds.assign import sample_of_groups
from store.metric import smape_rows
from store.predictions import read_predictions
from tests.test_heads_run import N_TRAIN, catalog_rows, configure, shelfprice, workspace  # noqa: F401


def state(workspace):  # noqa: F811
    return {name: workspace.names(f"predictions/{name}") for name in workspace.names("predictions")}


def test_finished_heads_are_compared_as_they_are_and_others_are_trained_for_it(workspace):  # noqa: F811
    configure(workspace, ("ridge",))
    (result,) = run_heads(workspace, load_config(workspace), ("ridge",))
    before = state(workspace)
    said = []
    ridge, sparse = compare_heads(workspace, load_config(workspace), ("ridge", "sparse"), log=said.append)
    assert ridge.smape == pytest.approx(result.smape)
    assert ridge.difference_interval is None
    assert [line for line in said if "training" in line] == [f"sparse: training on {N_TRAIN} rows"]
    low, high = sparse.difference_interval
    assert low < sparse.difference < high
    assert sparse.difference == pytest.approx(sparse.smape - ridge.smape)
    assert sparse.rows_per_second == pytest.approx(N_TRAIN / sparse.seconds)
    assert ridge.dim > 0
    assert state(workspace) == before
    oof = read_predictions(workspace, result.folder).oof["log_price"].to_numpy()
    actual = np.log([row["price"] for row in catalog_rows(range(N_TRAIN))])
    assert smape_rows(actual, oof).mean() == pytest.approx(ridge.smape)


def test_on_a_sample_every_head_is_trained_and_the_whole_is_estimated(workspace):  # noqa: F811
    configure(workspace, ("ridge",))
    found = json.loads(shelfprice(workspace, "compare", "ridge", "sparse", "--rows", "100", "--json").stdout)
    assert [one["whole_seconds"] for one in found["heads"]] == [None, None]  # there are fewer rows than that
    config = replace(load_config(workspace), seed=1)
    for one in compare_heads(workspace, config, ("ridge", "sparse"), 60):
        assert one.n_rows == 60
        assert one.whole_seconds == pytest.approx(one.seconds * N_TRAIN / 60)
    assert not any(name.startswith("ridge") for name in state(workspace))


def test_a_plan_says_what_heads_took_before_and_how_to_measure_others(workspace, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    configure(workspace, ("ridge", "sparse", "neighbours"))
    before = shelfprice(workspace, "plan").stdout
    assert before.count("time unknown on this machine") == 4
    assert "heads plan --measure" in before
    shelfprice(workspace, "run", "--head", "ridge")
    assert shelfprice(workspace, "plan").stdout.count("time unknown on this machine") == 3
    shutil.rmtree(workspace.path("predictions"))
    after = json.loads(shelfprice(workspace, "plan", "--json").stdout)["estimates"]
    assert after["heads"]["ridge"]["seconds"] > 0
    assert after["heads"]["ridge"]["peak_bytes"] > 10**7
    assert after["heads"]["neighbours"] is None
    found = json.loads(shelfprice(workspace, "plan", "--measure", "--json").stdout)["estimates"]
    measured = found["heads"]
    assert all(one["seconds"] > 0 for one in (*measured.values(), found["blend"]))
    assert measured["ridge"] == after["heads"]["ridge"]  # known before
    assert not workspace.names("predictions")


def test_a_sample_keeps_groups_whole():
    group = np.random.default_rng(0).integers(0, 200, 1000)
    chosen = sample_of_groups(group, 300, seed=0)
    assert 280 <= chosen.sum() <= 300
    assert not set(group[chosen]) & set(group[~chosen])


def test_one_head_is_no_comparison(workspace):  # noqa: F811
    with pytest.raises(HeadError, match="takes two heads or more, got ridge"):
        compare_heads(workspace, load_config(workspace), ("ridge", "ridge"))
