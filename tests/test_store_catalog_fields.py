import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalog.parse.fields import MOST_NUMBERS, field_columns, parse_fields
from store.catalog.parse.units import normalise
from store.schema import CATALOG_COLUMNS

OUNCE, FLUID_OUNCE, POUND = 28.349523125, 29.5735295625, 453.59237


def row(name, value=None, unit=None):
    lines = f"Value: {value}\nUnit: {unit}\n" if unit is not None else ""
    return f"Item Name: {name}\n{lines}"


@pytest.mark.parametrize(
    "name, pack_count",
    [
        ("Bramble tea, Pack of 3", 3),
        ("Bramble tea (Pack of 12)", 12),
        ("Bramble tea, pack of six", 6),
        ("Bramble tea 3 Pack", 3),
        ("Bramble tea 2-Pack", 2),
        ("Bramble tea, 4 pk", 4),
        ("Bramble tea - Pack 6", 6),
        ("Bramble tea (Pack - 2)", 2),
        ("Bramble tea Twin Pack", 2),
        ("Bramble bars, 24 Count", 24),
        ("Bramble bars, 12 ct", 12),
        ("Bramble bars, Case of 12", 12),
        ("Bramble bars - 8 per case.", 8),
        ("Bramble bars, 18/Carton", 18),
        ("Bowls, Set of 2", 2),
        ("Bramble soda 6 x 330 ml", 6),
        ("Bramble soda 12x24 OZ", 12),
        ("Bramble soda, 330ml x 4", 4),
        ("Bramble socks 5 Pairs, Pack of 5", 5),
        ("Bramble rolls, 2 dozen", 24),
        ("Bramble bar, 4 Count (Pack of 6)", 6),
        ("Bramble tea", 1),
        ("Bramble tea, 16 oz", 1),
        ("Bramble phone 5G 2021", 1),
        ("Bramble ring 18 ct gold", 1),
        ("Bramble 7 flavour mix", 1),
        ("Bramble Tablets | 6 x 30 ct", 6),
        ("Bramble Omega 3 Softgels", 1),
        ("Bramble Omega 3 60 Softgels", 60),
    ],
)
def test_a_pack_count_is_read_however_it_is_written(name, pack_count):
    assert parse_fields(row(name)).pack_count == pack_count


@pytest.mark.parametrize(
    "name, value, unit, amount, dimension",
    [
        # The lines are the total.
        ("Oat milk, 8 Fl Oz (Pack of 27)", 216.0, "Fl Oz", 216 * FLUID_OUNCE, "ml"),
        ("Mustard 150g - Pack of 2", 10.58, "Ounce", 10.58 * OUNCE, "g"),
        ("Bars, 2.4 Ounce, 12 Count", 28.8, "Ounce", 28.8 * OUNCE, "g"),
        ("Pouches (40) 6-fl.-oz., 2 Pack", 480.0, "Fl Oz", 480 * FLUID_OUNCE, "ml"),
        ("Sardines - 6 Pack", 25.5, "Ounce", 25.5 * OUNCE, "g"),
        ("Bulk 24 Pack, candy bars, 33.6 Oz", 33.6, "Ounce", 33.6 * OUNCE, "g"),
        ("Green tea (50 tea bags) - 3 Pack", 150.0, "Count", 150, "count"),
        # The lines are one item.
        ("Lunch, 10.7 Ounce - 8 per case.", 10.7, "Ounce", 85.6 * OUNCE, "g"),
        ("Flour 2.2LB (1kg) - 10 Bags of 2.2 Pound", 35.2, "Ounce", 22 * POUND, "g"),
        ("Black tea 20-Count Box (Pack of 6)", 20.0, "COUNT", 120, "count"),
        # The lines are a filler, or wrong.
        ("Popcorn kernels - 12.5lbs bag", 1.0, "Ounce", 12.5 * POUND, "g"),
        ("Snack mix, 1.75 Ounce (Pack of 64)", 10752.0, "Ounce", 112 * OUNCE, "g"),
        ("Pickle chips, 16 FL OZ", 16.0, "Count", 16 * FLUID_OUNCE, "ml"),
        ("Trail mix, 1.5 oz, 16 ct", 16.0, "Ounce", 24 * OUNCE, "g"),
        # The lines count, the title weighs.
        ("Pepper, 16 oz (Pack of 6)", 6.0, "Count", 96 * OUNCE, "g"),
        ("Canola oil, 32 oz.", 6.0, "Count", 192 * OUNCE, "g"),
        ("200+ dried leaves, 2.6oz (75g)", 200.0, "Count", 2.6 * OUNCE, "g"),
        ("Honey, 24 oz, 3-count", 3.0, "Count", 72 * OUNCE, "g"),
        # No lines.
        ("Beans 16 oz (Pack of 12)", None, None, 192 * OUNCE, "g"),
        ("Soda 6 x 330 ml", None, None, 1980, "ml"),
        ("Soap [Pack of 2] (2 x 100 g)", None, None, 200, "g"),
        ("Millet 1kg (500g x 2 Packs)", None, None, 1000, "g"),
        ("Chips 24-1 Ounce Bags", None, None, 24 * OUNCE, "g"),
        ("Leaves, 1/4 lb", None, None, POUND / 4, "g"),
        ("Leaves, 1 1/2 lb", None, None, POUND * 1.5, "g"),
        ("Oil 1,5 l", None, None, 1500, "ml"),
        ("Rice 1,000 g", None, None, 1000, "g"),
        ("Crew socks Pack of 3", None, None, 3, "count"),
        ("Omega 3 Softgels (120 Count)", None, None, 120, "count"),
        ("Omega 3-6-9 Softgels, 90 ct", None, None, 90, "count"),
        ("Capsules, Omega 3, 60-Count, Case of 2", None, None, 120, "count"),
        ("Vitamin B 12 Tablets, 2 x 60 ct", None, None, 120, "count"),
        ("Vitamin D3 Drops 6 x 30 ml", None, None, 180, "ml"),
        ("Stage 2 Jars, 4 oz, 12 Count", None, None, 48 * OUNCE, "g"),
    ],
)
def test_quantity_is_the_total_over_the_pack(name, value, unit, amount, dimension):
    fields = parse_fields(row(name, value, unit))
    assert (fields.quantity_unit, fields.quantity) == (dimension, pytest.approx(amount, rel=0.01))


@pytest.mark.parametrize(
    "name",
    [
        "Crisp bar with 15g protein and 2g Sugar",
        "Phone 5G",
        "Diaper pants for babies of 9-14 kg",
        "Trolley, 150 Kg Load Capacity",
        "T-Shirt 5.4 oz Cotton",
        "Plain shirt",
        "",
    ],
)
def test_numbers_that_measure_something_else_are_no_quantity(name):
    fields = parse_fields(name)
    assert (fields.quantity, fields.quantity_unit) == (None, None)


def test_every_line_of_a_row_lands_in_its_field():
    fields = parse_fields(
        "Item Name: Bramble 15.6 inch stand\nBullet Point 1: Sturdy\nBullet Point 2: Holds: 4 phones\n"
        "goes on here\nProduct Description: For desks.\nIn oak.\nValue: 2.0\nUnit: Fl. Oz\n"
    )
    assert fields.name == "Bramble 15.6 inch stand"
    assert fields.bullets == ["Sturdy", "Holds: 4 phones\ngoes on here"]
    assert fields.description == "For desks.\nIn oak."
    assert (fields.value, fields.unit) == (2.0, "fl oz")
    assert fields.numbers == [(15.6, "inch"), (4.0, "phones")]


def test_value_nan_and_unit_none_are_missing():
    fields = parse_fields("Item Name: Bramble film\nValue: nan\nUnit: None\n")
    assert (fields.value, fields.unit, fields.quantity) == (None, None, None)


def test_free_text_has_its_first_line_for_a_name_and_the_rest_for_a_description():
    fields = parse_fields("\n4 bedrooms, 2 baths\nQuiet street.\n\nGarden of 300 sqm")
    assert fields.name == "4 bedrooms, 2 baths"
    assert fields.description == "Quiet street.\nGarden of 300 sqm"
    assert fields.numbers == [(4.0, "bedrooms"), (2.0, "baths"), (300.0, "sq m")]
    assert parse_fields("Garlic press").name == "Garlic press"


def test_numbers_of_the_title_that_are_sizes_or_counts_are_not_listed_again():
    assert parse_fields('Laptop 15.6" with 16 GB, 2 Pack, 330 ml').numbers == [(15.6, "inch"), (16.0, "gb")]


@pytest.mark.parametrize(
    "spelling, name",
    [
        ("Ounce", "ounce"),
        ("OZ", "ounce"),
        ("Fl. Oz", "fl oz"),
        ("fluid  Ounces", "fl oz"),
        ("COUNT", "count"),
        ("Each", "count"),
        ("lb", "pound"),
        ("Grams", "gram"),
        ("Litre", "liter"),
        ("bottle", "bottle"),
        ("Sq Ft", "sq ft"),
    ],
)
def test_units_have_one_spelling(spelling, name):
    unit = normalise(spelling)
    assert unit is not None
    assert unit.name == name


@pytest.mark.parametrize("spelling", ["None", "", "---", "8", "nan"])
def test_what_is_no_unit_is_none(spelling):
    assert normalise(spelling) is None


@pytest.mark.parametrize("written", ["85 m2", "85m²", "85 sqm", "85 SQ M", "85 sq. m"])
def test_an_area_is_one_number_however_it_is_written(written):
    assert parse_fields(f"Sunny flat, {written}, 2 baths").numbers == [(85.0, "sq m"), (2.0, "baths")]


def test_a_length_in_metres_keeps_its_word():
    assert parse_fields("Garden hose 10 m").numbers == [(10.0, "meter")]


@pytest.mark.parametrize(
    "text",
    [
        f"Item Name: Soap {'9' * 400} oz, pack of 3",
        f"Item Name: Soap\nBullet Point 1: {'9' * 400} bubbles\nValue: {'9' * 400}\nUnit: Ounce",
    ],
)
def test_a_run_of_digits_too_long_for_an_amount_is_no_number(text):
    fields = parse_fields(text)
    assert (fields.value, fields.numbers) == (None, [])
    assert fields.quantity in (None, 3.0)


def test_columns_are_by_contract():
    columns = field_columns(["Item Name: Tea, 2 Pack, 4 bags of joy", "", "free"])
    for name, array in columns.items():
        assert array.type == CATALOG_COLUMNS[name], name
    assert set(CATALOG_COLUMNS) - set(columns) == {"text", "image_link", "image"}
    assert columns["pack_count"].to_pylist() == [2.0, 1.0, 1.0]
    assert columns["name"].to_pylist() == ["Tea, 2 Pack, 4 bags of joy", None, "free"]


ALPHABET = string.ascii_letters + string.digits + " .,-/()x×%\"':\n\r\0éİ½٣"
PIECES = st.sampled_from(
    [
        *"0159.,-/() \n",
        "pack of ",
        "3",
        "12x",
        "oz",
        " fl oz",
        "kg",
        " x ",
        "Value: ",
        "Unit: ",
        "Item Name: ",
    ]
)


@given(st.one_of(st.text(ALPHABET), st.text(), st.lists(PIECES).map("".join)))
def test_any_text_at_all_parses(text):
    fields = parse_fields(text)
    assert fields.pack_count >= 1
    assert fields.quantity is None or fields.quantity > 0
    assert (fields.quantity is None) == (fields.quantity_unit is None)
    assert len(fields.numbers) <= MOST_NUMBERS


WORDS = st.text(string.ascii_lowercase + " ", min_size=1).map(str.strip).filter(bool)


@given(
    WORDS,
    st.lists(WORDS, max_size=5),
    WORDS,
    st.floats(0.01, 1e6),
    st.sampled_from(["ounce", "fl oz", "count"]),
)
def test_a_row_of_the_challenge_comes_back_as_it_was_put_together(name, bullets, description, value, unit):
    lines = [f"Item Name: {name}", *(f"Bullet Point {i}: {b}" for i, b in enumerate(bullets, 1))]
    lines += [f"Product Description: {description}", f"Value: {value}", f"Unit: {unit}", ""]
    fields = parse_fields("\n".join(lines))
    assert (fields.name, fields.bullets, fields.description) == (name, bullets, description)
    assert (fields.value, fields.unit) == (pytest.approx(value), unit)


@given(st.integers(2, 48), st.integers(1, 60))
def test_listing_the_total_or_one_item_or_nothing_gives_the_same_quantity(packs, ounces):
    name = f"Bramble beans, {ounces} oz (Pack of {packs})"
    written = [
        row(name),
        row(name, float(ounces * packs), "Ounce"),
        row(name, float(ounces), "Ounce"),
        row(name, float(packs), "Count"),
    ]
    for text in written:
        fields = parse_fields(text)
        assert fields.quantity == pytest.approx(ounces * packs * OUNCE, rel=0.05)
        assert fields.pack_count == packs


@pytest.mark.parametrize(
    "text, quantity",
    [
        ("soup 5 g " * 130_000, 5.0),
        ("1 pack " * 37_000, None),
        ("1 pack" + " " * 262_144 + "x", None),
        ("pack 2" + " " * 262_144 + "x", None),
        ("Item Name: soup 5 g\nProduct Description: a" + "\na" * 2_000_000, 5.0),
        ("Item Name: soup 5 g\n" + "Product Description: a\n" * 60_000, 5.0),
        ("9" * 500_000 + " g", None),
    ],
    ids=["sizes", "packs", "blanks", "blanks after a number", "lines", "descriptions", "digits"],
)
def test_a_cell_that_someone_filled_up_is_read_in_time_that_is_linear(text, quantity):
    fields = parse_fields(text)
    assert fields.quantity == quantity
    assert len(fields.numbers) <= MOST_NUMBERS
