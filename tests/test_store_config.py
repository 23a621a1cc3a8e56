import pytest

from store.config import ColumnConfig, Config, load_config, save_config
from store.errors import ConfigError
from store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_what_is_saved_is_what_loads(workspace):
    config = Config(seed=7, columns=ColumnConfig(text="title", numeric=("weight",)))
    save_config(workspace, config)
    assert load_config(workspace) == config


def test_a_workspace_without_a_file_has_the_defaults(workspace):
    assert load_config(workspace) == Config()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("sead = 1", "unknown key 'sead', expected one of .*seed"),
        ("[folds]\nkk = 3", "unknown key 'folds.kk', expected one of group, k"),
        ("[folds]\nk = 'five'", "folds.k must be int, got 'five'"),
        ("[folds]\nk = true", "folds.k must be int, got True"),
        ("[folds]\nk = 1", "folds.k must be at least 2, got 1"),
        ("[folds]\ngroup = 'brand'", "folds.group must be one of exact, near, got 'brand'"),
        ("[heads]\nrun = 'ridge'", "heads.run must be a list of strings, got 'ridge'"),
        ("[heads.params]\nridge = 3", r"\[heads.params\] must hold one table per head"),
        ("folds = 3", r"\[folds\] must be a table, got 3"),
        ("seed =", "is not TOML"),
    ],
)
def test_a_mistake_is_named(workspace, toml, message):
    workspace.publish_bytes("shelfprice.toml", toml.encode())
    with pytest.raises(ConfigError, match=message):
        load_config(workspace)
