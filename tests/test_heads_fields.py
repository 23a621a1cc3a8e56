import dataclasses

import numpy as np
import pytest

from heads.features.categories import LevelColumns
from heads.features.design import FieldBlock
from heads.features.fields import facts_of, field_table
from heads.features.rows import CategoricalColumn, Rows
from heads.folds.crossfit import crossfit
from heads.registry import make_head
from heads.testing import make_rows
from heads.trees.columns import TreeColumns
from tests.fakes import catalog_table


def table(n_rows=40, **columns):
    rows = [
        {"sample_id": i, "price": 1.0} | {k: v(i) if callable(v) else v for k, v in columns.items()}
        for i in range(n_rows)
    ]
    return catalog_table(rows)


def column(fields, name):
    return fields.X[:, fields.names.index(name)]


@pytest.mark.parametrize(
    "bullets, facts",
    [
        (
            ["Brand: Levis", "Pattern: Solid; Material: Cotton"],
            {"brand": "levis", "pattern": "solid", "material": "cotton"},
        ),
        (["Brand: first", "Brand: second"], {"brand": "first"}),
        (["Made with care", "Time: " + "long prose " * 10, "3: x", ""], {}),
        (None, {}),
    ],
)
def test_bullets_that_state_a_fact_are_read_and_prose_is_not(bullets, facts):
    assert facts_of(bullets) == facts


def test_a_quantity_stands_in_the_column_of_its_unit_and_is_missing_in_the_others():
    fields = field_table(table(quantity=lambda i: 99.0, quantity_unit=lambda i: "g" if i % 2 else "ml"))
    assert column(fields, "log_quantity:g")[1] == pytest.approx(np.log(100))
    assert np.isnan(column(fields, "log_quantity:ml")[1])
    assert column(fields, "log_quantity:ml")[0] == pytest.approx(np.log(100))


@pytest.mark.parametrize(
    "flag, text",
    [
        ("organic", "Organic tea"),
        ("gluten_free", "gluten-free"),
        ("sugar_free", "Sugar Free"),
        ("kosher", "KOSHER"),
    ],
)
def test_flags_are_found_whatever_their_spelling(flag, text):
    fields = field_table(table(text=lambda i: text if i == 3 else "plain inorganic sugar"))
    assert np.flatnonzero(column(fields, f"flag:{flag}")).tolist() == [3]


def test_test_rows_decide_nothing_about_what_becomes_a_column():
    def rows(n_rows):
        return table(
            n_rows,
            numbers=lambda i: [{"value": 2.0, "word": "pieces" if i < 40 else "litres"}],
            bullets=lambda i: ["Brand: a" if i < 40 else "Season: b"],
        )

    alone, together = field_table(rows(40)), field_table(rows(90), 40)
    assert together.names == alone.names
    assert set(together.categories) == set(alone.categories) > {"fact:brand"}
    np.testing.assert_array_equal(together.X[:40], alone.X)


def test_numbers_with_a_frequent_word_become_a_column_and_rare_ones_do_not():
    def numbers(i):
        return [{"value": 15.6, "word": "inch"}] if i < 20 else [{"value": 3.0, "word": f"odd{i}"}]

    fields = field_table(table(numbers=numbers))
    assert [name for name in fields.names if name.startswith("number:")] == ["number:inch"]
    assert column(fields, "number:inch")[0] == pytest.approx(np.log(16.6))
    assert np.isnan(column(fields, "number:inch")[30])


def test_further_columns_of_the_user_reach_the_heads():
    rows = catalog_table(
        [
            {
                "sample_id": i,
                "price": 1.0,
                "numeric:rating": -3.0 if i else None,
                "categorical:shop": "a" if i % 2 else None,
            }
            for i in range(10)
        ]
    )
    fields = field_table(rows)
    assert np.isnan(column(fields, "numeric:rating")[0])
    assert column(fields, "numeric:rating")[1] == pytest.approx(-np.log(4))
    assert fields.categories["categorical:shop"].levels == ("a",)
    assert fields.categories["categorical:shop"].codes.tolist() == [-1, 0] * 5


def rows_of(fields):
    n_rows = len(fields.X)
    return Rows.from_array(np.zeros((n_rows, 1))).__class__(
        Rows.from_array(np.zeros((n_rows, 1))).sample_id, (), fields, {}, np.arange(n_rows)
    )


def test_a_category_too_rare_in_the_training_rows_has_no_column():
    fields = field_table(table(unit=lambda i: "ounce" if i < 30 else "count" if i < 38 else "rare"))
    rows = rows_of(fields)
    block = FieldBlock(min_count=5).fit(rows)
    X = block.transform(rows)
    assert [name for name in block.names_ if name.startswith("unit=")] == ["unit=count", "unit=ounce"]
    assert X[39, [block.names_.index("unit=count"), block.names_.index("unit=ounce")]].tolist() == [0, 0]


def test_a_missing_number_is_the_mean_with_an_indicator():
    fields = field_table(table(value=lambda i: None if i < 10 else float(i)))
    rows = rows_of(fields)
    block = FieldBlock().fit(rows)
    X = block.transform(rows)
    value, missing = block.names_.index("log_value"), block.names_.index("missing:log_value")
    assert X[0, value] == 0
    assert X[:, missing].tolist() == [1.0] * 10 + [0.0] * 30
    assert X[10:, value].mean() == pytest.approx(0, abs=1e-6)


def test_trees_see_missing_numbers_and_levels_as_missing():
    train = rows_of(
        field_table(
            table(value=lambda i: None if i < 10 else float(i), unit=lambda i: "g" if i % 2 else "ml")
        )
    )
    columns = TreeColumns.of(train)
    other = rows_of(field_table(table(unit=lambda i: "new" if i % 2 else "ml")))
    X = columns.values(other, slice(None))
    assert np.isnan(X[:, 0]).all()
    assert np.isnan(X[1, columns.categorical[0]])
    assert X[0, columns.categorical[0]] == columns.levels["unit"]["ml"]


def weights(values):
    """Rows of a catalogue with these numbers in a further column."""
    return catalog_table([{"sample_id": i, "price": 1.0, "numeric:weight": v} for i, v in enumerate(values)])


@pytest.mark.parametrize("odd", [1e39, -1e39, 1e300, -1e300, 1.7e308])
def test_a_number_beyond_single_precision_comes_to_the_edge_of_the_others_and_they_stay_as_they_are(odd):
    usual = np.random.default_rng(0).lognormal(2, 1, 199)
    fields = field_table(weights([*usual, odd]))
    found = column(fields, "numeric:weight")
    np.testing.assert_array_equal(found[:199], column(field_table(weights(usual)), "numeric:weight"))
    middle, spread = np.median(found[:199]), found[:199].std()
    assert 3 < np.sign(odd) * (found[199] - middle) / spread < 5
    assert fields.notes == (
        "weight: 1 of 200 values lie beyond 3.4e+38 and are clipped to the spread of the others",
    )
    assert field_table(weights(usual)).notes == ()


def test_what_a_test_row_holds_does_not_change_how_training_rows_are_clipped():
    usual = [*np.random.default_rng(0).lognormal(2, 1, 50), 1e39]
    alone, together = field_table(weights(usual)), field_table(weights([*usual, 1e300, 5.0]), 51)
    np.testing.assert_array_equal(column(alone, "numeric:weight"), column(together, "numeric:weight")[:51])


def test_a_column_of_nothing_but_such_numbers_is_missing():
    assert np.isnan(column(field_table(weights([1e39, -1e300, None])), "numeric:weight")).all()


@pytest.mark.parametrize("name", ["ridge", "kernel-ridge", "lightgbm", "svr", "sparse"])
def test_heads_learn_from_a_column_in_spite_of_such_numbers(name):
    rng = np.random.default_rng(0)
    weight = rng.lognormal(2, 1, 200)
    log_price = 1 + 0.5 * np.log(weight) + rng.normal(0, 0.1, 200)
    weight[[5, 17]] = 1e39, -1e300
    rows = rows_of(field_table(weights(weight)))
    rows = dataclasses.replace(
        rows, texts=dict.fromkeys(("full", "name"), np.array(["tea", "pot"] * 100, object))
    )
    found = crossfit(make_head(name, {}, 0), rows, log_price, np.arange(200) % 4).oof
    usual = np.abs(weight) < 1e30
    assert np.corrcoef(found[usual], log_price[usual])[0, 1] > 0.8


# ---- further columns -----------------------------------------------------------------------------


def test_numbers_within_the_words_of_a_column_become_columns_by_their_unit():
    disks = ["128GB SSD", "256GB SSD", "1TB HDD", "512GB SSD + 2TB HDD"]
    fields = field_table(table(**{"categorical:disk": lambda i: disks[i % 4]}))
    found = np.expm1(column(fields, "numeric:disk (bytes ssd)")[:4])
    assert found == pytest.approx([128e9, 256e9, np.nan, 512e9], nan_ok=True)
    assert "numeric:disk (bytes hdd)" not in fields.names  # two values only: the category says as much
    assert fields.categories["categorical:disk"].levels == tuple(disks)


def test_training_rows_alone_decide_which_numbers_of_a_column_become_columns():
    def rows(n_rows):
        return table(n_rows, **{"categorical:size": lambda i: f"{i % 7} cm" if i < 40 else f"{i % 7} kg"})

    alone, together = field_table(rows(40)), field_table(rows(90), 40)
    assert alone.names == together.names
    assert "numeric:size (length)" in alone.names


@pytest.mark.parametrize("unknown", [99999.0, -1e9, 1e308])
def test_values_that_stand_for_unknown_are_missing_and_said(unknown):
    ages = [float(20 + i % 50) for i in range(190)]
    fields = field_table(weights([*ages, *[unknown] * 10]))
    found = column(fields, "numeric:weight")
    np.testing.assert_array_equal(found[:190], column(field_table(weights(ages)), "numeric:weight"))
    if abs(unknown) < 1e30:
        assert np.isnan(found[190:]).all()
        assert fields.notes == (
            "weight: 10 of 200 values lie further from the others than those from one another: taken as missing",
        )
    assert np.nanstd(found) < 2 * found[:190].std()


@pytest.mark.parametrize("unknown", [99999.0, -99999.0])
def test_one_value_that_stands_for_unknown_among_a_few_levels_is_missing_and_flattens_nothing(unknown):
    ratings = [float(1 + i % 5) for i in range(239)]
    fields = field_table(weights([*ratings, unknown]))
    found = column(fields, "numeric:weight")
    np.testing.assert_array_equal(found[:239], column(field_table(weights(ratings)), "numeric:weight"))
    assert np.isnan(found[239])
    assert fields.notes[0].startswith("weight: 1 of 240 values lie")


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0] * 50,
        [*[0.0] * 60, *range(1, 300)],
        [float(2021 - i % 40) for i in range(100)],
        [1, 2, 1000] * 30,
        [1, 2, 3, 100] * 30,
        [1, 128, 256, 512] * 30,
        [1, 2, 3, 4, 2000, 9000] * 30,
        [*[0] * 200, 5],
    ],
    ids=["flag", "many zeros", "years", "packs", "counts", "disks", "two kinds", "rare"],
)
def test_usual_values_are_never_set_apart(values):
    assert np.isfinite(column(field_table(weights([float(v) for v in values])), "numeric:weight")).all()


def test_columns_of_levels_are_the_same_sparse():
    rows, _ = make_rows(200)
    codes = np.where(np.arange(200) % 7 == 0, -1, np.arange(200) % 31).astype(np.int32)
    fields = dataclasses.replace(
        rows.fields,
        categories={
            **rows.fields.categories,
            "shop": CategoricalColumn(tuple(f"shop {i}" for i in range(31)), codes),
        },
    )
    levels = LevelColumns.of(fields, 0, min_count=6)
    marked = np.zeros((200, levels.stop), np.float32)
    levels.mark(fields, marked)
    found = levels.sparse(fields)
    np.testing.assert_array_equal(found.toarray(), marked)
    assert found.has_canonical_format
    assert 400 < found.nnz == marked.sum() < 600 - 29  # some levels are too rare
