"""Which rows are relatives, which grouping of folds fits the test set, and the columns that the user groups or orders by."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ensemble.audit.twins import check_twins
from ensemble.score import make_blend
from heads.base import Head
from heads.features.rows import Rows
from heads.folds.crossfit import crossfit
from store.catalog.read import read_split
from store.cli import main
from store.config import ColumnConfig, Config, FoldConfig, save_config
from store.errors import CatalogError
from store.folds.assign import deal_by_time, ensure_folds, read_folds, read_record
from store.folds.relatives import read_relatives
from store.weights import relative_weights, repetitions, row_weights, weighted_median
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_fake_predictions

N_TRAIN, N_TEST = 200, 50
SENTENCE = "a plain jar of honey from the hills above the lake number"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


def rows_of(texts, **columns):
    return [
        {"sample_id": i, "text": text, "price": 1.0 + i % 17} | {name: v[i] for name, v in columns.items()}
        for i, text in enumerate(texts)
    ]


def publish(workspace, texts, test_texts=(), **columns):
    rows = rows_of([*texts, *test_texts], **columns)
    test = catalog_table(rows[len(texts) :], priced=False) if test_texts else None
    publish_catalog(workspace, catalog_table(rows[: len(texts)]), test)


def pairs(n, first=0):
    return [f"{SENTENCE} pair{(first + i) // 2} word{(first + i) // 2}" for i in range(n)]


def singles(n, first=0):
    return [f"item{first + i} of its{first + i} own{first + i} kind{first + i}" for i in range(n)]


@pytest.mark.parametrize(
    ("test_texts", "grouping"),
    [
        (pairs(N_TRAIN)[:N_TEST], "none"),  # as many copies in train as random folds have elsewhere
        (
            singles(N_TEST, 1000),
            "near",
        ),  # relatives in train alone, such as after duplicates were taken out of test
        ((), "exact"),
    ],
)
def test_folds_are_grouped_as_fits_the_test_set(workspace, test_texts, grouping):
    publish(
        workspace,
        [text + f" {i % 2}" * (grouping == "near") for i, text in enumerate(pairs(N_TRAIN))],
        test_texts,
    )
    said = []
    folds = ensure_folds(workspace, Config(), said.append)
    record = read_record(workspace)
    assert (record.grouping, record.asked) == (grouping, "auto")
    assert len(np.unique(folds.group)) == (N_TRAIN if grouping == "none" else N_TRAIN // 2)
    ensure_folds(workspace, Config(), said.append)
    ensure_folds(workspace, Config(folds=FoldConfig(group=grouping)), said.append)  # what auto came to
    assert said == []
    ensure_folds(
        workspace, Config(folds=FoldConfig(group="none" if grouping != "none" else "near")), said.append
    )
    assert len(said) == 1


def test_a_test_set_that_comes_later_is_fitted_when_auto_is_asked_for_by_name(workspace):
    publish(workspace, pairs(N_TRAIN))
    command = ["catalog", "folds", "-w", workspace.root, "--json"]
    CliRunner().invoke(main, command)
    publish(workspace, pairs(N_TRAIN), pairs(N_TEST))
    kept, decided = (
        json.loads(CliRunner().invoke(main, [*command, *more]).stdout) for more in ([], ["--group", "auto"])
    )
    assert (kept["status"], decided["status"]) == ("kept", "decided")
    assert decided["reason"] == "grouping exact became none"
    assert json.loads(CliRunner().invoke(main, command).stdout)["status"] == "kept"


def test_folds_of_a_version_without_auto_stand(workspace):
    publish(workspace, pairs(N_TRAIN), pairs(N_TEST))
    ensure_folds(workspace, Config(folds=FoldConfig(group="exact")))
    metadata = workspace.read_metadata("folds.parquet")
    old = {name: metadata[name] for name in ("k", "seed", "grouping", "train_digest")} | {"code_version": 1}
    workspace.publish_table("folds.parquet", workspace.read_table("folds.parquet"), metadata=old)
    before, said = read_folds(workspace).hash, []
    assert ensure_folds(workspace, Config(), said.append).hash == before
    assert ensure_folds(workspace, Config(folds=FoldConfig(group="exact")), said.append).hash == before
    assert said == []


def test_a_name_is_one_product_only_where_further_columns_agree(workspace):
    names, years = ["swift dzire"] * 4 + ["city"] * 2, [2014.0, 2014.0, 2017.0, None, None, None]
    publish(workspace, names, **{"numeric:year": years, "categorical:fuel": ["petrol"] * 5 + ["diesel"]})
    relatives = read_relatives(workspace)
    assert relatives.product.tolist() == [0, 0, 1, 2, 3, 4]
    assert relatives.family.tolist() == [0, 0, 0, 0, 1, 1]


def test_the_closest_relative_is_looked_for_where_a_row_is_predicted_from(workspace):
    texts = ["tea", "tea", "tea", "oil", "oil", "soap"]
    publish(workspace, [*texts], ["tea", "oil", "salt"], **{"numeric:g": [1.0, 1, 2, 1, 2, 1, 2, 3, 1]})
    relatives = read_relatives(workspace)
    assert relatives.of_test().tolist() == [2, 1, 0]
    fold = np.array([0, 1, 1, 0, 0, 1])
    assert relatives.of_train(fold).tolist() == [2, 2, 1, 0, 0, 0]
    seen = np.array([True, False, True, True, True, True])
    assert relatives.of_train(fold, seen).tolist() == [1, 2, 1, 0, 0, 0]
    assert relatives.of_train(fold, looks_back=True).tolist() == [0, 2, 1, 0, 0, 0]


# ---- columns of the user -------------------------------------------------------------------------


def ingest(workspace, tmp_path, *options, rows=60, cell=lambda i: f"2024-0{1 + i % 6}-1{i % 3}"):
    path = tmp_path / "train.csv"
    lines = [f"{i},{SENTENCE} {i},{10 + i % 7},s{i % 9},{cell(i)},{1 + i % 3}" for i in range(rows)]
    path.write_text("\n".join(["sample_id,catalog_content,price,seller,day,sold", *lines]) + "\n")
    return CliRunner().invoke(
        main, ["catalog", "ingest", "--train", str(path), "-w", workspace.root, "--json", *options]
    )


def test_rows_of_the_users_own_group_share_a_fold(workspace, tmp_path):
    result = ingest(workspace, tmp_path, "--group-column", "seller")
    assert result.exit_code == 0, result.output
    assert "seller" in json.loads(result.stdout)["categorical"]  # it is a feature all the same
    found = json.loads(CliRunner().invoke(main, ["catalog", "folds", "-w", workspace.root, "--json"]).stdout)
    assert found["groups"] == 9
    folds, seller = read_folds(workspace), np.arange(60) % 9
    assert len(set(zip(seller.tolist(), folds.fold.tolist(), strict=True))) == 9


def test_folds_in_order_of_time_look_back_only(workspace, tmp_path):
    assert ingest(workspace, tmp_path, "--time-column", "day").exit_code == 0
    folds = ensure_folds(workspace, Config(columns=ColumnConfig(time="day")))
    assert (folds.looks_back, read_record(workspace).looks_back) == (True, True)
    days = read_split(workspace, "train", ["given:time"])["given:time"].to_numpy()
    assert [days[folds.fold == k].max() < days[folds.fold == k + 1].min() for k in range(4)] == [True] * 4
    said = []
    ensure_folds(workspace, Config(), said.append)
    assert said == ["folds are decided again: looks_back True became False"]


def test_rows_of_one_day_are_in_order_of_their_time_of_day(workspace, tmp_path):
    moment = "2024-05-0{} {:02}:{:02} {}"  # two days; the hours of a clock of twelve
    cells = [
        moment.format(1 + i // 30, (i % 30) // 2 % 12 or 12, 30 * (i % 2), "PM" if i % 30 >= 24 else "AM")
        for i in range(60)
    ]
    assert ingest(workspace, tmp_path, "--time-column", "day", cell=cells.__getitem__).exit_code == 0
    times = read_split(workspace, "train", ["given:time"])["given:time"].to_numpy()
    np.testing.assert_allclose(np.diff(times[:30]) * 24, 0.5, atol=1e-6)
    np.testing.assert_allclose(times[30:] - times[:30], 1, atol=1e-9)
    folds = ensure_folds(workspace, Config(columns=ColumnConfig(time="day")))
    assert [times[folds.fold == k].max() < times[folds.fold == k + 1].min() for k in range(4)] == [True] * 4


def test_models_of_folds_that_look_back_never_meet_a_later_row():
    class Latest(Head):
        name, summary = "latest", "the highest log price that it learned from"

        def _fit(self, rows, log_price):
            self.seen_ = log_price.max()

        def _predict(self, rows):
            return np.full(len(rows), self.seen_)

    moment = np.arange(100.0)
    fold = deal_by_time(moment, np.arange(100), 5)
    assert np.bincount(fold).tolist() == [40, 15, 15, 15, 15]
    rows = Rows.from_array(np.ones((100, 1)))
    found = crossfit(
        Latest(), rows, moment / 100, fold, Rows.from_array(np.ones((2, 1)), seen=False), looks_back=True
    )
    first_of_fold = np.array([moment[fold == k].min() for k in range(5)])
    assert (found.oof[fold > 0] * 100 == first_of_fold[fold[fold > 0]] - 1).all()
    assert found.test.tolist() == [0.99, 0.99]


@pytest.mark.parametrize(
    ("options", "cell", "match"),
    [
        (
            ("--time-column", "day"),
            lambda i: "" if i == 7 else "2024-01-02",
            r"needs a date or a number, and 1 rows of .* \(first: line 9\)",
        ),
        (("--weight-column", "day"), lambda i: f"{i}", r"needs a weight above 0, .* \(first: line 2\)"),
        (("--group-column", "shop"), lambda i: "1", "has no column 'shop'"),
    ],
)
def test_columns_that_can_not_be_used_are_named_before_anything_is_written(
    workspace, tmp_path, options, cell, match
):
    result = ingest(workspace, tmp_path, *options, cell=cell)
    assert result.exit_code == 1
    assert re.search(match, result.output)
    assert not workspace.exists("catalog/train.parquet")


@pytest.mark.parametrize("n_times", [1, 2])
def test_fewer_than_three_times_call_for_ingesting_without_a_time_column(n_times):
    with pytest.raises(CatalogError, match=rf"at least 5 times, got {n_times}: ingest without --time-column"):
        deal_by_time(np.arange(60.0) % n_times, np.arange(60), 5)


def test_two_folds_in_order_of_time_are_refused_since_one_alone_would_be_scored():
    with pytest.raises(CatalogError, match=r"need at least 3, .* got 2: run .*-k 3"):
        deal_by_time(np.arange(60.0), np.arange(60), 2)


def test_too_few_times_are_an_error_that_says_what_would_do(workspace, tmp_path):
    assert (
        ingest(workspace, tmp_path, "--time-column", "day", cell=lambda i: f"{2020 + i % 3}").exit_code == 0
    )
    with pytest.raises(CatalogError, match=r"5 folds in order of time need at least 5 times, got 3: .*-k 3"):
        ensure_folds(workspace, Config(columns=ColumnConfig(time="day")))


def test_a_row_is_fitted_on_in_proportion_to_its_weight(workspace, tmp_path):
    assert ingest(workspace, tmp_path, "--weight-column", "sold").exit_code == 0
    table = read_split(workspace, "train")
    assert table["given:weight"].to_pylist()[:3] == [1.0, 2.0, 3.0]
    assert "numeric:sold" not in table.column_names
    assert row_weights(table).mean() == pytest.approx(1)
    assert row_weights(table.drop_columns("given:weight")) is None
    assert relative_weights(np.full(10, 7.0)) is None
    weight = np.random.default_rng(0).gamma(2, 1, 1000)
    times, wanted = repetitions(weight), np.maximum(weight * 2 / weight.mean(), 1)
    assert abs(np.cumsum(times) - np.cumsum(wanted)).max() <= 0.5 + 1e-6
    assert times.min() == 1
    assert repetitions(np.full(10, 7.0)).tolist() == [2] * 10
    assert pa.array(times).type == pa.int64()
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 5.0, 1.0])) == 1


def test_a_blend_of_folds_that_look_back_scores_each_block_by_what_was_known_before(workspace):
    draws = np.random.default_rng(0)
    log_price, day = draws.normal(3, 1, 300) + np.arange(300) / 100, np.arange(300.0)
    rows = [
        {"sample_id": i, "text": f"item {i}", "price": float(np.exp(p)), "given:time": d}
        for i, (p, d) in enumerate(zip(log_price, day, strict=True))
    ]
    publish_catalog(workspace, catalog_table(rows))
    config = Config(columns=ColumnConfig(time="day"))
    save_config(workspace, config)
    ensure_folds(workspace, config)
    level = log_price - np.arange(300) / 100  # a head that knows all but the drift of the last days
    for head in ("a", "b"):
        publish_fake_predictions(
            workspace, head, level + np.floor(day / 60) * 0.6 + draws.normal(0, 0.1, 300)
        )
    printed = CliRunner().invoke(
        main, ["ensemble", "blend", "-w", workspace.root, "--head", "a", "--head", "b"]
    )
    assert printed.exit_code == 0, printed.output
    assert "Each fold is predicted from earlier ones; from the earliest on they score" in printed.output
    blend = make_blend(workspace, ["a", "b"])
    blocks = blend.record["scores"]["expected"]["blocks"]
    assert [block["n_rows"] for block in blocks] == [45] * 4
    assert len(blend.log_price) == 180  # the first block is learned from alone
    assert blend.record["folds"][0]["method"] == blend.record["folds"][1]["method"] == "average"
    assert blocks[0]["level"] > 0.1


@pytest.mark.parametrize(
    ("first", "ending", "known"), [(0, "", 1.0), (100, "", None), (0, ".0", 1.0), (100, ".0", None)]
)
def test_a_test_set_of_known_groups_is_told_that_folds_of_new_groups_do_not_fit_it(
    workspace, first, ending, known
):
    draws = np.random.default_rng(0)
    log_price = draws.normal(3, 1, 240)
    rows = [
        {
            "sample_id": i,
            "text": f"item {i}",
            "price": float(np.exp(p)),
            "given:group": f"{i % 20 + first}{ending}" if i >= 200 else f"{i % 20}",
        }
        for i, p in enumerate(log_price)
    ]
    publish_catalog(workspace, catalog_table(rows[:200]), catalog_table(rows[200:], priced=False))
    config = Config(columns=ColumnConfig(group="seller"))
    save_config(workspace, config)
    ensure_folds(workspace, config)
    check = check_twins(workspace)
    noisy = log_price + draws.normal(0, 0.1, 240)
    publish_fake_predictions(workspace, "a", noisy[:200], noisy[200:])
    printed = CliRunner().invoke(main, ["ensemble", "blend", "-w", workspace.root, "--head", "a"]).output
    assert make_blend(workspace, ["a"]).record["scores"]["expected"]["known_groups"] == known
    if known is None:
        assert check.verdict == "ok"
        assert "on the 40 test rows" in printed
    else:
        assert check.verdict == "caution"
        assert "100% of test rows are of groups (--group-column) that train has" in check.words
        assert "on rows of new groups" in printed
        assert "not the score of the 100% of test rows whose group train has" in printed


def test_relatives_are_kept_for_the_rows_that_they_were_found_for(workspace):
    publish(workspace, pairs(20), pairs(6))
    found = read_relatives(workspace, keep=True)
    before = workspace.modified("catalog/relatives.parquet")
    order = np.random.default_rng(0).permutation(20)
    train = workspace.read_table("catalog/train.parquet")
    digest = workspace.read_metadata("catalog/train.parquet")
    workspace.publish_table("catalog/train.parquet", train.take(order), metadata=digest)  # reordered
    again = read_relatives(workspace, keep=True)
    assert workspace.modified("catalog/relatives.parquet") == before
    np.testing.assert_array_equal(again.product[:20], found.product[:20][order])
    np.testing.assert_array_equal(again.of_test(), found.of_test())
    publish(workspace, singles(20), pairs(6))
    assert (read_relatives(workspace).of_test() == 0).all()
