import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.ingest.run import ingest
from store.catalog.read import catalog_digest, read_split
from store.config import ColumnConfig, load_config
from store.errors import CatalogError
from store.schema import CATALOG_COLUMNS, REJECTED
from store.workspace import Workspace

HEADER = "sample_id,catalog_content,image_link,price"
LENIENT = ColumnConfig(max_rejected=1)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="train.csv", header=HEADER):
        path = tmp_path / name
        path.write_text(f"{header}\n{content}", encoding="utf-8", newline="")
        return str(path)

    return write_file


def files(workspace):
    """Every published file with the time it was written."""
    return {
        name: workspace.filesystem.modified(workspace.path(f"catalog/{name}"))
        for name in workspace.names("catalog")
    }


def rejected(workspace):
    return [
        (r["line"], r["sample_id"], r["reason"])
        for r in workspace.read_table("catalog/rejected.parquet").to_pylist()
    ]


def test_an_ingested_catalogue_is_by_contract(workspace, write):
    train = write('1,"Item Name: Tea, 2 oz\nValue: 2.0\nUnit: Ounce\n",http://x/a.jpg,4.5\n2,,,7\n')
    test = write("3,Mug\n", "test.csv", "sample_id,catalog_content")
    ingest(workspace, train, test)
    table = read_split(workspace, "train")
    assert {name: table.schema.field(name).type for name in CATALOG_COLUMNS} == CATALOG_COLUMNS
    assert table.column_names == ["sample_id", *CATALOG_COLUMNS, "price"]
    assert table["sample_id"].type == pa.int64()
    assert table["price"].to_pylist() == [4.5, 7.0]
    assert table["text"].to_pylist()[1] == ""
    assert table["name"].to_pylist() == ["Tea, 2 oz", None]
    assert table["image_link"].to_pylist() == ["http://x/a.jpg", None]
    assert table["image"].to_pylist() == [None, None]
    assert "price" not in read_split(workspace, "test").column_names
    assert workspace.read_table("catalog/rejected.parquet").schema.equals(REJECTED)
    assert catalog_digest(workspace).count("-") == 1


def test_rows_that_cannot_be_used_are_kept_apart_with_their_line_and_reason(workspace, write):
    train = write(
        '1,"two\nlines",,5\n,no id,,5\n1,again,,5\n4,a,,\n5,a,,cheap\n6,a,,nan\n7,a,,inf\n8,a,,0\n9,a,,-3\n10,a\n'
        '11,"quoted, ""price""",,"12.5"\n12,a,,1_000\n13,a,,1e200\n'
    )
    report = ingest(workspace, train, columns=LENIENT)
    assert read_split(workspace, "train")["sample_id"].to_pylist() == [1, 11]
    assert rejected(workspace) == [
        (4, None, "no id"),
        (5, "1", f"duplicate id: first used on line 2 of {train}"),
        (6, "4", "price is missing"),
        (7, "5", "price is not a number: 'cheap'"),
        (8, "6", "price is NaN"),
        (9, "7", "price is infinite"),
        (10, "8", "price is zero"),
        (11, "9", "price is negative"),
        (12, None, "wrong number of fields: 2 where the header has 4"),
        (14, "12", "price is not a number: '1_000'"),
        (15, "13", "price is beyond 1e+15"),
    ]
    assert report.splits["train"].rejected["price is not a number"] == 2


def test_ids_are_of_their_file_so_that_train_and_test_may_have_the_same(workspace, write):
    train, test = write("1,a,,5\n2,b,,5\n"), write("2,x\n3,y\n", "test.csv", "sample_id,catalog_content")
    report = ingest(workspace, train, test)
    assert read_split(workspace, "train")["text"].to_pylist() == ["a", "b"]
    assert read_split(workspace, "test")["sample_id"].to_pylist() == [2, 3]
    assert rejected(workspace) == []
    assert any("1 ids stand in both files" in note for note in report.notes)


def test_row_numbers_are_no_ids_that_two_files_share(workspace, write):
    train, test = write("a,5\nb,5\n", header="title,price"), write("x\ny\n", "test.csv", "title")
    for columns in (ColumnConfig(text="title"), ColumnConfig(text="title", sample_id="row-number")):
        report = ingest(workspace, train, test, columns=columns)
        assert read_split(workspace, "test")["sample_id"].to_pylist() == [1, 2]
        assert not [note for note in report.notes if "in both files" in note]


def test_a_row_rejected_for_its_price_does_not_take_its_id(workspace, write):
    ingest(workspace, write("1,a,,zero\n1,b,,5\n"), columns=LENIENT)
    assert read_split(workspace, "train")["text"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    "train_ids, test_ids, kind",
    [
        (["1", "2"], ["3"], pa.int64()),
        ([" 1 ", "2"], ["-3"], pa.int64()),
        (["1", "2"], ["B3"], pa.string()),
        (["007", "8"], ["3"], pa.string()),
        (["1", "2"], ["99999999999999999999"], pa.string()),
        (["1.0", "2"], ["3"], pa.string()),
    ],
)
def test_ids_are_integers_only_where_all_of_train_and_test_are(workspace, write, train_ids, test_ids, kind):
    train = write("".join(f"{id},a,,5\n" for id in train_ids))
    test = write("".join(f"{id},a\n" for id in test_ids), "test.csv", "sample_id,catalog_content")
    ingest(workspace, train, test)
    for split, ids in (("train", train_ids), ("test", test_ids)):
        column = read_split(workspace, split)["sample_id"]
        assert column.type == kind
        assert [str(id) for id in column.to_pylist()] == [id.strip() for id in ids]


def test_parquet_with_typed_columns_gives_the_same_catalogue_as_csv(workspace, write, tmp_path):
    ingest(workspace, write("1,a,http://x/1.jpg,5.5,2,red\n2,b,,6,3,red\n", header=HEADER + ",rooms,colour"))
    digest = catalog_digest(workspace)
    table = pa.table(
        {
            "sample_id": pa.array([1.0, 2.0]),
            "catalog_content": pa.array(["a", "b"]).dictionary_encode(),
            "image_link": pa.array(["http://x/1.jpg", None], pa.large_string()),
            "price": pa.array([5.5, 6.0], pa.float32()),
            "rooms": pa.array([2, 3], pa.int8()),
            "colour": ["red", "red"],
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    report = ingest(workspace, str(tmp_path / "train.parquet"))
    assert report.is_unchanged
    assert catalog_digest(workspace) == digest


def test_rejected_rows_of_parquet_carry_their_row_number(workspace, tmp_path):
    table = pa.table(
        {
            "sample_id": [1, None, 3, 4],
            "catalog_content": list("abcd"),
            "price": [1.0, 2.0, None, float("nan")],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    ingest(workspace, str(tmp_path / "t.parquet"), columns=LENIENT)
    assert rejected(workspace) == [(2, None, "no id"), (3, "3", "price is missing"), (4, "4", "price is NaN")]


@pytest.mark.parametrize(
    "ids, kept",
    [
        ([1.0, None, 3.0], [1, 3]),
        ([1.0, float("nan"), float("inf"), 3.0], [1, 3]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([1e300, 2.0], ["1e+300", "2"]),
    ],
)
def test_ids_that_became_floats_are_the_integers_they_were(workspace, tmp_path, ids, kept):
    table = pa.table({"sample_id": ids, "catalog_content": ["a"] * len(ids), "price": [1.0] * len(ids)})
    pq.write_table(table, tmp_path / "t.parquet")
    ingest(workspace, str(tmp_path / "t.parquet"), columns=LENIENT)
    assert read_split(workspace, "train")["sample_id"].to_pylist() == kept
    assert [reason for _, _, reason in rejected(workspace)] == ["no id"] * (len(ids) - len(kept))


def test_column_names_can_be_given_and_are_written_down_once(workspace, write):
    columns = ColumnConfig(sample_id="asin", text="title", image_link="img", price="usd")
    train = write("A1,Tea,,5\nA2,Mug,,6\n", header="asin,title,img,usd")
    assert ingest(workspace, train, columns=columns).config_written
    assert load_config(workspace).columns == columns
    edited = workspace.read_bytes("shelfprice.toml").replace(b"seed = 42", b"seed = 7")
    workspace.publish_bytes("shelfprice.toml", edited)
    assert not ingest(workspace, train, columns=columns).config_written
    assert load_config(workspace).seed == 7


def test_column_names_that_are_given_later_hold_from_then_on(workspace, write):
    ingest(workspace, write("1,a,,5\n"))
    edited = workspace.read_bytes("shelfprice.toml").replace(b"seed = 42", b"seed = 7")
    workspace.publish_bytes("shelfprice.toml", edited)
    renamed = write("A1,Tea,,6\n", header="asin,title,image_link,usd")
    columns = ColumnConfig(sample_id="asin", text="title", price="usd")
    assert ingest(workspace, renamed, columns=columns).config_written
    assert ingest(workspace, renamed).is_unchanged
    config = load_config(workspace)
    assert (config.columns, config.seed) == (columns, 7)


# ---- wrong files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, header, message",
    [
        (
            "1,a,5\n",
            "sample_id,catalog_contents,price",
            r"no column 'catalog_content'.*--text-column catalog_contents",
        ),
        ("1,a,5\n", "id,catalog_content,price", r"no column 'sample_id'.*--id-column"),
        ("1,a\n", "sample_id,catalog_content", r"no column 'price'.*--price-column"),
        (
            "1^a^5\n",
            "sample_id^catalog_content^price",
            r"its columns are 'sample_id\^catalog_content\^price'",
        ),
        (
            "1,a,\n2,b,0\n",
            "sample_id,catalog_content,price",
            r"none of the 2 rows .*1 with price is missing; 1 with",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_before_anything_is_written(
    workspace, write, content, header, message
):
    with pytest.raises(CatalogError, match=message):
        ingest(workspace, write(content, header=header))
    assert not workspace.exists("")


def test_a_test_file_with_the_ids_of_train_keeps_them_for_the_submission(workspace, write):
    train, test = write("0,a,,5\n1,b,,5\n"), write("0,x\n1,y\n", "test.csv", "sample_id,catalog_content")
    ingest(workspace, train, test)
    assert read_split(workspace, "test")["sample_id"].to_pylist() == [0, 1]
    assert read_split(workspace, "test")["text"].to_pylist() == ["x", "y"]


def test_an_image_column_asked_for_by_name_must_be_there(workspace, write):
    with pytest.raises(CatalogError, match=r"no column 'photo'.*--image-column"):
        ingest(workspace, write("1,a,,5\n"), columns=ColumnConfig(image_link="photo"))


# ---- further columns -----------------------------------------------------------------------------


def test_further_columns_are_typed_by_their_values_and_kept_with_a_prefix(workspace, write):
    header = HEADER + ",rooms,colour,note,empty,"
    train = write("1,a,,5,2,red,n1,,0\n2,b,,5,,blue,n2,,1\n3,c,,5,1e3,red,n3,NA,2\n", header=header)
    report = ingest(workspace, train)
    table = read_split(workspace, "train")
    assert table["numeric:rooms"].to_pylist() == [2.0, None, 1000.0]
    assert table["numeric:rooms"].type == pa.float64()
    assert table["categorical:colour"].to_pylist() == ["red", "blue", "red"]
    assert (report.numeric, report.categorical) == (("rooms",), ("colour",))
    assert not [name for name in table.column_names if "note" in name or "empty" in name]
    told = "\n".join(report.notes)
    assert "'note' is left out: 3 distinct values in 3 rows are free text" in told
    assert "'empty' is left out: it is empty" in told
    assert "1 column of" in told


def test_types_are_those_of_train_and_a_wrong_value_in_test_is_missing_and_told(workspace, write):
    train = write("1,a,,5,2,7\n2,b,,5,3,7\n", header=HEADER + ",rooms,code")
    test = write("3,a,many,x\n4,b,4,7\n", "test.csv", "sample_id,catalog_content,rooms,code")
    report = ingest(workspace, train, test, columns=ColumnConfig(categorical=("code",)))
    assert read_split(workspace, "test")["numeric:rooms"].to_pylist() == [None, 4.0]
    assert read_split(workspace, "test")["categorical:code"].to_pylist() == ["x", "7"]
    assert any(
        "'rooms' holds 1 values in test that are no numbers (first: 'many')" in note for note in report.notes
    )


def test_a_column_that_only_one_file_has_is_left_out_and_told(workspace, write):
    train = write("1,a,,5,2\n2,b,,5,2\n", header=HEADER + ",sold")
    test = write("3,a,9,1\n", "test.csv", "sample_id,catalog_content,price,views")
    report = ingest(workspace, train, test)
    told = "\n".join(report.notes)
    for part in ("'sold' is in", "'views' is in", "'price' of"):
        assert part in told
    assert not [n for s in ("train", "test") for n in read_split(workspace, s).column_names if ":" in n]


@pytest.mark.parametrize(
    "columns, message",
    [
        (ColumnConfig(numeric=("size",)), r"--numeric size: line 3 of .* holds 'big'.*--categorical size"),
        (ColumnConfig(numeric=("room",)), r"no column 'room'.*--numeric rooms"),
        (ColumnConfig(numeric=("rooms",), categorical=("rooms",)), "named as --numeric and --categorical"),
        (ColumnConfig(categorical=("price",)), "'price' is the id, text, image or price already"),
    ],
)
def test_a_column_asked_for_that_cannot_be_had_is_an_error(workspace, write, columns, message):
    with pytest.raises(CatalogError, match=message):
        ingest(workspace, write("1,a,,5,2,1\n2,b,,5,3,big\n", header=HEADER + ",rooms,size"), columns=columns)


# ---- digests and running again -------------------------------------------------------------------


def test_ingesting_the_same_again_rewrites_nothing(workspace, write):
    train, test = write("1,a,,5\n2,b,,x\n"), write("3,c\n", "test.csv", "sample_id,catalog_content")
    assert not ingest(workspace, train, test, columns=LENIENT).is_unchanged
    before = files(workspace)
    assert ingest(workspace, train, test).is_unchanged
    assert files(workspace) == before


def test_a_damaged_catalogue_is_replaced_whatever_digest_it_states(workspace, write):
    train = write("1,a,,5\n2,b,,6\n")
    ingest(workspace, train)
    path = Path(workspace.path("catalog/train.parquet"))
    whole = workspace.read_table("catalog/train.parquet")
    stated = whole.schema.metadata
    dearer = whole.set_column(
        whole.schema.get_field_index("price"), whole.schema.field("price"), pa.array([50.0, 6.0])
    )
    for other in (dearer, whole.drop_columns(["text"]), pa.table({"x": [1]})):
        pq.write_table(other.replace_schema_metadata(stated), path)
        assert ingest(workspace, train).splits["train"].change == "changed"
        assert workspace.read_table("catalog/train.parquet").equals(whole)
    path.write_bytes(path.read_bytes()[:-9])
    assert ingest(workspace, train).splits["train"].change == "changed"
    assert ingest(workspace, train).is_unchanged


def test_rows_in_another_order_have_the_same_digest_and_are_stored_in_that_order(workspace, write):
    ingest(workspace, write("1,a,,5\n2,b,,6\n"))
    digest = catalog_digest(workspace)
    report = ingest(workspace, write("2,b,,6\n1,a,,5\n"))
    assert report.splits["train"].change == "reordered"
    assert catalog_digest(workspace) == digest
    assert read_split(workspace, "train")["sample_id"].to_pylist() == [2, 1]


ROW = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["", "u"]),
    st.sampled_from(["1", "2.5"]),
    st.sampled_from(["", "3"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=2, max_size=5), st.lists(ROW, min_size=2, max_size=5), st.randoms())
def test_digests_are_equal_exactly_where_the_rows_are(tmp_path_factory, left, right, shuffle: random.Random):
    folder = tmp_path_factory.mktemp("digest")

    def digest(rows, order, name):
        lines = [f"{i},{','.join(row)}" for i, row in enumerate(rows)]
        if order:
            shuffle.shuffle(lines)
        (folder / name).write_text(f"{HEADER},n\n" + "\n".join(["9,c,,1,1", *lines]))
        return ingest(Workspace(folder / f"{name}-ws"), str(folder / name)).splits["train"].digest

    assert digest(left, False, "l") == digest(left, True, "s")
    assert (digest(left, False, "l") == digest(right, True, "r")) == (left == right)


def test_a_test_split_is_never_left_beside_a_train_file_that_it_was_not_ingested_with(workspace, write):
    train, test = write("1,a,,5\n"), write("3,c\n", "test.csv", "sample_id,catalog_content")
    ingest(workspace, train, test)
    report = ingest(workspace, train)
    assert report.test_removed
    assert not report.is_unchanged
    assert not workspace.exists("catalog/test.parquet")
    assert ingest(workspace, train).is_unchanged
    assert ingest(workspace, train, test).splits["test"].change == "new"


def test_a_changed_train_file_keeps_the_digest_of_an_unchanged_test_file(workspace, write):
    test = write("3,c\n", "test.csv", "sample_id,catalog_content")
    ingest(workspace, write("1,a,,5\n"), test)
    report = ingest(workspace, write("1,a,,6\n"), test)
    assert [report.splits[split].change for split in ("train", "test")] == ["changed", "unchanged"]


def test_parquet_columns_of_any_type_are_read_or_named(workspace, tmp_path):
    columns = {
        "sample_id": pa.array(["a", "b"]).dictionary_encode(),
        "catalog_content": ["x", "y"],
        "price": pa.array(["5", "x"]).dictionary_encode(),
        "fresh": [True, False],
        "tags": [["p"], []],
        "vector": [[0.5], [1.5]],
    }
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table(columns), path)
    report = ingest(workspace, path, columns=LENIENT)
    assert read_split(workspace, "train")["numeric:fresh"].to_pylist() == [1.0]
    assert read_split(workspace, "train")["text"].to_pylist() == ["x\ntags: p"]
    assert any(note.startswith("column 'vector' is left out: it holds list") for note in report.notes)
    assert rejected(workspace) == [(2, "b", "price is not a number: 'x'")]
    pq.write_table(pa.table(columns | {"catalog_content": [["x", "z"], ["y"]]}), path)
    ingest(workspace, path, columns=LENIENT)
    assert read_split(workspace, "train")["text"].to_pylist() == ["x, z\ntags: p"]
    pq.write_table(pa.table(columns | {"sample_id": [["x"], ["y"]]}), path)
    with pytest.raises(CatalogError, match=r"column 'sample_id' holds list.* can't be read as text"):
        ingest(workspace, path)


# ---- prices of test rows, rejected rows, shared images --------------------------------------------


def test_prices_of_test_rows_are_kept_apart_and_go_with_them(workspace, write):
    train = write('1,a,,"1.299,00 €"\n2,b,,5 €\n')
    test = write('8,c,,"2.000,50 €"\n9,d,,\n7,e,,0\n', "test.csv")
    report = ingest(workspace, train, test)
    assert report.splits["test"].n_holdout == 1
    held = workspace.read_table("catalog/holdout.parquet")
    assert held.to_pylist() == [{"sample_id": 8, "price": 2000.5}]
    assert workspace.read_metadata("catalog/train.parquet")["currency"] == "€"
    digest = catalog_digest(workspace)
    without = write("8,c\n9,d\n7,e\n", "test.csv", "sample_id,catalog_content")
    ingest(workspace, train, without)
    assert not workspace.exists("catalog/holdout.parquet")
    assert catalog_digest(workspace) == digest
    ingest(workspace, train, test)
    ingest(workspace, train)
    assert not workspace.exists("catalog/holdout.parquet")


@pytest.mark.parametrize(
    "bad, said",
    [
        (
            lambda i: f"{i},item,,{i}k,blue",
            r"written price 'price' is 100 or more in all of them and at most 99",
        ),
        (lambda i: f"{i},item,,x,red", r"'colour' is 'red' in 100% of them and in 0% of the others"),
        (lambda i: f"{i},{'item ' * 9},,x,blue", r"length of the text is 45 or more in all of them"),
        (lambda i: f"{i},item,,x,blue", r"they stand in lines 101 to 104"),
    ],
)
def test_what_rejected_rows_have_in_common_is_said(workspace, write, bad, said):
    good = [f"{i},item,,{i},blue" for i in range(1, 100)]
    train = write("\n".join([*good, *(bad(i) for i in range(100, 104))]), header=HEADER + ",colour")
    report = ingest(workspace, train)
    assert re.search(
        f"rejected rows differ from the others: .*{said}", report.splits["train"].rejected_differ
    )
    with pytest.raises(CatalogError, match=f"4 of 103 rows of .*--max-rejected 0.01 .*{said}"):
        ingest(workspace, train, columns=ColumnConfig(max_rejected=0.01))


def test_rejected_rows_that_are_like_the_others_are_said_to_be(workspace, write):
    rows = [f"{i},item {i},,{'x' if i % 30 == 7 else i}" for i in range(100)]
    report = ingest(workspace, write("\n".join(rows)), columns=LENIENT)
    assert report.splits["train"].rejected_differ == "rejected rows look like the others"


def test_an_image_named_by_an_id_of_both_files_is_taken_for_neither_and_told(workspace, write, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("1.jpg", "test_2.jpg", "train_2.jpg"):
        (folder / name).write_bytes(name.encode())
    train = write("1,a,,5\n2,b,,6\n")
    test = write("1,x\n2,y\n", "test.csv", "sample_id,catalog_content")
    report = ingest(workspace, train, test, str(folder))
    assert [read_split(workspace, split)["image"].to_pylist() for split in ("train", "test")] == [
        [None, "file:train_2.jpg"],
        [None, "file:test_2.jpg"],
    ]
    assert any(
        re.match(
            r"1 images are named by an id that stands in both files .*first: 1.jpg\): name them train_", note
        )
        for note in report.notes
    )


def test_prices_below_the_lowest_that_is_submitted_are_told(workspace, write):
    report = ingest(workspace, write("1,a,,0.0001\n2,b,,5\n"))
    assert any("1 prices are below the lowest that is submitted" in note for note in report.notes)
