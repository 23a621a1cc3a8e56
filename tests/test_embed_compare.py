"""Encoders are compared on a sample of rows."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from embed.compare import compare_encoders
from embed.encoders import registry
from store.cli import main
from store.config import Config
from store.errors import ConfigError
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
    assert "adds nothing sure to it" in said


def test_one_vector_set_is_no_comparison(workspace):
    with pytest.raises(ConfigError, match="takes two vector sets or more, got letters:ae@name"):
        compare_encoders(workspace, Config(), ["letters:ae@name"])
