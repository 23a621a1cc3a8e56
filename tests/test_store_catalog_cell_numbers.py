import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalog.parse.cell_numbers import cell_numbers


@pytest.mark.parametrize(
    "cell, numbers",
    [
        ("8GB", {"bytes": 8e9}),
        ("1.37kg", {"g": 1370}),
        ("15.6 inch", {"length": 15.6 * 0.0254}),
        ("2,499 mAh", {"mah": 2499}),
        ("3 bhk", {"bhk": 3}),
        ("45%", {"%": 45}),
        ("Intel Core i7 2.6GHz", {"after i": 7, "plain": 7, "frequency": 2.6e9}),
        ("1920x1080", {"x": 1920, "after x": 1080, "plain": 1080}),
        ("190Nm@ 2000rpm", {"nm": 190, "rpm": 2000}),
        ("Windows 10", {"after windows": 10, "plain": 10}),
        ("from 3 to 5", {"to": 3, "after to": 5, "plain": 5}),
        ("192.168.0.1 and 12345678901234567", {}),
        ("no number", {}),
    ],
)
def test_numbers_of_a_cell_are_known_by_their_unit_or_the_word_before_them(cell, numbers):
    found = cell_numbers(cell)
    assert {kind: found.get(kind) for kind in numbers} == pytest.approx(numbers)
    assert bool(found) == bool(numbers)


def test_numbers_of_one_unit_are_told_apart_by_their_order_and_by_the_word_that_follows():
    found = cell_numbers("128GB SSD + 1TB HDD")
    assert found == {"bytes": 128e9, "bytes ssd": 128e9, "bytes 2": 1e12, "bytes hdd": 1e12}
    assert set(cell_numbers("1g 2g 3g 4g")) >= {"g", "g 2", "g 3"}
    assert "g 4" not in cell_numbers("1g 2g 3g 4g")


@given(st.text(max_size=60))
def test_any_cell_at_all_is_read_to_finite_numbers(cell):
    assert all(0 <= value < 1e30 for value in cell_numbers(cell).values())
