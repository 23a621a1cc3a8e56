"""Every line that docs/vectors.md shows is run, on shards and an export made here."""

import importlib
import re
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from store.cli import main
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

TEXT = (Path(__file__).parent.parent / "docs/vectors.md").read_text()
SHARD_LINES, EXPORT_LINES = (
    block.strip().splitlines() for block in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
)
NAMES = [f"tea {i}" for i in range(9)]
X = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float16)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    workspace = Workspace("run")
    rows = [{"sample_id": i, "name": name, "price": 1.0} for i, name in enumerate(NAMES)]
    publish_catalog(workspace, catalog_table(rows))
    publish_vectors(workspace, VectorSet("minilm", "structured"), {"train": X})
    return workspace


def result_of(line, **names):
    tool = re.search(r"(duckdb|polars|pandas|datasets)\.", line)[1]
    library = importlib.import_module(tool)
    if tool == "datasets":
        library.config.HF_DATASETS_CACHE = "cache"
        library.disable_progress_bars()
    return eval(line, {"np": np, "glob": glob, tool: library, **names})


@pytest.mark.parametrize("line", SHARD_LINES)
def test_shards_open_in(line, workspace):
    found = result_of(line, shards="run/vectors/minilm-*/part-*.parquet")
    assert found.dtype == np.float16
    assert sorted(found.tolist()) == sorted(X.tolist())


@pytest.mark.parametrize("line", EXPORT_LINES)
def test_an_export_opens_in(line, workspace):
    for command in (line for line in TEXT.splitlines() if line.startswith("shelfprice embed export")):
        done = CliRunner().invoke(main, command.split()[1:])
        assert done.exit_code == 0, done.output
    rows = result_of(line, exported="exported/minilm@structured")
    vectors = [row[0] if isinstance(row, tuple) else row for row in rows]
    np.testing.assert_array_equal(np.array([list(v) for v in vectors]), X.astype(np.float32))
    assert np.load("minilm.npy").shape == X.shape
    assert Path("minilm.faiss").stat().st_size > X.nbytes
