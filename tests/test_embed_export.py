import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from store.cli import main
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

NAME = VectorSet("fake", "name")
DIM = 8


@pytest.fixture
def workspace(tmp_path):
    """Seven train rows, the third without a name, and three test rows."""
    workspace = Workspace(tmp_path / "workspace")
    names = ["a", "b", None, "d", "e", "a", "g"]
    train = catalog_table([{"sample_id": f"id{i}", "name": n, "price": 1.0} for i, n in enumerate(names)])
    test = catalog_table([{"sample_id": f"id{7 + i}", "name": n} for i, n in enumerate("hij")], priced=False)
    publish_catalog(workspace, train, test)
    publish_vectors(workspace, NAME, {"train": vectors(7, [5]), "test": vectors(3) + 100})
    return workspace


def vectors(n, same_as_first=()):
    X = np.random.default_rng(0).standard_normal((n, DIM)).astype(np.float16).astype(np.float32)
    X[list(same_as_first)] = X[0]
    return X


def export(workspace, *arguments, code=0):
    result = CliRunner().invoke(main, ["embed", "export", *arguments, "-w", workspace.root])
    assert result.exit_code == code, result.output
    return result.output


def test_parquet_has_one_row_a_catalogue_row_and_null_where_there_is_no_vector(workspace, tmp_path):
    output = export(workspace, "-e", "fake@name", "--to", str(tmp_path / "out"))
    assert "7 rows, 6 with a vector of 8" in output
    table = pq.read_table(tmp_path / "out/fake@name/train.parquet")
    assert table["sample_id"].to_pylist() == [f"id{i}" for i in range(7)]
    rows = table["vector"].to_pylist()
    assert rows[2] is None
    kept = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal([rows[i] for i in kept], vectors(7, [5])[kept])
    assert pq.read_metadata(tmp_path / "out/fake@name/test.parquet").num_rows == 3


def test_npy_has_train_before_test_and_nan_where_there_is_no_vector(workspace, tmp_path):
    export(workspace, "-e", "fake@name", "--to", str(tmp_path / "v.npy"))
    X = np.load(tmp_path / "v.npy")
    rows = pq.read_table(tmp_path / "v.rows.parquet")
    assert X.shape == (10, DIM)
    assert X.dtype == np.float32
    assert np.isnan(X[2]).all()
    assert rows["has_vector"].to_pylist() == (~np.isnan(X[:, 0])).tolist()
    np.testing.assert_array_equal(X[7:], (vectors(3) + 100).astype(np.float16))
    assert rows["split"].to_pylist() == ["train"] * 7 + ["test"] * 3


def test_a_faiss_index_finds_the_row_whose_vector_is_asked_for(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(workspace, "-e", "fake@name", "--to", "faiss")
    index = faiss.read_index("fake@name.faiss")
    rows = pq.read_table("fake@name.rows.parquet")
    assert index.ntotal == rows.num_rows == 9
    _, nearest = index.search(vectors(7, [5])[4:5], 1)
    assert rows["sample_id"][int(nearest[0, 0])].as_py() == "id4"


def test_one_file_for_two_sets_is_refused_before_anything_is_written(workspace, tmp_path):
    publish_vectors(workspace, VectorSet("other", "name"), {"train": vectors(7), "test": vectors(3)})
    output = export(workspace, "-e", "fake@name", "-e", "other@name", "--to", str(tmp_path / "v.npy"), code=1)
    assert "one file for 2 vector sets: name one with -e, or pass --to npy" in output
    assert not (tmp_path / "v.npy").exists()


def test_only_what_an_earlier_export_wrote_is_replaced(workspace, tmp_path):
    for to in ("v.npy", "v.faiss", "folder"):
        for _ in range(2):
            export(workspace, "-e", "fake@name", "--to", str(tmp_path / to))
    array, table = tmp_path / "mine.npy", tmp_path / "other/fake@name/test.parquet"
    np.save(array, np.zeros(2))
    table.parent.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), table)
    for to, file in ((array, array), (tmp_path / "other", table)):
        before = file.read_bytes()
        output = export(workspace, "-e", "fake@name", "--to", str(to), code=1)
        assert f"--to {file} is there and was not written by this command" in output
        assert file.read_bytes() == before
    output = export(workspace, "-e", "fake@name", "--to", f"{workspace.root}/vectors", code=1)
    assert "is a place of the workspace's own files" in output


def test_a_set_that_was_never_embedded_names_the_command(workspace, tmp_path):
    output = export(workspace, "-e", "unknown@name", "--to", str(tmp_path / "out"), code=1)
    assert "run 'shelfprice embed run -e unknown" in output
    assert not (tmp_path / "out").exists()
