"""Heads trained from vectors in a file against the same heads in memory."""

import errno
import os

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.features.inputs import read_inputs
from heads.features.memory import block_order, parse_bytes
from heads.folds import crossfit as crossfit_module
from heads.folds import parallel
from heads.folds.crossfit import crossfit
from heads.linear import additive
from heads.registry import make_head
from heads.testing import folds_of, make_rows
from store.cli import main
from store.config import Config, FoldConfig, HeadConfig, save_config
from store.errors import ConfigError, WorkspaceError
from store.folds.assign import ensure_folds
from store.metric import smape_log
from store.vectors.ondisk import OnDisk
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

NAME = VectorSet("fake", "name")
N, DIM = 600, 24
QUICK = {"epochs": 10, "seeds": 1, "patience": 10, "batch_rows": 32, "learning_rate": 3e-3}
HEADS = {
    "ridge": {},
    "lightgbm": {"n_estimators": 30, "learning_rate": 0.3, "colsample_bytree": 1.0, "n_jobs": 1},
    "xgboost": {"n_estimators": 20, "n_jobs": 1},
    "mlp-layernorm": QUICK | {"hidden": (32, 16)},
    "mlp-batchnorm": QUICK | {"hidden": (32, 16)},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Prices that hang on vectors and a number; some rows lack a vector."""
    workspace = Workspace(tmp_path_factory.mktemp("heads") / "workspace")
    random = np.random.default_rng(0)
    X = random.standard_normal((N + 50, DIM)).astype(np.float16)
    log_price = 2.0 + 0.4 * X[:, 0].astype(float) + 0.3 * np.abs(X[:, 1]) + random.normal(0, 0.1, N + 50)
    rows = [
        {
            "sample_id": i,
            "name": None if i % 20 == 3 else f"n{i}",
            "value": float(i % 9),
            "price": float(np.exp(p)),
        }
        for i, p in enumerate(log_price)
    ]
    publish_catalog(workspace, catalog_table(rows[:N]), catalog_table(rows[N:], priced=False))
    publish_vectors(workspace, NAME, {"train": X[:N], "test": X[N:]})
    save_config(
        workspace, Config(folds=FoldConfig(k=3), heads=HeadConfig(run=("ridge",), vectors=("fake@name",)))
    )
    return workspace


@pytest.mark.parametrize("name", HEADS)
def test_from_a_file_a_head_comes_out_as_in_memory(workspace, tmp_path, name):
    folds = ensure_folds(workspace, Config(folds=FoldConfig(k=3)), lambda line: None)
    found = []
    for folder in (None, tmp_path):
        inputs = read_inputs(workspace, [NAME], [], folds, folder)
        head = make_head(name, HEADS[name], 0)
        found.append(crossfit(head, inputs.train, inputs.log_price, inputs.fold, inputs.test))
    held, filed = found
    np.testing.assert_array_equal(filed.oof, held.oof)
    np.testing.assert_array_equal(filed.test, held.test)
    assert smape_log(inputs.log_price, filed.oof) < 0.9 * smape_log(
        inputs.log_price, np.full(N, np.median(inputs.log_price))
    )


def test_the_command_trains_from_files_beyond_the_limit_and_refuses_heads_that_cannot(workspace, tmp_path):
    def run(*arguments, code):
        result = CliRunner().invoke(main, ["heads", "run", *arguments, "-w", workspace.root])
        assert result.exit_code == code, result.output
        return result.output

    beyond = ("--memory", "10KB")
    assert "kernel-ridge needs its vectors in memory, 0.0 GB, more than --memory" in run(
        "--head", "kernel-ridge", *beyond, code=1
    )
    assert "600 rows, fake@name from files" in run("--head", "ridge", *beyond, code=0)
    assert "--memory is a size such as 4GB" in run("--memory", "much", code=1)


def test_a_disk_without_room_for_the_vectors_is_one_clear_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(WorkspaceError, match=r"no space left to write .*TMPDIR names another disk"):
        OnDisk.zeros(tmp_path, "vectors", (9, 4), np.float16)


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("4GB", 4 * 10**9), ("500 MB", 5 * 10**8), ("1.5g", 15 * 10**8), ("12345", 12345)]
)
def test_sizes_are_read(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "0", "four"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match=r"--memory is a size such as 4GB"):
        parse_bytes(text)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_a_block_order_holds_every_row_once(n, block_rows, blocks, seed):
    positions = np.arange(n) * 3
    if n:
        order = block_order(positions, np.random.default_rng(seed), block_rows, blocks)
        assert sorted(order.tolist()) == positions.tolist()


@pytest.mark.parametrize("name", ["additive", "neighbours"])
def test_folds_for_which_memory_is_lacking_are_fitted_one_after_the_other(name, monkeypatch):
    rows, log_price = make_rows(300)
    at_work, most = 0, []

    def watched(work):
        def one(item):
            nonlocal at_work
            at_work += 1
            most.append(at_work)
            try:
                return work(item)
            finally:
                at_work -= 1

        return one

    plain = parallel.each_in_memory
    for module in (additive, crossfit_module):
        monkeypatch.setattr(module, "each_in_memory", lambda work, *given: plain(watched(work), *given))
    monkeypatch.setattr(parallel, "n_cores", lambda wanted=0: wanted or 2)
    found = []
    for free in (0, 10**12):
        monkeypatch.setattr(parallel, "free_memory", lambda free=free: free)
        most.clear()
        found.append(crossfit(make_head(name, {}), rows, log_price, folds_of(rows)).oof)
        assert max(most) == (1 if free == 0 else 2)
    np.testing.assert_array_equal(*found)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "CONTROL_GROUP", tmp_path)
    free = parallel.free_memory()
    assert free > 10**7
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\ninactive_file 3000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert parallel.free_memory() > 10**7
    (tmp_path / "memory.max").write_text("6000000\n")
    assert parallel.free_memory() == 4_000_000
