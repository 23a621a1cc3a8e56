import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heads.folds.tuning import tuning_path
from store.cli import main
from store.config import Config, HeadConfig, save_config
from store.errors import ConfigError
from store.names import MOST_CHARACTERS, file_name
from store.predictions import predictions_folder
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog

HOSTILE = {
    "sparse:../../out/pwn": "separator of paths",
    "sparse:a/b": "separator of paths",
    r"sparse:a\b": "separator of paths",
    "/etc/passwd": "separator of paths",
    "sparse:..": "nor hold '..'",
    "..": "nor hold '..'",
    ".hidden": "must not begin with '.'",
    "sparse:a\x1b[2J": "control characters",
    "sparse:a\nb": "control characters",
    "sparse:a\u202eb": "control characters",
    "sparse:a\x00": "control characters",
    "": "must not be empty",
    " ": "must not be empty",
    "sparse:a ": "begin or end with a blank",
    "sparse:" + "x" * MOST_CHARACTERS: "characters at most",
    "sparse:" + "红" * 90: "characters at most",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_lead_elsewhere_is_refused_and_shown_harmlessly(name):
    with pytest.raises(ConfigError, match=HOSTILE[name]) as error:
        file_name(name, "a head")
    assert str(error.value).isprintable()
    for make in (lambda: predictions_folder(name, {}), lambda: tuning_path(name)):
        with pytest.raises(ConfigError, match="the name of a head becomes part of a path"):
            make()


@pytest.mark.parametrize(
    "name", ["ridge", "ridge:images", "sparse:no images", "ridge:bücher-2", "finetuned:a+b.c"]
)
def test_a_plain_name_stays_as_it_is_but_for_colons(name):
    assert file_name(name, "a head") == name.replace(":", ".")


@given(st.text())
def test_whatever_is_let_through_is_one_part_of_a_path(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        written = file_name(name, "a head")
    except ConfigError:
        return
    assert (root / written).parent == root
    assert (root / written).name == written


@pytest.mark.parametrize("name", ["sparse:../../out/pwn", "sparse:a/b", "sparse:a\x1b[2J"])
def test_such_a_head_fails_by_itself_and_writes_nothing_outside(tmp_path, name):
    workspace = Workspace(tmp_path / "inner/workspace")
    rows = [
        {"sample_id": i, "name": f"tea {i % 5}", "text": f"tea {i % 5}", "price": 1.0 + i % 5}
        for i in range(40)
    ]
    publish_catalog(workspace, catalog_table(rows))
    save_config(workspace, Config(heads=HeadConfig(run=(name, "sparse"), vectors=())))
    result = CliRunner().invoke(main, ["heads", "run", "-w", workspace.root])
    assert result.exit_code == 1
    assert "becomes part of a path" in result.output
    assert "sparse               SMAPE" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["workspace"]
    tuned = CliRunner().invoke(
        main, ["heads", "tune", "--head", name.replace("sparse", "svr"), "-w", workspace.root]
    )
    assert (tuned.exit_code, "becomes part of a path" in tuned.output) == (1, True)
