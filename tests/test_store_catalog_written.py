import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.ingest.prices import price_values, read_prices
from store.catalog.parse.currencies import currency_of
from store.catalog.parse.html import without_html
from store.catalog.parse.written import Convention, find_convention, number_of, parse_number

CENTS = st.integers(1, 10**9)


def written(cents: int, decimal: str, thousands: str) -> str:
    whole, part = divmod(cents, 100)
    grouped = f"{whole:,}".replace(",", thousands)
    return f"{grouped}{decimal}{part:02}"


@settings(deadline=None)
@given(
    st.lists(CENTS, min_size=1, max_size=20),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (",", "\u00a0"), (".", "'"), (".", ""), (",", "")]),
    st.sampled_from(["{}", "{} €", "€{}", "€ {}", "EUR {}", " {}\u00a0EUR "]),
)
def test_prices_written_in_any_convention_are_read_back(cents, marks, sign):
    cells = [sign.format(written(one, *marks)) for one in cents]
    column = pa.chunked_array([pa.array(cells)])
    reading = read_prices(column, "price")
    assert price_values(column, "price", reading) == pytest.approx([one / 100 for one in cents])
    assert reading.currency is None or currency_of(reading.currency) == "€"


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=20))
def test_prices_as_programs_write_them_are_read_exactly(values):
    values = [*values, 0.5]
    column = pa.chunked_array([pa.array([repr(value) for value in values])])
    assert price_values(column, "price", read_prices(column, "price")) == values


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_cell_at_all_is_a_price_or_a_reason(cell):
    column = pa.chunked_array([pa.array([cell, "1,5", "2.500,00"])])
    (first, *_) = price_values(column, "price", read_prices(column, "price"))
    assert isinstance(first, float) or first.startswith("price is ")


@pytest.mark.parametrize(
    "cores, decimal, is_sure",
    [
        (["1,299.00"], ".", True),
        (["1.299.000", "5"], ",", True),
        (["4,5"], ",", True),
        (["0,125"], ",", True),
        (["1234,567"], ",", True),
        (["1,299", "499"], ".", True),
        (["1,299"], ".", False),
        (["1,370", "2", "3"], ",", False),
        (["1.370", "2", "3"], ".", False),
        (["82,000", "110,500", "1,200", "320", "5", "0"], ".", True),
        (["5", "7"], ".", True),
        ([], ".", True),
    ],
)
def test_the_convention_is_found_from_the_column_as_a_whole(cores, decimal, is_sure):
    assert find_convention(cores) == Convention(decimal, is_sure)


@pytest.mark.parametrize("core", ["1,29.00", "1,2345", "1.299.00", "1,299,00", "12,34,567.5.5", "1 2"])
def test_marks_that_do_not_fit_are_no_number(core):
    assert number_of(core, Convention(".")) is None


def test_a_number_that_no_float_holds_is_none():
    assert parse_number("9" * 10_000) is None
    assert number_of("9" * 10_000, Convention(".")) is None


@pytest.mark.parametrize(
    "text, plain",
    [
        ("<ul><li>red</li><li>blue</li></ul>", "red\nblue"),
        ("<P CLASS='x'>a</P ><IMG src=\"b\">b", "a\nb"),
        ("&lt;p&gt;a &amp;amp; b&lt;/p&gt;", "a & b"),
        ("x&nbsp;&#39;y&#x27; &bogus; AT&T", "x 'y' &bogus; AT&T"),
        ("<script>alert('x')</script>a<!-- b -->", "a"),
        ("5 < 6 > 4, <a4 paper>, i <3 u", "5 < 6 > 4, <a4 paper>, i <3 u"),
        ("a  \n\n b", "a  \n\n b"),
    ],
)
def test_tags_go_and_entities_are_read(text, plain):
    assert without_html(text) == plain
