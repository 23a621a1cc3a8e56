"""Real tables, where they are at hand: they are others' data and no part of the project."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from ensemble.audit.run import run_audit
from store.catalog.ingest.run import ingest
from store.config import ColumnConfig, Config
from store.folds.assign import ensure_folds
from store.workspace import Workspace

TABLES = Path(os.environ.get("SHELFPRICE_BENCH_DATA", "data")) / "tables"
COLUMNS = {
    "laptops": ColumnConfig(sample_id="laptop_ID", text="title", price="Price_euros"),
    "cars": ColumnConfig(sample_id="car_id", text="name", price="selling_price"),
    "wine": ColumnConfig(sample_id="wid", text="name"),
    "airbnb": ColumnConfig(sample_id="id", text="name"),
}
NUMBERS = {
    "laptops": {"Inches", "Ram", "Weight"},
    "cars": {"year", "km_driven", "mileage", "engine", "max_power", "seats"},
    "wine": {"size-mL", "critic_score"},
    "airbnb": {
        *(f"last_review ({part})" for part in ("year", "month", "weekday", "age in days")),
        *("latitude", "longitude", "minimum_nights", "number_of_reviews", "reviews_per_month"),
        *("calculated_host_listings_count", "availability_365", "number_of_reviews_ltm"),
    },
}


@pytest.fixture(params=COLUMNS)
def table(request):
    folder = TABLES / request.param
    if not (folder / "train.csv").is_file():
        pytest.skip(
            f"{folder}/train.csv is not there; SHELFPRICE_BENCH_DATA names the folder of real catalogues"
        )
    return request.param


def test_columns_of_real_tables_are_numbers_where_they_are_and_no_row_is_refused(table, tmp_path):
    train, test = (str(TABLES / table / f"{split}.csv") for split in ("train", "test"))
    report = ingest(tmp_path / "w", train, test, columns=COLUMNS[table])
    assert set(report.numeric) == NUMBERS[table]
    assert not any(split.rejected for split in report.splits.values())


def test_random_splits_of_real_tables_raise_no_alarm_of_the_audit(table, tmp_path):
    with open(TABLES / table / "train.csv", encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    alarms = []
    for seed in range(5):  # with four tables 20
        order = np.random.default_rng(seed).permutation(len(rows))
        parts = {"train": order[len(rows) // 5 :], "test": order[: len(rows) // 5]}
        for split, chosen in parts.items():
            with open(tmp_path / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *(rows[i] for i in chosen)])
        workspace = Workspace(tmp_path / f"w{seed}")
        ingest(workspace, str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), columns=COLUMNS[table])
        ensure_folds(workspace, Config())
        alarms += [
            (seed, check["name"], check["words"])
            for check in run_audit(workspace, [])["checks"]
            if check["verdict"] in ("caution", "fail")
        ]
    if table == "wine":  # its ids are in the order of the price
        assert sum(name == "ids and order" for _, name, _ in alarms) == 5
        alarms = [alarm for alarm in alarms if alarm[1] != "ids and order"]
    assert alarms == []
