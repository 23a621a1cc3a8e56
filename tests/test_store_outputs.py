"""Places that a user names for results: no file of anyone else's is lost."""

import json
import os

import pytest
from click.testing import CliRunner

from store.cli import main
from store.errors import ConfigError
from store.outputs import MODEL_KIND, MODEL_MANIFEST, Output, check_outputs, has_header
from store.workspace import Workspace

PRICES = b"sample_id,price,low,high\n1,2,1,3\n"


@pytest.fixture
def place(tmp_path):
    """A catalogue, prices of an earlier run, a packed model, a workspace, and links to them."""
    (tmp_path / "new.csv").write_text("sample_id,text\n1,tea\n")
    (tmp_path / "prices.csv").write_bytes(PRICES)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "model/images").mkdir(parents=True)
    (tmp_path / "model" / MODEL_MANIFEST).write_text(json.dumps({"kind": MODEL_KIND}))
    (tmp_path / "run/blend/1").mkdir(parents=True)
    (tmp_path / "link.csv").symlink_to("new.csv")
    (tmp_path / "later.csv").symlink_to("not-yet.csv")
    (tmp_path / "elsewhere").symlink_to("model")
    os.link(tmp_path / "new.csv", tmp_path / "same.csv")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("new.csv",), r"--out .*new.csv is also .*new.csv: name another"),
        (("link.csv",), r"is also .*new.csv: name another"),
        (("same.csv",), r"is also .*new.csv: name another"),
        (("prices.csv", "./prices.csv"), r"--spreadsheet .*prices.csv is also what --out names"),
        (("model/prices.csv",), r"is within the packed model .*model, whose files are its own"),
        (("elsewhere/images/prices.csv",), r"is within the packed model"),
        (("run/submission.csv",), r"is a place of the workspace's own files"),
        (("run/blend/1/prices.csv",), r"is a place of the workspace's own files"),
        (("run/folds.parquet",), r"is a place of the workspace's own files"),
        (("pipe",), r"is there and was not written by this command: name another file, or delete it first"),
        ((None, "run"), r"--spreadsheet .*run is a place of the workspace's own files"),
    ],
)
def test_an_output_that_would_take_the_place_of_something_else_is_refused(place, names, told):
    is_ours = has_header("price", "low", "high")
    outputs = {
        option: Output(None if name is None else place / name, is_ours)
        for option, name in zip(("--out", "--spreadsheet"), names, strict=False)
    }
    with pytest.raises(ConfigError, match=told):
        check_outputs(outputs, [place / "new.csv"], Workspace(place / "run"))


def test_new_places_and_files_of_an_earlier_run_are_taken(place):
    is_ours = has_header("price", "low", "high")
    for name in ("prices.csv", "empty.csv", "later.csv", "run/mine.csv", "folder/prices.csv"):
        check_outputs({"--out": Output(place / name, is_ours)}, [place / "new.csv"], Workspace(place / "run"))
    check_outputs({"--to": Output(place / "model")}, workspace=Workspace(place / "run"))
    for other in (b"sample_id,price\n", b"\x00\xff", b"sample_id,price,low,high,flags\n"):
        (place / "prices.csv").write_bytes(other)
        with pytest.raises(ConfigError, match="was not written by this command"):
            check_outputs({"--out": Output(place / "prices.csv", is_ours)})


@pytest.mark.parametrize(
    "command",
    [
        ["catalog", "demo", "--to", "model/demo"],
        ["catalog", "images-export", "--to", "run/images/all.tar", "-w", "run"],
        ["embed", "fetch", "no-such", "--to", "elsewhere/models"],
        ["ensemble", "pack", "--to", "run/vectors/model", "-w", "run"],
        ["ensemble", "submit", "--out", "new.csv", "-w", "run"],
        ["predict", "new.csv", "--model", "model", "--out", "model/prices.csv"],
        ["predict", "new.csv", "--model", "model", "--out", "new.csv"],
    ],
)
def test_every_command_that_writes_where_it_is_told_to_checks_the_place(place, monkeypatch, command):
    monkeypatch.chdir(place)
    before = sorted(str(path) for path in place.rglob("*"))
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1, done.output
    assert any(told in done.output for told in ("name another", "name one outside")), done.output
    assert sorted(str(path) for path in place.rglob("*")) == before
    assert (place / "new.csv").read_text() == "sample_id,text\n1,tea\n"
