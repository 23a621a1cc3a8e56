import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.parse.compose import COMPOSITIONS, compose
from store.vectors.content import text_keys
from tests.fakes import catalog_table

TEXT = st.one_of(st.none(), st.sampled_from(["", "tea", "Grüner Tee", "a. b", " "]))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXT,
            "name": TEXT,
            "bullets": st.one_of(st.none(), st.lists(TEXT, max_size=3)),
            "description": TEXT,
            "value": st.one_of(st.none(), st.sampled_from([0.0, 12.0, 0.1, 1e7, 123456.789, 1 / 3])),
            "unit": TEXT,
            "pack_count": st.one_of(st.none(), st.sampled_from([1.0, 2.0, 2.5, 1e6])),
        }
    ),
    max_size=12,
)


def structured(row):
    """The composition, written out for one row."""
    parts = []
    if row["value"] is not None:
        parts.append(f"{row['value']:g} {row['unit']}" if row["unit"] else f"{row['value']:g}")
    if row["pack_count"] is not None and row["pack_count"] > 1:
        parts.append(f"pack of {row['pack_count']:g}")
    parts += [part for part in (row["name"], *(row["bullets"] or ()), row["description"]) if part]
    return ". ".join(parts) or None


@settings(deadline=None)
@given(ROWS)
def test_compositions_of_a_batch_are_those_of_each_row(rows):
    table = catalog_table([{"sample_id": i} | row for i, row in enumerate(rows)], priced=False)
    for batch in (table, *table.to_batches()):
        assert compose("structured", batch).to_pylist() == [structured(row) for row in rows]
        assert compose("name", batch).to_pylist() == [row["name"] or None for row in rows]
        assert compose("full", batch).to_pylist() == [row["text"] or None for row in rows]


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_slice_of_a_table_is_composed_as_its_rows_are(composition):
    rows = [
        {"sample_id": i, "name": f"n{i}", "text": f"t{i}", "bullets": [f"b{i}"], "value": i} for i in range(9)
    ]
    table = catalog_table(rows, priced=False)
    assert compose(composition, table.slice(4, 3)).equals(compose(composition, table).slice(4, 3))


@given(st.lists(st.one_of(st.none(), st.text(max_size=8))), st.integers(0, 3))
def test_a_key_is_the_first_half_of_the_digest_of_the_text(texts, start):
    keys = text_keys(pa.array(texts, pa.string()).slice(start)).to_pylist()
    expected = [hashlib.sha256(text.encode()).digest()[:16] if text else None for text in texts[start:]]
    assert keys == expected
