from pathlib import Path

import numpy as np
import pytest

from store.errors import ConfigError, CorruptFileError, MissingVectorsError
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet
from store.vectors.shard import shard_names
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

NAME = VectorSet("fake", "name")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def rows(names):
    return catalog_table([{"sample_id": i, "name": n, "price": 1.0} for i, n in enumerate(names)])


def test_vectors_come_back_in_catalogue_order_after_the_rows_moved(workspace):
    publish_catalog(workspace, rows(["a", "b", "c"]))
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    publish_vectors(workspace, NAME, {"train": X})
    publish_catalog(workspace, rows(["c", "a", "b", "a"]))
    matrix = load_matrix(workspace, NAME, "train")
    assert matrix.valid.all()
    np.testing.assert_array_equal(matrix.X, X[[2, 0, 1, 0]])


def test_a_row_without_text_keeps_its_place_and_is_not_valid(workspace):
    publish_catalog(workspace, rows(["a", None, "c"]))
    publish_vectors(workspace, NAME, {"train": np.ones((3, 4), np.float32)})
    matrix = load_matrix(workspace, NAME, "train")
    assert matrix.valid.tolist() == [True, False, True]
    assert matrix.X.shape == (3, 4)


def test_a_row_that_was_never_embedded_is_an_error_naming_it_and_the_command(workspace):
    publish_catalog(workspace, rows(["a", "b"]))
    publish_vectors(workspace, NAME, {"train": np.ones((2, 4), np.float32)})
    publish_catalog(workspace, rows(["a", "b", "new"]))
    with pytest.raises(
        MissingVectorsError, match=r"1 of 3 train rows \(first: 2\): run 'shelfprice embed run -e fake@name'"
    ):
        load_matrix(workspace, NAME, "train")


def test_a_damaged_page_is_found_by_its_checksum(workspace):
    publish_catalog(workspace, rows(["a", "b"]))
    spec = publish_vectors(workspace, NAME, {"train": np.full((2, 4), 1.5, np.float32)})
    path = Path(workspace.path(f"{spec.folder}/{shard_names(workspace, spec.folder)[0]}"))
    content = bytearray(path.read_bytes())
    at = content.find(np.full(4, 1.5, "<f2").tobytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="damaged"):
        load_matrix(workspace, NAME, "train")


def test_an_image_set_takes_no_composition():
    with pytest.raises(ConfigError, match="embeds images"):
        VectorSet.parse("efficientnet-lite0@name", "image")


def test_a_matrix_in_a_file_is_read_like_one_in_memory(workspace, tmp_path):
    names = [f"n{i % 40}" if i % 7 else None for i in range(100)]
    publish_catalog(workspace, rows(names))
    X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float16)
    publish_vectors(
        workspace,
        NAME,
        {"train": np.stack([X[i % 40] if i % 7 else np.zeros(4, np.float16) for i in range(100)])},
    )
    held, filed = (
        load_matrix(workspace, NAME, "train"),
        load_matrix(workspace, NAME, "train", folder=tmp_path),
    )
    np.testing.assert_array_equal(filed.valid, held.valid)
    assert filed.X.shape == (100, 4)
    odd = np.arange(100) % 2 == 1
    some = np.array([3, 1, 4, 1, 5])
    for index in (slice(10, 20), odd, some):
        np.testing.assert_array_equal(filed.X[index], held.X[index])
    twice_chosen = filed.rows(odd).rows(some)
    np.testing.assert_array_equal(twice_chosen.X[1:4], held.rows(odd).rows(some).X[1:4])
    np.testing.assert_array_equal(twice_chosen.valid, held.rows(odd).rows(some).valid)
