import json

import pytest
from click.testing import CliRunner

from heads import defaults
from heads.defaults import FEW, MANY, MOST, SEVERAL, SEVERAL_TEXTS, TEXTS, chosen_heads
from heads.registry import HEADS
from store.cli import main
from store.config import Config, HeadConfig, save_config
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "w")
    rows = [
        {"sample_id": i, "text": f"tea {i}", "price": 1.0 + i, "numeric:size": float(i)} for i in range(40)
    ]
    publish_catalog(workspace, catalog_table(rows))
    return workspace


def planned(workspace):
    result = CliRunner().invoke(main, ["heads", "plan", "--json", "-w", workspace.root])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_heads_are_chosen_by_the_rows_of_the_catalogue_and_the_plan_says_so(workspace, monkeypatch):
    save_config(workspace, Config(heads=HeadConfig(vectors=())))
    plan = planned(workspace)
    assert tuple(plan["heads"]) == FEW
    assert plan["heads"]["gaussian-process"] == "to train"
    assert plan["reason"] == "chosen for 40 training rows (below 5,000) and 1 further columns"
    monkeypatch.setattr(defaults, "FEW_ROWS", 40)
    assert chosen_heads(workspace, Config()).names == SEVERAL
    monkeypatch.setattr(defaults, "MANY_ROWS", 40)
    assert tuple(planned(workspace)["heads"]) == MANY
    monkeypatch.setattr(defaults, "MOST_ROWS", 40)
    assert tuple(planned(workspace)["heads"]) == MOST
    assert set(FEW + SEVERAL + TEXTS + SEVERAL_TEXTS + MANY + MOST) <= set(HEADS)
    monkeypatch.undo()
    rows = [{"sample_id": i, "text": f"tea {i}", "price": 1.0 + i} for i in range(40)]
    publish_catalog(workspace, catalog_table(rows))
    assert chosen_heads(workspace, Config()).names == TEXTS
    monkeypatch.setattr(defaults, "FEW_ROWS", 40)
    assert chosen_heads(workspace, Config()).names == SEVERAL_TEXTS


def test_heads_that_the_configuration_names_are_taken_whatever_the_size(workspace):
    config = Config(heads=HeadConfig(run=("ridge",)))
    assert chosen_heads(workspace, config).names == ("ridge",)
    save_config(workspace, config)
    assert planned(workspace)["reason"] == "named by heads.run of shelfprice.toml"
