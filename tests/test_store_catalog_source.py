import csv
import gzip
import io
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.ingest.source import read_source
from store.errors import CatalogError


def parquet_whose_column_is_no_text() -> bytes:
    """One bit of a column's name turned, in the schema and wherever else it stands."""
    file = io.BytesIO()
    pq.write_table(pa.table({"some_text": ["a"]}), file, store_schema=False)
    return file.getvalue().replace(b"some_text", b"some\xf4text")


def write(tmp_path, content, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def cells(source):
    return {name: column.to_pylist() for name, column in source.columns.items()}


CELL = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=12)


@settings(deadline=None)
@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans()
)
def test_a_table_written_as_csv_comes_back_with_the_line_of_every_row(
    tmp_path_factory, rows, newline, has_mark
):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    lines = []
    for row in rows:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    content = ("\ufeff" if has_mark else "") + text.getvalue()
    source = read_source(write(tmp_path_factory.mktemp("csv"), content))
    assert cells(source) == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    assert source.lines.tolist() == lines
    assert source.malformed == ()


def test_quotes_commas_newlines_and_formulas_stay_what_they_are(tmp_path):
    source = read_source(
        write(tmp_path, 'id,text\r\n1,"15"" screen,\r\nblack"\r\n2,"=HYPERLINK(""x"")"\r\n3,24" x\r\n')
    )
    assert cells(source)["text"] == ['15" screen,\r\nblack', '=HYPERLINK("x")', '24" x']
    assert source.lines.tolist() == [2, 4, 5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_parted_by_commas_semicolons_or_tabs(tmp_path, delimiter):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["id", "a text", "price"], ["1", "a, b; c\td", "2.5"]])
    assert cells(read_source(write(tmp_path, text.getvalue()))) == {
        "id": ["1"],
        "a text": ["a, b; c\td"],
        "price": ["2.5"],
    }


def test_one_column_is_parted_by_nothing(tmp_path):
    assert cells(read_source(write(tmp_path, "text\na; b\n"))) == {"text": ["a; b"]}


def test_a_carriage_return_inside_a_field_is_no_line(tmp_path):
    source = read_source(write(tmp_path, 'id,text\n1,"a\rb"\n2,c\n'))
    assert cells(source)["text"] == ["a\rb", "c"]
    assert source.lines.tolist() == [2, 3]


def test_a_file_with_carriage_returns_alone_is_read(tmp_path):
    source = read_source(write(tmp_path, "id,text\r1,a\r2,b\r"))
    assert cells(source) == {"id": ["1", "2"], "text": ["a", "b"]}


def test_blank_lines_are_no_rows_and_rows_of_another_length_are_told_with_their_line(tmp_path):
    source = read_source(write(tmp_path, 'id,text\n\n1,"a\nb"\n2\n3,c,d\n\n4,e\n'))
    assert cells(source)["id"] == ["1", "4"]
    assert source.lines.tolist() == [3, 8]
    assert [line for line, _ in source.malformed] == [5, 6]


def test_a_very_long_field_is_read(tmp_path):
    assert cells(read_source(write(tmp_path, f'id,text\n1,"{"x" * 300_000}"\n')))["text"] == ["x" * 300_000]


def test_gzip_is_read_whatever_its_name(tmp_path):
    assert cells(read_source(write(tmp_path, gzip.compress(b"id,text\n1,a\n"))))["text"] == ["a"]


def test_parquet_is_read_whatever_its_name_and_lines_are_row_numbers(tmp_path):
    pq.write_table(
        pa.table({"id": [7, 8], "text": ["a", "b"], "__index_level_0__": [0, 1]}), tmp_path / "train.csv"
    )
    source = read_source(str(tmp_path / "train.csv"))
    assert cells(source) == {"id": [7, 8], "text": ["a", "b"]}
    assert source.lines.tolist() == [1, 2]
    assert source.n_unnamed == 1


def test_columns_without_a_name_are_left_out_and_counted(tmp_path):
    source = read_source(write(tmp_path, ",id,Unnamed: 0,text,\n0,1,9,a,\n"))
    assert cells(source) == {"id": ["1"], "text": ["a"]}
    assert source.n_unnamed == 3


ROWS = "id,text\n1,\u00e9t\u00e9\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"id,text\n", "has a header but no rows"),
        (ROWS.encode("utf-16"), r"is UTF-16 .*iconv -f UTF-16"),
        (ROWS.encode("utf-16-le"), r"not CSV in UTF-8: byte 1 \(line 1\) is zero"),
        (ROWS.encode("latin-1"), r"not UTF-8: byte 10 \(line 2\) is 0xe9.*WINDOWS-1252"),
        # Over one mebibyte, with a character across its end.
        (
            b"id,text\n1,x\n" + f"1,{'é' * 599}\n".encode() * 1000 + b"2,\xff\n",
            r"byte 1201014 \(line 1003\) is 0xff",
        ),
        (ROWS.encode()[:-2], r"cut off at byte 14|byte 13"),
        (b"sep=;\nid;text\n1;\xff\n", r"not UTF-8: byte 16 \(line 3\) is 0xff"),
        (b'id,text\n1,"a"b"\n', r"not CSV: in the row that starts on line 2"),
        (b'id,text\n1,a\n2,"b\nc\n', r"row that starts on line 3: unexpected end of data"),
        (b"id,text,text\n1,a,b\n", "two columns named 'text'"),
        (b"PK\x03\x04" + b"\0" * 30, "spreadsheet or archive"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"not UTF-8: byte 0 \(line 1\) is 0x89"),
        (b"GIF89a\0\0\n", "is zero, as in UTF-16 or a binary file"),
        (b"PAR1 and nothing", "damaged Parquet"),
        (parquet_whose_column_is_no_text(), "damaged Parquet"),
        (gzip.compress(b"id,text\n1,a\n" * 99, mtime=0)[:-20], "damaged gzip"),
    ],
)
def test_a_wrong_file_is_one_error_that_says_where_and_what_to_do(tmp_path, content, message):
    with pytest.raises(CatalogError, match=message):
        read_source(write(tmp_path, content))


def test_a_file_that_is_not_there_or_a_folder_is_an_error(tmp_path):
    with pytest.raises(
        CatalogError, match=r"can't read .*none.csv: No such file or directory: check the path"
    ):
        read_source(str(tmp_path / "none.csv"))
    with pytest.raises(CatalogError, match="Is a directory"):
        read_source(str(tmp_path))


def test_a_pipe_is_an_error_that_says_what_to_do_and_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(CatalogError, match=r"train.csv is a pipe or a device, .*: write it to a file"):
        read_source(str(tmp_path / "train.csv"))


def test_a_missing_column_is_named_with_the_nearest_one_and_the_option(tmp_path):
    source = read_source(write(tmp_path, "Sample_ID,text\n1,a\n"))
    with pytest.raises(
        CatalogError,
        match=r"no column 'sample_id', its columns are 'Sample_ID', 'text'.*--id-column Sample_ID",
    ):
        source.require("sample_id", "--id-column")
    with pytest.raises(CatalogError, match=r"'--price-column NAME'"):
        source.require("price", "--price-column")
    wide = read_source(write(tmp_path, ",".join(f"c{at}" for at in range(75)) + "\n" + "1," * 74 + "1\n"))
    with pytest.raises(CatalogError, match=r"'c19' and 55 more: name the right one"):
        wide.require("price", "--price-column")
