import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalog.images.links import LINKS_FILE
from store.cli import main
from store.config import Config, FoldConfig, load_config
from store.errors import CatalogError, FoldMismatchError, RowMismatchError
from store.folds.assign import FOLDS_FILE, decide_folds, ensure_folds, read_folds, read_record
from store.schema import LINKS
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_folds


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def rows(n, **columns):
    random = np.random.default_rng(0)
    return [
        {"sample_id": 1000 + i, "text": f"text {i}", "price": float(np.exp(random.normal(2.7, 1)))}
        | {name: values[i] for name, values in columns.items()}
        for i in range(n)
    ]


def ingest(workspace, rows):
    publish_catalog(workspace, catalog_table(rows))


def fold_of(folds):
    return dict(zip(folds.sample_id.to_pylist(), folds.fold.tolist(), strict=True))


def run(workspace, *arguments):
    return CliRunner().invoke(main, ["catalog", "folds", "-w", workspace.root, *arguments])


# ---- the rule ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    groups=st.lists(st.integers(0, 25), min_size=8, max_size=120),
    k=st.integers(2, 6),
    seed=st.integers(0, 3),
)
def test_groups_stay_whole_and_no_fold_is_empty(groups, k, seed):
    group = np.unique(groups, return_inverse=True)[1]
    log_price = np.random.default_rng(len(groups)).normal(size=len(group))
    if len(np.unique(group)) < k or 2 * np.bincount(group).max() > len(group):
        with pytest.raises(
            CatalogError, match=r"folds need at least|all .* count as one product|one group holds"
        ):
            decide_folds(log_price, group, k, seed)
        return
    fold = decide_folds(log_price, group, k, seed)
    assert set(fold.tolist()) == set(range(k))
    assert len(set(zip(group.tolist(), fold.tolist(), strict=True))) == len(np.unique(group))
    assert np.ptp(np.bincount(fold)) <= 2 * np.bincount(group).max() + 2


def test_folds_of_plain_arrays_take_labels_of_any_kind_and_prices_as_well():
    log_price, labels = np.arange(20) / 7, [f"product {i // 2}" for i in range(20)]
    fold = decide_folds(log_price, labels, k=4)
    assert (fold[::2] == fold[1::2]).all()
    np.testing.assert_array_equal(decide_folds(np.exp(log_price), np.arange(20) // 2, k=4), fold)
    assert set(decide_folds(log_price)) == set(range(5))
    with pytest.raises(RowMismatchError, match="one group a row, got 3 groups for 20"):
        decide_folds(log_price, ["a", "b", "c"])


def test_folds_are_alike_in_size_and_in_price():
    random = np.random.default_rng(5)
    group = np.unique(random.integers(0, 4000, 5000), return_inverse=True)[1]
    log_price = random.normal(2.7, 1, 5000)
    fold = decide_folds(log_price, group, 5, 0)
    assert np.ptp(np.bincount(fold)) <= 10
    dealt = random.integers(5, size=group.max() + 1)[group]  # groups whole, prices not looked at

    def spread(of: np.ndarray) -> float:
        quantiles = [np.quantile(log_price[of == f], [0.05, 0.25, 0.5, 0.75, 0.95]) for f in range(5)]
        return float(np.ptp(quantiles, axis=0).mean())

    assert spread(fold) < 0.4 * spread(dealt)


def test_a_fold_does_not_tell_the_price_by_its_number():
    """Over seeds, a row is in every fold about equally often."""
    log_price = np.arange(40.0)
    folds = np.array([decide_folds(log_price, np.arange(40), 4, seed) for seed in range(400)])
    share = np.stack([(folds == f).mean(axis=0) for f in range(4)])
    assert share.min() > 0.15
    assert share.max() < 0.35


def test_fewer_groups_than_folds_is_an_error_that_says_what_would_do():
    with pytest.raises(CatalogError, match=r"5 folds need at least 5 groups, got 3 \(6 rows\): .*-k 3"):
        decide_folds(np.zeros(6), np.array([0, 0, 1, 1, 2, 2]), 5, 0)


def test_one_row_and_one_product_are_errors_that_say_what_would_help():
    with pytest.raises(
        CatalogError, match="1 training row is too few to learn from and to score: ingest more"
    ):
        decide_folds(np.zeros(1), np.zeros(1, np.int64), 2, 0)
    with pytest.raises(
        CatalogError, match=r"all 6 training rows share a text or an image.*--text-column and --image-column"
    ):
        decide_folds(np.zeros(6), np.zeros(6, np.int64), 2, 0)


def test_one_group_of_most_rows_is_an_error():
    group = np.array([0] * 60 + list(range(1, 41)))
    with pytest.raises(CatalogError, match=r"one group holds 60 of 100 rows.*--group exact"):
        decide_folds(np.zeros(100), group, 5, 0)


# ---- on a workspace ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(30)), st.booleans())
def test_folds_do_not_depend_on_row_order(tmp_path_factory, order, named):
    given_rows = rows(30, text=[f"text {i // 2}" if i < 10 else f"text {i}" for i in range(30)])
    if named:
        given_rows = [row | {"sample_id": f"id-{row['sample_id']}"} for row in given_rows]
    found = []
    for arranged in (given_rows, [given_rows[i] for i in order]):
        workspace = Workspace(tmp_path_factory.mktemp("w"))
        ingest(workspace, arranged)
        found.append(ensure_folds(workspace, Config()))
    assert fold_of(found[0]) == fold_of(found[1])
    assert found[0].hash == found[1].hash


def test_rows_with_one_text_or_one_image_share_a_fold(workspace):
    images = ["file:a.jpg", "file:b.jpg", None, None, "file:gone.jpg", "file:gone.jpg"] + [None] * 34
    ingest(workspace, rows(40, image=images, text=[f"t{max(i, 3)}" if i > 1 else f"x{i}" for i in range(40)]))
    links = [
        ("file:a.jpg", "11" * 32, None),
        ("file:b.jpg", "11" * 32, None),
        ("file:gone.jpg", None, "HTTP 404"),
    ]
    table = pa.Table.from_pylist(
        [dict(zip(("link", "sha256", "reason"), link, strict=True)) for link in links], LINKS
    )
    workspace.publish_table(LINKS_FILE, table)
    folds = ensure_folds(workspace, Config())
    group = dict(zip(folds.sample_id.to_pylist(), folds.group.tolist(), strict=True))
    assert group[1000] == group[1001]  # two files, the same bytes
    assert group[1002] == group[1003]  # the same text
    assert group[1004] != group[1005]  # the same link, but no image behind it
    assert len(set(group.values())) == 38


def test_folds_are_kept_while_rows_and_options_are_the_same(workspace):
    ingest(workspace, rows(40))
    first = ensure_folds(workspace, Config())
    stood = workspace.modified(FOLDS_FILE)
    said = []
    assert ensure_folds(workspace, Config(), said.append).hash == first.hash
    assert workspace.modified(FOLDS_FILE) == stood
    assert said == []


@pytest.mark.parametrize(
    "config, reason",
    [
        (Config(seed=7), "seed 42 became 7"),
        (Config(folds=FoldConfig(k=4)), "k 5 became 4"),
        (Config(folds=FoldConfig(group="near")), "grouping exact became near"),
    ],
)
def test_other_options_decide_folds_again_and_say_so(workspace, config, reason):
    ingest(workspace, rows(40))
    before = ensure_folds(workspace, Config())
    said = []
    after = ensure_folds(workspace, config, said.append)
    assert said == [f"folds are decided again: {reason}"]
    assert read_record(workspace).seed == config.seed
    assert after.k == config.folds.k
    assert (after.hash == before.hash) == (config.folds.group == "near")  # no near-duplicates here


def test_a_changed_catalogue_decides_folds_again_and_says_so(workspace):
    ingest(workspace, rows(40))
    ensure_folds(workspace, Config())
    ingest(workspace, rows(41))
    said = []
    assert len(ensure_folds(workspace, Config(), said.append).fold) == 41
    assert said == ["folds are decided again: the training catalogue has changed"]


def test_folds_that_the_user_brought_are_kept(workspace):
    ingest(workspace, rows(10))
    publish_folds(workspace, np.arange(10) % 2)
    assert ensure_folds(workspace, Config()).fold.tolist() == [0, 1] * 5


def test_folds_that_the_user_brought_for_other_rows_are_refused(workspace):
    ingest(workspace, rows(10))
    publish_folds(workspace, np.arange(10) % 2)
    ingest(workspace, rows(12))
    with pytest.raises(FoldMismatchError, match=r"10 rows and the catalogue has 12 .*catalog folds"):
        ensure_folds(workspace, Config())


def test_folds_without_a_catalogue_name_the_command_that_makes_one(workspace):
    with pytest.raises(CatalogError, match="run 'shelfprice catalog ingest"):
        ensure_folds(workspace, Config())


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_shows_sizes_prices_and_groups(workspace):
    ingest(workspace, rows(40, text=["twin", "twin"] + [f"t{i}" for i in range(38)]))
    result = run(workspace)
    assert result.exit_code == 0, result.output
    assert "5 folds of 40 rows in 39 groups\n" in result.output
    assert "2 rows share a group, the largest holds 2" in result.output
    assert result.output.count("median price") == 5


def test_options_of_the_command_hold_for_every_later_run(workspace):
    ingest(workspace, rows(40))
    described = json.loads(run(workspace, "-k", "4", "--group", "near", "--seed", "9", "--json").output)
    config = load_config(workspace)
    assert (config.folds.k, config.folds.group, config.seed) == (4, "near", 9)
    said = []
    assert ensure_folds(workspace, config, said.append).hash == described["hash"]
    assert said == []
    assert json.loads(run(workspace, "--json").output)["status"] == "kept"


def test_the_command_tells_which_settings_were_edited_since_and_not_those_that_it_was_given(workspace):
    workspace.publish_bytes("shelfprice.toml", b"seed = 7\n[folds]\nk = 2\n")
    ingest(workspace, rows(12))
    assert run(workspace).stderr == ""
    workspace.publish_bytes("shelfprice.toml", b"seed = 8\n[folds]\nk = 2\n")
    assert run(workspace, "-k", "3").stderr == "shelfprice.toml has changed: seed 7 became 8\n"
    assert run(workspace, "-k", "2").stderr == ""


def test_options_that_can_not_be_met_change_nothing(workspace):
    ingest(workspace, rows(6))
    before = json.loads(run(workspace, "-k", "3", "--json").output)["hash"]
    result = run(workspace, "-k", "7")
    assert result.exit_code == 1
    assert "7 folds need at least 7 groups" in result.output
    assert load_config(workspace).folds.k == 3
    assert read_folds(workspace).hash == before


def test_the_command_replaces_folds_that_were_brought_only_when_it_must(workspace):
    ingest(workspace, rows(40))
    publish_folds(workspace, np.arange(40) % 2)
    kept = json.loads(run(workspace, "--json").output)
    assert (kept["status"], kept["k"]) == ("kept", 2)
    ingest(workspace, rows(41))
    decided = json.loads(run(workspace, "--json").output)
    assert (decided["status"], decided["k"], decided["rows"]) == ("decided", 5, 41)


def test_folds_lie_sorted_by_id(workspace):
    ingest(workspace, rows(30)[::-1])
    folds = ensure_folds(workspace, Config())
    assert pc.array_sort_indices(folds.sample_id).to_pylist() == list(range(30))
