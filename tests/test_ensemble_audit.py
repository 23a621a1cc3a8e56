import dataclasses
import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.audit.adversarial import check_drift, check_folds_unknown
from ensemble.audit.evidence import compress, read_evidence
from ensemble.audit.forest import forest_values
from ensemble.audit.order import check_ids_and_order
from ensemble.audit.run import run_audit
from ensemble.audit.shuffled import check_shuffled_target
from ensemble.audit.twins import check_twins, expected_share, share_with_twin_elsewhere
from store.cli import main
from store.errors import CatalogError
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_folds, publish_vectors

N_TRAIN, N_TEST, DIM = 600, 200, 6
WORDS = [f"word{i}" for i in range(400)]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def lay_out(workspace, *, sort=False, drift=0.0, twins_in_test=0, twins_in_train=0, fold_column=False):
    """A catalogue without any fault but those asked for."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N_TRAIN + N_TEST, DIM))
    log_price = X[:, 0] + generator.normal(0, 0.3, len(X)) + 3
    if sort:
        order = np.argsort(log_price[:N_TRAIN])
        X[:N_TRAIN], log_price[:N_TRAIN] = X[:N_TRAIN][order], log_price[:N_TRAIN][order]
    X[N_TRAIN:] += drift
    texts = [" ".join(generator.choice(WORDS, 20)) for _ in X]
    fold = generator.integers(0, 5, N_TRAIN)
    for i in range(twins_in_train):
        texts[i] = texts[N_TRAIN - 1 - i] + " other"
        fold[i] = (fold[N_TRAIN - 1 - i] + 1) % 5
    for i in range(twins_in_test):
        texts[N_TRAIN + i] = texts[200 + i] + " more"
    rows = [
        {"sample_id": i, "name": text, "text": text, "price": float(np.exp(p)), "value": float(abs(x[1]))}
        for i, (text, p, x) in enumerate(zip(texts, log_price, X, strict=True))
    ]
    if fold_column:
        for i, row in enumerate(rows):
            row["numeric:batch"] = float(fold[i]) if i < N_TRAIN else None
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_folds(workspace, fold)
    publish_vectors(workspace, VectorSet("fake", "name"), {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})


def verdicts(workspace):
    result = run_audit(workspace, ["fake@name"])
    return {check["name"]: check for check in result["checks"]}, result


def test_a_sound_catalogue_passes_every_check(workspace):
    lay_out(workspace)
    checks, result = verdicts(workspace)
    assert {name: c["verdict"] for name, c in checks.items()} == {
        "shuffled target": "ok",
        "ids and order": "ok",
        "folds unknown": "ok",
        "drift": "ok",
        "twins": "ok",
        "signal": "ok",
        "columns": "skipped",
        "written prices": "ok",
        "image names": "skipped",
        "time": "skipped",
    }
    assert result["verdict"] == "ok"
    shuffled = checks["shuffled target"]["figures"]
    assert shuffled["blend_smape"] == pytest.approx(shuffled["median_smape"], abs=2)


def test_a_catalogue_sorted_by_price_is_told_by_its_order(workspace):
    lay_out(workspace, sort=True)
    check = check_ids_and_order(read_evidence(workspace, [], 1000, 0)[0], 0)
    assert check.verdict == "caution"
    assert "the catalogue is sorted" in check.words
    assert check.figures["order_smape"] < check.figures["median_smape"] / 2


def test_a_column_that_tells_the_fold_fails(workspace):
    lay_out(workspace, fold_column=True)
    check = check_folds_unknown(read_evidence(workspace, ["fake@name"], 1000, 0)[0], 0)
    assert check.verdict == "fail"
    assert check.figures["accuracy"] > 0.9
    assert "drop column 'batch', which alone has accuracy" in check.words


def test_folds_in_order_of_time_may_be_told_by_a_column(workspace):
    lay_out(workspace, fold_column=True)
    train = dataclasses.replace(read_evidence(workspace, ["fake@name"], 1000, 0)[0], looks_back=True)
    check = check_folds_unknown(train, 0)
    assert check.verdict == "skipped"
    assert "--time-column" in check.words


@pytest.mark.parametrize("n_rows", [30, 60])
def test_trees_that_can_t_split_give_the_mean(n_rows):
    draws = np.random.default_rng(0)
    values, inside = 3 + draws.normal(0, 0.1, n_rows), np.arange(n_rows) % 2 == 0
    found = forest_values(draws.normal(size=(n_rows, 2)), values, inside, ~inside, 10, 0)
    np.testing.assert_allclose(found, values[inside].mean(), atol=0.1)


def test_test_rows_of_another_kind_fail_naming_what_moved(workspace):
    lay_out(workspace, drift=3.0)
    train, test, _ = read_evidence(workspace, ["fake@name"], 1000, 0)
    check = check_drift(train, test, 0)
    assert check.verdict == "fail"
    assert check.figures["auc"] > 0.9
    assert "most by vectors fake@name" in check.words


def test_two_test_rows_are_too_few_to_say_that_they_look_like_training_rows(workspace):
    lay_out(workspace, drift=3.0)
    train, test, _ = read_evidence(workspace, ["fake@name"], 1000, 0)
    blocks = {name: block[:2] for name, block in test.blocks.items()}
    check = check_drift(train, dataclasses.replace(test, position=test.position[:2], blocks=blocks), 0)
    assert (check.verdict, check.figures) == ("skipped", {})
    assert "2 test rows are too few" in check.words


def test_prices_of_two_levels_are_compared_with_the_best_single_price_and_not_with_their_median(workspace):
    lay_out(workspace)
    rows = read_evidence(workspace, ["fake@name"], 1000, 0)[0]
    draws = np.random.default_rng(3)
    level = np.where(draws.random(len(rows.fold)) < 0.48, 2.0, draws.uniform(4.5, 6.0, len(rows.fold)))
    two = dataclasses.replace(rows, log_actual=level + draws.normal(0, 0.1, len(level)))
    shuffled = check_shuffled_target(two, seed=0)
    assert shuffled.verdict == "ok"
    assert "best single price" in shuffled.words
    assert check_ids_and_order(two, seed=0).verdict == "ok"


def test_a_feature_that_knows_shuffled_prices_fails(workspace):
    lay_out(workspace)
    rows = read_evidence(workspace, [], 1000, 0)[0]
    leak = np.random.default_rng(7).permutation(rows.log_actual)[:, None]
    check = check_shuffled_target(dataclasses.replace(rows, blocks={"leak": leak}), seed=7)
    assert check.verdict == "fail"
    assert "prices leak across folds" in check.words


def test_more_twins_in_the_test_set_than_any_folds_could_show_promise_a_better_score(workspace):
    lay_out(workspace, twins_in_test=120)
    check = check_twins(workspace)
    figures = check.figures
    assert check.verdict == "caution"
    assert "harder than the test set, and no grouping comes nearer: expect a better score" in check.words
    assert figures["test_share"] == pytest.approx(0.6)
    assert figures["test_share_identical"] == 0
    assert figures["folds_share"] == 0


def test_twins_across_folds_that_the_test_set_lacks_call_for_near_grouping(workspace):
    lay_out(workspace, twins_in_train=150)
    check = check_twins(workspace)
    assert check.verdict == "caution"
    assert check.figures["fits"] == "near"
    assert check.figures["folds_share"] == pytest.approx(0.5)
    assert "catalog folds --group near" in check.words


def test_twins_in_the_test_set_as_inside_the_folds_keep_exact_grouping(workspace):
    lay_out(workspace, twins_in_train=150, twins_in_test=100)
    check = check_twins(workspace)
    assert check.verdict == "ok"
    assert check.figures["fits"] == "exact"
    assert check.figures["folds_share_if_exact"] == pytest.approx(0.4)


def test_shares_of_twins_follow_from_families_folds_and_groups():
    family = np.array([0, 0, 1, 1, 2])
    assert share_with_twin_elsewhere(family, np.array([0, 1, 0, 0, 0])) == pytest.approx(2 / 5)
    # Family 0 is two groups, which part with probability 3/4; family 1 is one group and never does.
    assert expected_share(family, np.array([0, 1, 2, 2, 3]), 4) == pytest.approx(0.75 * 2 / 5)


def test_without_test_rows_or_vectors_the_other_checks_still_run(workspace):
    rows = [{"sample_id": f"id-{i}", "price": 1.0 + i % 7, "value": float(i % 3)} for i in range(300)]
    publish_catalog(workspace, catalog_table(rows))
    publish_folds(workspace, np.random.default_rng(0).integers(0, 3, 300))
    checks, result = verdicts(workspace)
    assert checks["drift"]["verdict"] == checks["twins"]["verdict"] == "skipped"
    assert checks["shuffled target"]["verdict"] == "ok"
    assert any("fake@name is left out" in note for note in result["notes"])


def test_features_are_compressed_by_what_the_chosen_rows_know():
    generator = np.random.default_rng(0)
    block = generator.normal(size=(100, 30)).astype(np.float32)
    block[3] = np.nan
    inside = np.arange(100) < 60
    before = compress([block], inside, 5, seed=0)
    assert before.shape == (100, 6)
    assert np.isfinite(before).all()
    block[60:] *= 100
    np.testing.assert_array_equal(before[:60], compress([block], inside, 5, seed=0)[:60])


def test_rows_beyond_the_limit_are_drawn_the_same_way_each_time(workspace):
    lay_out(workspace)
    one, test, _ = read_evidence(workspace, ["fake@name"], 100, seed=1)
    other, _, _ = read_evidence(workspace, ["fake@name"], 100, seed=1)
    assert one.sample_id.equals(other.sample_id)
    assert len(one.position) == len(test.position) == 100
    assert one.blocks["fake@name"].shape == (100, DIM)


def test_an_empty_workspace_says_what_to_run(workspace):
    with pytest.raises(CatalogError, match="run 'shelfprice catalog ingest"):
        run_audit(workspace, [])


def test_the_command_prints_a_verdict_per_check_and_json(workspace):
    lay_out(workspace)
    run = CliRunner().invoke(main, ["ensemble", "audit", "-w", workspace.root], catch_exceptions=False)
    assert [line.split()[0] for line in run.stdout.splitlines()] == [
        *["ok"] * 5,
        *["skipped", "skipped", "ok", "skipped", "skipped"],
        *["note"] * 2,
        *["10", "next:"],
    ]
    assert "10 checks: 6 passed, 4 skipped.\n" in run.stdout
    run = CliRunner().invoke(main, ["ensemble", "audit", "-w", workspace.root, "--json"])
    assert len(json.loads(run.stdout)["checks"]) == 10


def test_a_check_that_fails_is_an_error_after_all_are_printed(workspace):
    lay_out(workspace, fold_column=True)
    run = CliRunner().invoke(main, ["ensemble", "audit", "-w", workspace.root])
    assert run.exit_code == 1
    assert (
        len([line for line in run.stdout.splitlines() if line.split()[0] in ("ok", "caution", "fail")]) >= 5
    )
    assert "can't be trusted, " in run.stderr
    assert "folds unknown" in run.stderr.splitlines()[-1]


def further_columns(workspace, test_colours=("red", "blue"), seed=0):
    """Rows at random, with a column of codes that are nearly all different and one of colours."""
    generator = np.random.default_rng(seed)
    rows = [
        {
            "sample_id": i,
            "text": f"{i}",
            "price": float(generator.lognormal(3)),
            "categorical:code": f"c{generator.integers(0, 4000)}",
            "categorical:colour": str(generator.choice(["red", "blue"] if i < N_TRAIN else test_colours)),
        }
        for i in range(N_TRAIN + N_TEST)
    ]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_folds(workspace, np.arange(N_TRAIN) % 5)
    train, test, _ = read_evidence(workspace, [], 1000, 0)
    return check_drift(train, test, 0)


def test_categories_that_are_nearly_all_different_are_no_drift(workspace):
    verdicts = [further_columns(workspace, seed=seed).verdict for seed in range(6)]
    assert verdicts == ["ok"] * 6


def test_the_column_that_drifts_is_named(workspace):
    check = further_columns(workspace, test_colours=("red", "green"))
    assert check.verdict in ("caution", "fail")
    assert "most by column 'colour'" in check.words
    assert "fields" not in check.words
    of_column = check.figures["auc_of_column"]
    assert of_column["colour"] > 0.7 > of_column["code"]


def test_a_catalogue_without_images_is_audited_without_a_warning(workspace):
    lay_out(workspace)
    none = {"train": np.full((N_TRAIN, 60), np.nan), "test": np.full((N_TEST, 60), np.nan)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test, _ = read_evidence(workspace, ["fake@name"], 400, 0)
        train = dataclasses.replace(train, blocks=train.blocks | {"images": none["train"][:400]})
        test = dataclasses.replace(test, blocks=test.blocks | {"images": none["test"]})
        for check in (
            check_shuffled_target(train, 0),
            check_folds_unknown(train, 0),
            check_drift(train, test, 0),
        ):
            assert check.verdict == "ok"


@pytest.mark.parametrize("odd", [1e39, -1e300, 1.7e308])
def test_numbers_beyond_single_precision_are_clipped_and_said(workspace, odd):
    generator = np.random.default_rng(0)
    rows = [
        {
            "sample_id": i,
            "price": float(generator.lognormal(2)),
            "numeric:weight": float(generator.lognormal(1)),
        }
        for i in range(300)
    ]
    rows[7]["numeric:weight"] = rows[250]["numeric:weight"] = odd
    publish_catalog(workspace, catalog_table(rows[:240]), catalog_table(rows[240:], priced=False))
    publish_folds(workspace, generator.integers(0, 3, 240))
    result = run_audit(workspace, [])
    assert (
        "numeric:weight: 2 of 300 values lie beyond 3.4e+38 and are clipped to the spread of the others"
        in (result["notes"])
    )
