"""The same products have the same prices, whatever holds them: a frame, a file, mappings; and whatever happens to the folder."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import store
from ensemble import PriceModel
from ensemble.model.answers import BAD_NUMBER, UNKNOWN_CATEGORY
from ensemble.model.tables import read_with_images
from ensemble.serving.products import Products
from ensemble.serving.settings import Limits
from store.errors import CatalogError, PriceError

N_ROWS = 80


def products(n_rows: int = N_ROWS, seed: int = 0) -> pd.DataFrame:
    """Teas whose price is told by words, weight, and three categories that are no words."""
    rng = np.random.default_rng(seed)
    weight, organic = rng.choice([50, 100, 250, 500], n_rows), rng.random(n_rows) < 0.5
    grade = rng.choice([1.0, 2.0, 3.0], n_rows)
    kind = rng.choice(["green", "black", "mint"], n_rows)
    rating, noise = rng.integers(10, 50, n_rows) / 10, rng.uniform(0.9, 1.1, n_rows)
    season = rng.choice(3, n_rows)
    return pd.DataFrame(
        {
            "title": [f"{one} tea {g} g" for one, g in zip(kind, weight, strict=True)],
            "organic": organic,
            "grade": grade,
            "rating": rating,
            "season": pd.to_datetime(["2024-01-01 00:00", "2024-05-01 12:30", "2024-09-01 00:00"])[season],
            "price": np.round(weight * 0.02 * (1 + organic) * grade * (1 + season) * noise, 2),
        }
    )


def unfitted() -> PriceModel:
    return PriceModel(
        text="title",
        numeric=["rating"],
        categorical=["organic", "grade", "season"],
        encoders=[],
        heads=["additive"],
    )


@pytest.fixture(scope="module", params=["frame", "csv"])
def fitted(request, tmp_path_factory) -> SimpleNamespace:
    """A model fitted on a frame or on the same rows as CSV, and its folder."""
    root = tmp_path_factory.mktemp(request.param)
    table = products()
    table.to_csv(root / "train.csv", index=False)
    model = unfitted().fit(table if request.param == "frame" else root / "train.csv")
    model.save(root / "model")
    new = products(12, seed=1).drop(columns="price")
    new.to_csv(root / "new.csv", index=False)
    new.to_parquet(root / "new.parquet")
    return SimpleNamespace(model=model, folder=root / "model", root=root, new=new)


def test_a_frame_a_file_and_mappings_have_the_same_prices_and_no_category_is_unknown(fitted):
    model, new = fitted.model, fitted.new
    expected = model.predict(new, interval=0.9)
    assert (expected["flags"] == "").all()
    for X in (fitted.root / "new.csv", fitted.root / "new.parquet"):
        found = model.predict(X, interval=0.9).to_pandas()
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))
    answers = model.price(new.to_dict("records"))
    assert [(one.price, one.flags) for one in answers] == [(p, ()) for p in expected["price"]]


def test_a_server_takes_categories_as_json_writes_them(fitted):
    model, row = fitted.model, fitted.new.iloc[0]
    asked = Products(model.inputs, Limits(), allow_links=False)

    def priced(organic: str, grade: str):
        content = '{"products": [{"title": "%s", "rating": %s, "organic": %s, "grade": %s}]}'
        cells = (row["title"], row["rating"], organic, grade)
        (product,) = asked.from_json((content % cells).encode())
        (answer,) = model.price([product.cells])
        return answer.price, answer.flags

    expected = priced(f'"{row["organic"]}"', f'"{row["grade"]}"')
    assert expected[1] == ()
    number, truth = int(row["grade"]), str(row["organic"]).lower()
    for organic in (truth, f'"{truth}"'):
        for grade in (f"{number}", f"{number}.0", f'"{number}"'):
            assert priced(organic, grade) == expected
    assert priced('"perhaps"', "2.5")[1] == (UNKNOWN_CATEGORY,)


def test_test_rows_are_ingested_with_the_categories_of_the_training_rows(tmp_path):
    products().to_csv(tmp_path / "train.csv", index=False)
    columns = store.ColumnConfig(text="title", categorical=("organic", "grade"))
    store.ingest(tmp_path / "run", tmp_path / "train.csv", products(12, seed=1), columns=columns)
    tables = [store.read_split(store.Workspace(tmp_path / "run"), split) for split in ("train", "test")]
    for name in ("categorical:organic", "categorical:grade"):
        train, test = (set(table[name].to_pylist()) for table in tables)
        assert test <= train


def test_rows_of_a_frame_as_mappings_may_hold_arrays_and_no_time(fitted):
    row = fitted.new.iloc[0].to_dict()
    (plain, listed, timeless, without) = fitted.model.price(
        [
            row | {"title": ["green tea", "50 g"]},
            row | {"title": np.array(["green tea", "50 g"])},
            row | {"rating": pd.NaT, "organic": pd.NA},
            row | {"rating": None, "organic": None},
        ]
    )
    assert plain == listed
    assert timeless == without
    assert BAD_NUMBER not in timeless.flags


def test_more_rows_may_come_from_another_container(tmp_path):
    table = products()
    table[60:].to_csv(tmp_path / "more.csv", index=False)
    model = unfitted().fit(table[:60])
    model.fit(tmp_path / "more.csv", warm=True)
    together = unfitted().fit(table)
    new = products(12, seed=1)
    np.testing.assert_allclose(model.predict(new), together.predict(new), rtol=1e-9)
    assert model.changed_["new_rows"] == 20


def test_a_line_that_is_no_row_has_its_place_in_every_answer(fitted, tmp_path):
    lines = (fitted.root / "new.csv").read_text().splitlines()
    (tmp_path / "ragged.csv").write_text("\n".join([*lines[:2], "a,b", *lines[2:4], "c", lines[4]]) + "\n")
    predicted = fitted.model.predict(tmp_path / "ragged.csv")
    assert np.isnan(predicted).tolist() == [False, True, False, False, True, False]
    explained = fitted.model.explain(tmp_path / "ragged.csv")
    assert [one.priced.price for one in explained] == [None if np.isnan(p) else p for p in predicted]
    assert "wrong number of fields" in explained[1].priced.reason
    measured = fitted.model.evaluate(tmp_path / "ragged.csv", np.where(np.isnan(predicted), 1.0, predicted))
    assert measured["n_rows"] == 4
    assert measured["smape"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(PriceError, match="got 4 for 6 rows"):
        fitted.model.evaluate(tmp_path / "ragged.csv", np.ones(4))


def test_a_file_without_rows_has_no_prices(fitted, tmp_path):
    (tmp_path / "none.csv").write_text(",".join(fitted.new.columns) + "\n")
    fitted.new.iloc[:0].to_parquet(tmp_path / "none.parquet")
    for name in ("none.csv", "none.parquet"):
        assert fitted.model.predict(tmp_path / name).shape == (0,)
        assert fitted.model.explain(tmp_path / name) == []
    (tmp_path / "train.csv").write_text(",".join(products(1).columns) + "\n")
    with pytest.raises(CatalogError, match="no rows"):
        unfitted().fit(tmp_path / "train.csv")


def test_what_lacks_every_column_is_told_what_the_model_reads(fitted):
    other = pd.DataFrame({"name": ["green tea"], "organisation": ["a"]})
    with pytest.raises(CatalogError, match=r"none of the columns that the model reads \('title', .*'name'"):
        fitted.model.predict(other)
    with pytest.raises(CatalogError, match=r"has no column 'price'.*'price=\.\.\.'") as raised:
        fitted.model.evaluate(fitted.new)
    assert "organic" not in str(raised.value).partition("right one")[2]


def test_a_single_column_may_be_named_without_a_list():
    table = products()
    one = PriceModel(text="title", numeric="rating", categorical="grade", encoders=[], heads=["additive"])
    assert one.fit(table).inputs.numeric == ("rating",)
    assert one.inputs.categorical == ("grade",)


def test_a_loaded_model_does_not_need_its_folder_or_the_current_one(fitted, tmp_path, monkeypatch):
    shutil.copytree(fitted.folder, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    model = PriceModel.load("model")
    expected = fitted.model.predict(fitted.new, interval=0.8)
    shutil.rmtree(tmp_path / "model")
    os.chdir("/")
    pd.testing.assert_frame_equal(model.predict(fitted.new, interval=0.8), expected)
    assert model.score_ == fitted.model.score_


def test_intervals_that_are_asked_for_do_not_fill_the_memory(fitted):
    pricer = fitted.model._pricer
    for interval in np.linspace(0.61, 0.62, 200):
        pricer.intervals(float(interval))
    kept = [one for one in pricer._intervals if 0.605 < one < 0.625]
    assert 10 <= len(kept) <= 12
    exact = fitted.model.predict(fitted.new, interval=0.61)
    near = fitted.model.predict(fitted.new, interval=0.6102)
    np.testing.assert_array_equal(exact["low"], near["low"])


def test_images_may_be_bytes_beside_paths(tmp_path: Path):
    frame = pd.DataFrame({"title": ["a", "b", "c"], "photo": [b"\xff\xd8", "b.jpg", None]})
    source, cells = read_with_images(frame, "photo")
    assert cells == [b"\xff\xd8", "b.jpg", None]
    assert "photo" not in source.columns
    assert read_with_images(frame[:1], "photo")[1] is None
