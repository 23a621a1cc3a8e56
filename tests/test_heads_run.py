import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner

import heads.features.inputs
import heads.run
from ensemble.blend import run_blend
from heads.features.inputs import input_coverage
from heads.run import run_heads, train_heads
from store.cli import main
from store.config import Config, HeadConfig, load_config, save_config
from store.errors import HeadError, MissingVectorsError, RowMismatchError
from store.folds.assign import read_folds
from store.predictions import read_predictions
from store.standing import let_stand, read_standing
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

N_TRAIN, N_TEST = 80, 20
TEXT, IMAGE = VectorSet("minilm", "structured"), VectorSet("efficientnet-lite0")
WORDS = ["tea", "coffee", "soap", "oil"]


def catalog_rows(ids):
    return [
        {
            "sample_id": int(i),
            "text": f"{WORDS[i % 4]} number {i} {'large' if i % 3 else 'small'}",
            "name": f"{WORDS[i % 4]} {i}",
            "description": "fresh from the mill",
            "price": float(np.exp(1 + i % 4 + (i % 3) * 0.2)),
        }
        for i in ids
    ]


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "w")
    train, test = catalog_rows(range(N_TRAIN)), catalog_rows(range(N_TRAIN, N_TRAIN + N_TEST))
    publish_catalog(workspace, catalog_table(train), catalog_table(test, priced=False))
    rng = np.random.default_rng(0)
    publish_vectors(
        workspace,
        TEXT,
        {"train": rng.standard_normal((N_TRAIN, 6)), "test": rng.standard_normal((N_TEST, 6))},
    )
    return workspace


def configure(workspace, run=("ridge", "sparse"), vectors=("minilm@structured",), **params):
    save_config(workspace, Config(heads=HeadConfig(run=tuple(run), vectors=tuple(vectors), params=params)))


def shelfprice(workspace, *arguments):
    return CliRunner().invoke(main, ["heads", *arguments, "-w", workspace.root])


def test_every_row_is_predicted_once_in_catalogue_order_with_its_fold(workspace):
    configure(workspace)
    result = shelfprice(workspace, "run", "--json")
    assert result.exit_code == 0, result.output
    for head in json.loads(result.stdout)["heads"]:
        predictions = read_predictions(workspace, head["folder"])
        assert predictions.oof["sample_id"].to_pylist() == list(range(N_TRAIN))
        assert predictions.test["sample_id"].to_pylist() == list(range(N_TRAIN, N_TRAIN + N_TEST))
        folds = read_folds(workspace).aligned(predictions.oof["sample_id"].combine_chunks())
        np.testing.assert_array_equal(predictions.oof["fold"].to_numpy(), folds.fold)
        assert predictions.folds_hash == folds.hash
        assert head["smape"] == pytest.approx(predictions.report["smape"])


def test_scores_are_of_prices_that_are_raised_to_the_lowest_one_as_those_of_a_blend(workspace):
    configure(workspace)
    rows = catalog_rows(range(N_TRAIN))
    for row in rows:
        row["price"] *= 1e-4
    publish_catalog(workspace, catalog_table(rows))
    assert shelfprice(workspace, "run").exit_code == 0
    compared = json.loads(shelfprice(workspace, "compare", "ridge", "sparse", "--json").stdout)["heads"]
    blended = run_blend(workspace, (), ("ridge", "sparse"))["scores"]["heads"]
    for one in compared:
        folder = workspace.read_json(f"predictions/{one['head']}.json")["folder"]
        report = read_predictions(workspace, folder).report
        assert report["smape"] == pytest.approx(blended[one["head"]])
        assert one["smape"] == pytest.approx(blended[one["head"]])
        assert report["smape"] > 100  # without the floor it is less than half of that


def test_a_second_run_trains_nothing_and_only_what_is_missing_is_trained_later(workspace):
    configure(workspace, run=["ridge"])
    assert "already there" not in shelfprice(workspace, "run").output
    assert shelfprice(workspace, "run").output.count("already there") == 1
    configure(workspace, run=["ridge", "sparse"])
    result = json.loads(shelfprice(workspace, "run", "--json").stdout)
    assert [head["status"] for head in result["heads"]] == ["present", "trained"]


def test_a_run_with_nothing_to_do_imports_no_library_of_a_head(workspace):
    configure(workspace)
    assert shelfprice(workspace, "run").exit_code == 0
    code = (
        "import sys; from store.cli import main\n"
        f"main(['heads', 'run', '-w', {str(workspace.root)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'xgboost', 'lightgbm', 'scipy', 'spacy', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already there") == 2


def test_two_runs_at_once_lose_nothing_of_what_stands(workspace):
    configure(workspace)
    assert shelfprice(workspace, "run", "--head", "neighbours").exit_code == 0
    command = [sys.executable, "-m", "store.cli", "heads", "run", "-w", workspace.root, "--head"]
    runs = [subprocess.Popen([*command, head], stdout=subprocess.DEVNULL) for head in ("ridge", "sparse")]
    assert [run.wait() for run in runs] == [0, 0]
    assert set(read_standing(workspace).folders) == {"neighbours", "ridge", "sparse"}


def test_many_writers_of_what_stands_lose_nothing(workspace):
    configure(workspace, run=["ridge"])
    (head,) = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"]
    names = [f"ridge:{i}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: let_stand(workspace, name, head["folder"]), names))
    assert set(read_standing(workspace).folders) == {"ridge", *names}


def test_predictions_that_were_removed_by_hand_are_made_again(workspace):
    configure(workspace, run=["ridge"])
    (head,) = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"]
    workspace.remove(head["folder"])
    assert read_standing(workspace).folders == {}
    assert not let_stand(workspace, "ridge", head["folder"])
    (again,) = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"]
    assert (again["status"], again["folder"]) == ("trained", head["folder"])


def test_a_killed_run_left_no_record_so_the_head_is_trained_again(workspace):
    configure(workspace, run=["ridge"])
    (first,) = list(
        run_heads(workspace, Config(heads=HeadConfig(run=("ridge",), vectors=("minilm@structured",))))
    )
    workspace.remove(f"{first.folder}/head.json")
    assert "already there" not in shelfprice(workspace, "run").output
    assert workspace.exists(f"{first.folder}/head.json")


def test_parameters_of_the_configuration_reach_the_head_and_name_other_predictions(workspace):
    configure(workspace, run=["ridge"])
    before = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    configure(workspace, run=["ridge"], ridge={"n_alphas": 3, "alpha_min": 0.5, "alpha_max": 2})
    after = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    assert before["folder"] != after["folder"]
    predictions = read_predictions(workspace, after["folder"])
    assert predictions.inputs["params"]["n_penalties"] == 3
    assert all(0.5 <= learned["alpha"] <= 2 for learned in predictions.report["learned"])


def test_a_head_under_a_name_of_its_own_takes_its_own_vectors(workspace):
    configure(workspace, run=["ridge", "ridge:fields"], **{"ridge:fields": {"vectors": []}})
    result = json.loads(shelfprice(workspace, "run", "--json").stdout)
    one, other = (read_predictions(workspace, head["folder"]) for head in result["heads"])
    assert [name for name, *_ in one.inputs["vectors"]] == ["minilm@structured"]
    assert other.inputs["vectors"] == []


@pytest.mark.parametrize(
    "params, message",
    [
        ({"alpha": 1}, "ridge has no parameter 'alpha', it takes alpha_max, alpha_min, category_weight"),
        (
            {"n_alphas": "many"},
            "ridge: parameter n_alphas must be a whole number from 1 to 1,000, got 'many'",
        ),
        ({"fields": 1}, "ridge: parameter fields must be true or false, got 1"),
        ({"alpha_max": -1.0}, "ridge: parameter alpha_max must be a number above 0, at most 1e+12, got -1.0"),
        (
            {"alpha_min": float("nan")},
            "ridge: parameter alpha_min must be a number above 0, at most 1e+12, got nan",
        ),
        ({"vectors": 5}, "ridge: parameter vectors must be a list of vector sets, got 5"),
        ({"vectors": [1.5]}, "ridge: parameter vectors must be a list of vector sets, got [1.5]"),
        ({"tuned": "no"}, "ridge: parameter tuned must be true or false, got 'no'"),
    ],
)
def test_a_wrong_parameter_fails_its_head_with_a_reason_and_the_others_go_on(workspace, params, message):
    configure(workspace, ridge=params)
    result = shelfprice(workspace, "run")
    assert result.exit_code == 1
    assert message in result.output
    assert "sparse               SMAPE" in result.output
    assert "1 of 2 heads failed: ridge" in result.output


def test_a_fault_of_one_head_keeps_its_traceback_and_stops_no_other(workspace, monkeypatch):
    from heads.linear.ridge import Ridge

    def broken(self, rows, log_price):
        raise ZeroDivisionError("of a library")

    monkeypatch.setattr(Ridge, "fit_predict_folds", lambda *given: None)
    monkeypatch.setattr(Ridge, "_fit", broken)
    configure(workspace)
    result = shelfprice(workspace, "run")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert (
        "ridge                failed: ZeroDivisionError: of a library (a fault; its traceback"
        in result.stderr
    )
    assert "sparse               SMAPE" in result.stdout
    assert "1 of 2 heads failed: ridge" in result.output


def test_parameters_by_their_old_names_are_taken_with_a_warning_and_find_what_they_made(workspace):
    configure(workspace, run=["ridge"], ridge={"n_alphas": 3, "alpha_max": 2.0})
    (made,) = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"]
    configure(workspace, run=["ridge"], ridge={"n_penalties": 3, "high": 2.0})
    with pytest.warns(FutureWarning, match="ridge: n_penalties is now n_alphas"):
        result = json.loads(shelfprice(workspace, "run", "--json").stdout)
    assert (result["heads"][0]["status"], result["heads"][0]["folder"]) == ("present", made["folder"])


def test_an_unknown_head_is_an_error_that_offers_the_nearest(workspace):
    result = shelfprice(workspace, "run", "--head", "rigde")
    assert result.exit_code == 1
    assert "unknown head 'rigde', did you mean ridge" in result.output
    assert "heads.run" not in result.output  # it was not named there
    configure(workspace, run=["rigde"])
    result = shelfprice(workspace, "run")
    assert "See 'shelfprice heads list', and correct heads.run in shelfprice.toml" in result.output


def test_missing_vectors_are_an_error_that_names_the_command(workspace):
    configure(workspace, run=["ridge"], vectors=["minilm@name"])
    result = shelfprice(workspace, "run")
    assert result.exit_code == 1
    assert "run 'shelfprice embed run -e minilm@name'" in result.output
    configure(workspace, run=["ridge"], vectors=["bert-base@name"])
    assert "run 'shelfprice embed run -e bert-base@name'" in shelfprice(workspace, "run").output


def test_a_catalogue_without_images_leaves_their_vectors_out_and_says_so(workspace):
    configure(workspace, run=["ridge"], vectors=["minilm@structured", "efficientnet-lite0"])
    result = shelfprice(workspace, "run")
    assert result.exit_code == 0, result.output
    assert "efficientnet-lite0 is left out: no training row has an image" in result.output


def test_without_test_rows_there_are_out_of_fold_predictions_alone(tmp_path):
    workspace = Workspace(tmp_path / "w")
    publish_catalog(workspace, catalog_table(catalog_rows(range(N_TRAIN))))
    configure(workspace, run=["sparse"])
    head = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    assert read_predictions(workspace, head["folder"]).test is None


def test_equal_prices_are_an_error_that_says_so(tmp_path):
    workspace = Workspace(tmp_path / "w")
    publish_catalog(workspace, catalog_table([row | {"price": 9.0} for row in catalog_rows(range(N_TRAIN))]))
    configure(workspace, run=["sparse"])
    result = shelfprice(workspace, "run")
    assert result.exit_code == 1
    assert "all 80 training prices are 9: there is nothing to learn" in result.output


def test_a_row_with_an_absurd_number_spoils_no_run(tmp_path):
    workspace = Workspace(tmp_path / "w")
    rows = [
        row | {"numeric:area": 50 + i / 100, "price": float(np.exp(1 + i / 20))}
        for i, row in enumerate(catalog_rows(range(N_TRAIN)))
    ]
    rows[7]["numeric:area"] = 1e308
    publish_catalog(workspace, catalog_table(rows))
    configure(workspace, run=["ridge", "lightgbm"], vectors=[])
    result = shelfprice(workspace, "run")
    assert result.exit_code == 0, result.exception or result.output


def test_heads_are_trained_from_python_as_by_the_command(workspace):
    configure(workspace)
    lines = []
    trained = train_heads(workspace.root, log=lines.append)
    assert [(head.head, head.status) for head in trained] == [("ridge", "trained"), ("sparse", "trained")]
    assert "ridge: training on 80 rows, minilm@structured" in lines
    assert [head.status for head in train_heads(workspace, ["sparse"])] == ["present"]


def test_a_head_that_fails_from_python_is_an_error_once_the_others_are_trained(workspace):
    configure(workspace, run=["ridge", "sparse"], ridge={"n_alphas": "many"})
    with pytest.raises(
        HeadError, match="1 of 2 heads failed: ridge: parameter n_alphas must be a whole number"
    ):
        train_heads(workspace)
    assert train_heads(workspace, ["sparse"])[0].status == "present"


def test_a_run_keeps_to_log_prices(workspace):
    configure(workspace, run=["ridge"], ridge={"target": "price"})
    with pytest.raises(
        HeadError, match="ridge: a run takes prices from the catalogue and predicts log prices: leave out"
    ):
        train_heads(workspace)


def test_nothing_ingested_is_an_error_that_names_the_command(tmp_path):
    result = shelfprice(Workspace(tmp_path), "run")
    assert result.exit_code == 1
    assert "run 'shelfprice catalog ingest" in result.output


def test_coverage_does_not_depend_on_row_order_and_changes_with_the_rows(workspace):
    before = input_coverage(workspace, TEXT)
    train, test = (workspace.read_table(f"catalog/{split}.parquet") for split in ("train", "test"))
    publish_catalog(workspace, train.take(np.arange(N_TRAIN)[::-1]), test)
    assert input_coverage(workspace, TEXT).digest == before.digest
    publish_catalog(workspace, train.slice(1), test)
    assert input_coverage(workspace, TEXT).digest != before.digest
    assert before.n_valid == before.n_rows == N_TRAIN


def test_a_row_that_was_never_embedded_is_an_error_before_anything_is_trained(workspace):
    train = [*catalog_rows(range(N_TRAIN)), {"sample_id": 999, "name": "new", "text": "new", "price": 1.0}]
    publish_catalog(workspace, catalog_table(train))
    with pytest.raises(
        MissingVectorsError, match=r"first: 999\): run 'shelfprice embed run -e minilm@structured'"
    ):
        input_coverage(workspace, TEXT)


def test_every_head_is_listed_with_what_it_reads_and_its_parameters():
    result = CliRunner().invoke(main, ["heads", "list", "--json"])
    listed = {head["head"]: head for head in json.loads(result.stdout)["heads"]}
    assert {"ridge", "lightgbm", "sparse", "xgboost-baseline"} <= set(listed)
    assert listed["xgboost-baseline"]["params"]["n_estimators"] == 1000
    assert "colsample_bytree" in listed["lightgbm"]["params"]  # the name that the configuration takes
    assert listed["xgboost-baseline"]["extra"] == "starter"
    assert listed["sparse"]["reads"] == ["text full", "text name"]
    assert "ridge" in CliRunner().invoke(main, ["heads", "list"]).output


def test_make_head_says_which_parameters_there_are():
    from heads.registry import make_head

    with pytest.raises(
        HeadError,
        match="ridge has no parameter 'depth', it takes alpha_max, alpha_min, category_weight, fields",
    ):
        make_head("ridge", {"depth": 3}, 0)
    assert make_head("lightgbm", {}, seed=7).random_state == 7
    assert make_head("lightgbm", {"random_state": 3}, seed=7).random_state == 3


@pytest.mark.parametrize("when", ["after the digest", "while vectors are read"])
def test_a_catalogue_that_is_replaced_during_a_run_is_an_error_and_no_predictions(
    workspace, monkeypatch, when
):
    configure(workspace, run=["ridge"])
    names = {"after the digest": "_n_rows", "while vectors are read": "_rows_of"}
    module = heads.run if when == "after the digest" else heads.features.inputs
    original = getattr(module, names[when])

    def replace_and_go_on(*arguments):
        train = catalog_rows(range(N_TRAIN))[::-1]  # the same rows in another order, other prices
        for row in train if when == "after the digest" else ():
            row["price"] *= 2
        test = catalog_rows(range(N_TRAIN, N_TRAIN + N_TEST))
        publish_catalog(workspace, catalog_table(train), catalog_table(test, priced=False))
        return original(*arguments)

    monkeypatch.setattr(module, names[when], replace_and_go_on)
    with pytest.raises(RowMismatchError, match="was replaced while it was read"):
        list(run_heads(workspace, load_config(workspace)))
    assert not workspace.exists("predictions")
