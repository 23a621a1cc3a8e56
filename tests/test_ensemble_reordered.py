"""Scores, report and intervals of a workspace are of the right rows: in another order, with weights, of groups, in time."""

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

import ensemble
import heads
import store
from ensemble.blend import read_blend
from ensemble.groups import bootstrap_interval
from ensemble.report.facts import _inside, make_facts
from ensemble.report.rows import read_rows
from store.config import Config, EmbedConfig, HeadConfig
from store.errors import FoldMismatchError
from store.metric import smape

CONFIG = Config(embed=EmbedConfig(vectors=()), heads=HeadConfig(run=("additive",), vectors=()))


def teas(n_rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    weight, seller = rng.choice([50, 100, 250, 500], n_rows), rng.integers(0, 25, n_rows)
    return pd.DataFrame(
        {
            "sample_id": np.arange(n_rows) + 1000 * seed,
            "catalog_content": [f"tea {g} g, lot {rng.integers(10**6)}" for g in weight],
            "seller": [f"seller {one}" for one in seller],
            "date": (pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300, n_rows), "D")).astype(
                str
            ),
            "price": np.round(weight * 0.02 * np.exp(rng.normal(0, 0.2, n_rows)), 2),
        }
    )


def blended(root, **columns) -> store.Workspace:
    workspace = store.Workspace(root / "run")
    teas(150, 1).to_csv(root / "train.csv", index=False)
    teas(30, 2).drop(columns="price").to_csv(root / "test.csv", index=False)
    store.save_config(workspace, CONFIG)
    given = store.ColumnConfig(**columns)
    store.ingest(workspace, root / "train.csv", root / "test.csv", columns=given)
    heads.train_heads(workspace)
    ensemble.make_blend(workspace)
    ensemble.write_submission(workspace)
    return workspace


def test_a_training_file_in_another_order_keeps_every_row_its_own_price(tmp_path):
    workspace = blended(tmp_path)
    before = read_rows(workspace)
    teas(150, 1).sample(frac=1, random_state=0).to_csv(tmp_path / "shuffled.csv", index=False)
    store.ingest(workspace, tmp_path / "shuffled.csv", tmp_path / "test.csv")
    after = read_rows(workspace)
    assert after.training.sample_id != before.training.sample_id
    of_id = dict(zip(before.training.sample_id.to_pylist(), before.log_price, strict=True))
    assert [of_id[one] for one in after.training.sample_id.to_pylist()] == after.log_price.tolist()
    assert after.loss.mean() == pytest.approx(after.record["scores"]["nested"])
    score = ensemble.make_blend(workspace)
    price = store.read_split(workspace, "train", ["price"])["price"].to_numpy()
    assert smape(price, np.exp(score.log_price)) == pytest.approx(score.smape)


def test_the_report_says_of_which_groups_the_score_is(tmp_path):
    workspace = blended(tmp_path, group="seller")
    known = read_blend(workspace)["scores"]["expected"]["known_groups"]
    assert known > 0.5
    sentence = make_facts(workspace, CONFIG, seconds=0)["score"]["sentence"]
    assert sentence.startswith("On rows of new groups, expect")
    assert f"not the score of the {known:.0%} of test rows" in sentence


def test_where_folds_look_back_so_do_the_intervals_of_the_report(tmp_path):
    workspace = blended(tmp_path, time="date")
    rows = read_rows(workspace)
    inside = _inside(rows)
    first = rows.training.fold == rows.training.fold.min()
    assert rows.training.looks_back
    assert np.isnan(inside).tolist() == first.tolist()
    assert np.nanmean(inside) == pytest.approx(read_blend(workspace)["intervals"]["measured_coverage"])
    slices = make_facts(workspace, CONFIG, seconds=0)["slices"]
    covered = [one["covered"] for of_dimension in slices for one in of_dimension["slices"]]
    assert covered
    assert all(one is None or 0 <= one <= 1 for one in covered)


def test_two_folds_in_order_of_time_of_an_earlier_version_are_refused_with_the_command(tmp_path):
    workspace = blended(tmp_path, time="date")
    folds = workspace.read_table("folds.parquet")
    two = folds.set_column(
        folds.column_names.index("fold"),
        "fold",
        pc.min_element_wise(folds["fold"], 1).cast(folds["fold"].type),
    )
    workspace.publish_table("folds.parquet", two, workspace.read_metadata("folds.parquet"))
    heads.train_heads(workspace)
    with pytest.raises(FoldMismatchError, match=r"has 2 folds in order of time.*catalog folds -k 3"):
        ensemble.make_blend(workspace)


def test_a_weighted_score_without_scatter_has_an_interval_without_width():
    counts = np.exp(np.random.default_rng(0).normal(0, 1.5, 400))
    counts /= counts.mean()
    low, high = bootstrap_interval(150.0 * counts, np.arange(400), seed=0, counts=counts)
    assert (low, high) == pytest.approx((150.0, 150.0))
    low, high = bootstrap_interval(150.0 * counts, np.arange(400), seed=0)
    assert high - low > 10
