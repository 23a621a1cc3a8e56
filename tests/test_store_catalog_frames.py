import pandas
import polars
import pyarrow as pa
import pytest

from store.catalog.ingest.run import ingest
from store.catalog.read import catalog_digest, read_split
from store.config import ColumnConfig
from store.errors import CatalogError
from store.workspace import Workspace

ROWS = {
    "sample_id": [3, 1, 2],
    "catalog_content": ["Tea", "Mug", None],
    "price": [4.5, 7.0, 1.0],
    "colour": ["red", "blue", "red"],
}


class OnlyTheInterface:
    """A table of some other library."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make",
    [
        pandas.DataFrame,
        lambda rows: pandas.DataFrame(rows, index=[9, 9, 4]),
        lambda rows: pandas.DataFrame(rows).set_index("sample_id"),
        lambda rows: pandas.DataFrame(rows).astype({"catalog_content": "string", "colour": "category"}),
        polars.DataFrame,
        pa.table,
        lambda rows: OnlyTheInterface(pa.table(rows)),
    ],
    ids=["pandas", "an index", "ids as the index", "pandas types", "Polars", "Arrow", "the interface"],
)
def test_a_frame_gives_the_same_catalogue_as_its_file(tmp_path, make):
    path = tmp_path / "train.csv"
    pandas.DataFrame(ROWS).to_csv(path, index=False)
    ingest(tmp_path / "of-file", str(path))
    report = ingest(str(tmp_path / "of-frame"), make(ROWS))
    of_file, of_frame = (Workspace(tmp_path / name) for name in ("of-file", "of-frame"))
    assert catalog_digest(of_file) == catalog_digest(of_frame)
    assert read_split(of_file, "train").equals(read_split(of_frame, "train"))
    assert report.splits["train"].path == "the train frame"


def test_an_index_without_a_name_is_the_ids_where_no_column_is(tmp_path):
    frame = pandas.DataFrame({"title": ["a", "b"], "price": [1, 2]}, index=[70, 30])
    test = pandas.DataFrame({"title": ["c"]})
    ingest(tmp_path, frame, test, columns=ColumnConfig(text="title"))
    workspace = Workspace(tmp_path)
    assert read_split(workspace, "train")["sample_id"].to_pylist() == [70, 30]
    assert read_split(workspace, "test")["sample_id"].to_pylist() == [1]


@pytest.mark.parametrize(
    "train, message",
    [
        (pandas.DataFrame({"sample_id": [1, "a"]}), "the train frame can't be read as an Arrow table"),
        (pandas.DataFrame({"a": [1]}), "the train frame has no column 'catalog_content'"),
        (pandas.DataFrame(ROWS).iloc[:0], "the train frame has a header but no rows"),
        (pandas.Series([1, 2]), "the train frame can't be read as an Arrow table"),
        (polars.Series([1, 2]), "the train frame can't be read as an Arrow table"),
        ([1, 2], r"train must be a path or a frame \(pandas, Polars, Arrow\), got list"),
    ],
)
def test_what_is_no_catalogue_is_an_error_that_names_it(tmp_path, train, message):
    with pytest.raises(CatalogError, match=message):
        ingest(tmp_path / "w", train)
    assert not (tmp_path / "w").exists()
