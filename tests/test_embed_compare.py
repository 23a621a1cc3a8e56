"""Encoders are compared on a sample of rows."""

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from embed.compare import _out_of_fold, compare_encoders
from embed.encoders import registry
from store.catalog.read import read_split
from store.cli import main
from store.config import Config
from store.errors import ConfigError
from store.folds.assign import FOLDS_FILE
from store.metric import smape_rows
from store.schema import FOLD, GROUP
from store.workspace import Workspace
from tests import letter_encoder
from tests.fakes import catalog_table, publish_catalog, publish_folds

N_ROWS = 240


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"letters": letter_encoder})


@pytest.fixture
def workspace(tmp_path):
    """Prices follow the number of a and e of a name; x says nothing."""
    generator = np.random.default_rng(0)
    names = ["".join(generator.choice(list("aexyz"), 12)) for _ in range(N_ROWS)]
    rows = [
        {
            "sample_id": i,
            "name": n,
            "text": n,
            "price": float(np.exp(0.3 * n.count("a") + 0.3 * n.count("e"))),
        }
        for i, n in enumerate(names)
    ]
    workspace = Workspace(tmp_path)
    publish_catalog(workspace, catalog_table(rows))
    publish_folds(workspace, np.arange(N_ROWS) % 5, np.arange(N_ROWS) // 2)
    return workspace


def test_the_better_encoder_is_told_with_what_it_adds_and_what_a_full_run_costs(workspace):
    names = ["letters:ax@name", "letters:e@name", "letters:x@name"]
    found = {one.vectors: one for one in compare_encoders(workspace, Config(), names, 120, device="cpu")}
    first, second, useless = (found[name] for name in names)
    assert first.n_rows == 120
    assert first.difference_interval is None
    assert second.adds > 0
    assert second.adds_interval[0] > 0
    assert useless.difference_interval[0] > 0
    assert useless.adds_interval[0] <= 0
    # What lies in the sample is embedded already; the rest is what a full run would do, at the speed seen.
    assert 0 < first.n_missing <= N_ROWS - first.n_rows
    assert first.seconds == pytest.approx(first.n_missing / first.rows_per_second)


def test_comparing_changes_nothing_that_stands(workspace):
    command = ["embed", "compare", "letters:ae@name", "letters:x@name", "--rows", "100", "-w", workspace.root]
    done = CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False)
    assert [one["vectors"] for one in json.loads(done.stdout)["vectors"]] == [
        "letters:ae@name",
        "letters:x@name",
    ]
    assert not workspace.exists("vectors/current")
    assert not workspace.exists("predictions")
    said = CliRunner().invoke(main, command, catch_exceptions=False).stdout
    assert "worse than letters:ae@name" in said
    assert "no certain improvement." in said


def test_folds_in_order_of_time_are_predicted_by_earlier_ones_alone(workspace):
    sample_id = read_split(workspace, "train", ["sample_id"])["sample_id"]
    fold = np.arange(N_ROWS) * 4 // N_ROWS
    columns = [sample_id, pa.array(fold, FOLD.type), pa.array(np.arange(N_ROWS), GROUP.type)]
    table = pa.table(columns, names=["sample_id", FOLD.name, GROUP.name])
    workspace.publish_table(FOLDS_FILE, table, metadata={"looks_back": True})
    one, _ = compare_encoders(workspace, Config(), ["letters:a@name", "letters:x@name"], N_ROWS, device="cpu")
    rows = read_split(workspace, "train").to_pylist()
    X = np.array([[row["name"].count("a")] for row in rows], np.float32)
    log_price = np.log([row["price"] for row in rows])
    predicted = _out_of_fold([X], log_price, fold, True)
    assert np.isnan(predicted[fold == 0]).all()
    later = fold > 0
    assert one.smape == pytest.approx(smape_rows(log_price[later], predicted[later]).mean(), rel=1e-3)
    changed = np.where(fold == 3, 9.0, log_price)
    assert np.array_equal(_out_of_fold([X], changed, fold, True)[later], predicted[later])


def test_the_speed_of_an_encoder_is_known_in_another_workspace_of_the_user_on_the_same_kind_of_device(
    workspace, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    other = Workspace(tmp_path / "other")
    publish_catalog(other, read_split(workspace, "train"))

    def embed(command, root):
        options = ["-e", "letters:ae@name", "-w", root]
        return CliRunner().invoke(main, ["embed", command, *options], catch_exceptions=False).stdout

    before = embed("plan", other.root)
    assert "time unknown" in before
    assert f"'shelfprice embed compare letters:ae@name ENCODER -w {other.root}' measures" in before
    embed("run", workspace.root)
    after = embed("plan", other.root)
    assert "about" in after
    assert "embed compare" not in after
    assert not other.exists("vectors")
    monkeypatch.setattr("embed.forward.devices._lacks_gpu", lambda: False)
    for of_cpu in (workspace, other):
        assert "about" not in embed("plan", of_cpu.root)


def test_one_vector_set_is_no_comparison(workspace):
    with pytest.raises(ConfigError, match="takes two vector sets or more, got letters:ae@name"):
        compare_encoders(workspace, Config(), ["letters:ae@name"])
