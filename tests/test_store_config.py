import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from store.config import ColumnConfig, Config, FoldConfig, keep_settings, load_config, save_config
from store.errors import ConfigError, WorkspaceError
from store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_what_is_saved_is_what_loads_by_workspace_and_by_path(workspace, tmp_path):
    for root in (workspace, tmp_path, str(tmp_path)):
        config = Config(seed=7, columns=ColumnConfig(text="title", numeric=("weight",)))
        save_config(root, config)
        assert load_config(root) == config
        (tmp_path / "shelfprice.toml").unlink()


def test_a_workspace_without_a_file_has_the_defaults(workspace):
    assert load_config(workspace) == Config()


def test_settings_that_something_was_made_with_are_asked_for_when_the_file_is_lost(workspace):
    workspace.publish_bytes("shelfprice.toml", OWN.encode())
    notes = []
    keep_settings(workspace, notes.append)
    assert notes == []
    path = Path(workspace.path("shelfprice.toml"))
    for loss in (path.unlink, lambda: path.write_text(""), lambda: path.write_text("# all is gone\n")):
        loss()
        with pytest.raises(ConfigError, match=r"4 settings .*folds\.k = 4.*shelfprice\.toml\.last, copy it"):
            load_config(workspace)
    path.write_bytes(Path(f"{path}.last").read_bytes())  # as the message says
    assert load_config(workspace).folds.k == 4
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(
        ConfigError, match=r"a link that leads to no file, .* in place of the link, or delete"
    ):
        load_config(workspace)
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkspaceError, match=r"delete it, then run 'shelfprice status', which says"):
        load_config(workspace)
    path.rmdir()
    Path(f"{path}.last").unlink()  # the other way that it says
    assert load_config(workspace) == Config()


def test_a_setting_that_changed_or_was_lost_since_something_was_made_is_told_once(workspace):
    workspace.publish_bytes("shelfprice.toml", OWN.encode())
    keep_settings(workspace, pytest.fail)
    workspace.publish_bytes("shelfprice.toml", OWN[: OWN.index("[folds]")].replace("7", "8").encode())
    notes = []
    keep_settings(workspace, notes.append)
    keep_settings(workspace, notes.append)
    assert notes == [
        "shelfprice.toml has changed: folds.k 4 became 5",
        "shelfprice.toml has changed: heads.params.ridge:x.n_penalties 3 became unset",
        "shelfprice.toml has changed: seed 7 became 8",
    ]


OWN = """# autumn run
seed = 7   # lucky

[heads]  # what is trained
# ridge comes first
run = [
    "ridge",  # linear
    "sparse",
]

[folds]
k = 4  # few rows

[heads.params."ridge:x"]
n_penalties = 3
"""


def test_saving_what_was_loaded_changes_no_character(workspace):
    workspace.publish_bytes("shelfprice.toml", OWN.encode())
    save_config(workspace, load_config(workspace))
    assert workspace.read_bytes("shelfprice.toml").decode() == OWN


def test_saving_a_change_keeps_comments_order_and_what_is_left_to_its_default(workspace):
    workspace.publish_bytes("shelfprice.toml", OWN.encode())
    config = load_config(workspace)
    changed = replace(
        config,
        seed=8,
        folds=FoldConfig(k=3),
        columns=ColumnConfig(text="title"),
        heads=replace(config.heads, params={"ridge:x": {"n_penalties": 5, "low": 0.5}, "svr": {"C": 2.0}}),
    )
    save_config(workspace, changed)
    assert load_config(workspace) == changed
    after = workspace.read_bytes("shelfprice.toml").decode()
    expected = (
        OWN.replace("seed = 7 ", "seed = 8 ")
        .replace("k = 4 ", "k = 3 ")
        .replace("n_penalties = 3\n", "n_penalties = 5\nlow = 0.5\n")
    )
    assert after.startswith(expected)
    assert tomllib.loads(after.removeprefix(expected)) == {
        "heads": {"params": {"svr": {"C": 2.0}}},
        "columns": {"text": "title"},
    }


def test_a_setting_that_goes_back_to_its_default_is_written(workspace):
    workspace.publish_bytes("shelfprice.toml", OWN.encode())
    save_config(workspace, Config())
    assert load_config(workspace) == Config()
    assert b"# autumn run" in workspace.read_bytes("shelfprice.toml")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("sead = 1", "unknown key 'sead', expected one of .*seed"),
        ("[folds]\nkk = 3", "unknown key 'folds.kk', expected one of group, k"),
        ("[folds]\nk = 'five'", "folds.k must be int, got 'five'"),
        ("[folds]\nk = true", "folds.k must be int, got True"),
        ("[folds]\nk = 1", "folds.k must be at least 2, got 1"),
        ("[folds]\ngroup = 'brand'", "folds.group must be one of auto, none, exact, near, got 'brand'"),
        ("[heads]\nrun = 'ridge'", "heads.run must be a list of strings, got 'ridge'"),
        ("[heads.params]\nridge = 3", r"\[heads.params\] must hold one table per head"),
        ("folds = 3", r"\[folds\] must be a table, got 3"),
        ("seed =", "is not TOML"),
        ("seed = -1", "seed must be from 0 to 4294967295, got -1"),
        ("seed = 4294967296", "seed must be from 0 to 4294967295, got 4294967296"),
        ("[columns]\nmax_rejected = nan", "columns.max_rejected must be a share from 0 to 1, got nan"),
        ("[columns]\nmax_rejected = -1.0", "columns.max_rejected must be a share from 0 to 1, got -1"),
        ("[embed]\nmax_failures = nan", "embed.max_failures must be a share from 0 to 1, got nan"),
        ("[embed]\nmax_coverage_gap = inf", "embed.max_coverage_gap must be a share from 0 to 1, got inf"),
    ],
)
def test_a_mistake_is_named(workspace, toml, message):
    workspace.publish_bytes("shelfprice.toml", toml.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(workspace)
    assert "go back" not in str(caught.value)
    for last, told in (
        (b"sead = 3\n", "$"),
        (b"seed = 3\n", r": correct it, or go back to .*toml\.last, which"),
    ):
        workspace.publish_bytes("shelfprice.toml.last", last)
        with pytest.raises(ConfigError, match=f"(?s){message}.*{told}"):
            load_config(workspace)
