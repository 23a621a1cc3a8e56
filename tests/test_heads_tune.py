import errno
import json

import numpy as np
import pytest
from click.testing import CliRunner

from heads.folds.search import REFIT, inner_folds
from heads.folds.search_spaces import SPACES, space_of, suggest
from heads.folds.tuning import read_tuning
from store.cli import main
from store.config import Config, HeadConfig, save_config
from store.errors import HeadError
from store.vectors.sets import VectorSet
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog, publish_vectors

N_TRAIN, N_TEST = 90, 10


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "w")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_TRAIN + N_TEST, 5))
    rows = [
        {
            "sample_id": i,
            "text": f"thing {i}",
            "name": f"thing {i}",
            "price": float(np.exp(3 + np.sin(2 * X[i, 0]))),
        }
        for i in range(N_TRAIN + N_TEST)
    ]
    publish_catalog(workspace, catalog_table(rows[:N_TRAIN]), catalog_table(rows[N_TRAIN:], priced=False))
    publish_vectors(workspace, VectorSet("fake", "full"), {"train": X[:N_TRAIN], "test": X[N_TRAIN:]})
    configure(workspace)
    return workspace


def configure(workspace, **params):
    save_config(
        workspace, Config(heads=HeadConfig(run=("svr",), vectors=("fake@full",), params={"svr": params}))
    )


def shelfprice(workspace, *arguments):
    return CliRunner().invoke(main, ["heads", *arguments, "-w", workspace.root])


def tune(workspace):
    return shelfprice(workspace, "tune", "--head", "svr", "--minutes", "0.02")


def test_a_search_is_stored_used_by_the_next_run_and_said_so(workspace):
    before = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    found = tune(workspace)
    assert found.exit_code == 0, found.output
    tuning = read_tuning(workspace, "svr")
    assert set(tuning.folds) == {0, 1, 2, 3, 4}
    assert tuning.inner_smape["found"] <= tuning.inner_smape["default"]
    after = shelfprice(workspace, "run")
    assert "tuned" in after.stdout
    assert "parameters found by tuning" in after.stderr
    result = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    assert result["status"] == "present"
    assert result["folder"] != before["folder"]
    workspace.remove("tuning/svr.json")
    assert (
        "tuning/svr.json is missing: the head's own parameters are used"
        in shelfprice(workspace, "run").stderr
    )
    assert "is missing" not in shelfprice(workspace, "run").stderr
    workspace.remove("predictions/svr.json")  # the trials alone tell of the search
    assert "parameters of svr were searched by tuning" in shelfprice(workspace, "run").stderr
    trials = workspace.read_bytes("tuning/trials.journal")
    name = next(iter(tuning.folds[0]))
    workspace.publish_bytes("tuning/trials.journal", trials.replace(f'"{name}"'.encode(), b'"other"'))
    damaged = tune(workspace)
    assert damaged.exit_code == 1, damaged.output
    assert "trials.journal is damaged (trial" in " ".join(damaged.stderr.split())


@pytest.mark.parametrize("content", [b"{", b'{"op_code": 99}\n', b"[1]\n", b"\xff\n"])
def test_trials_that_are_damaged_are_named_with_the_way_on(workspace, content):
    tune(workspace)
    whole = workspace.read_bytes("tuning/trials.journal")
    workspace.publish_bytes("tuning/trials.journal", content + whole)
    found = tune(workspace)
    assert found.exit_code == 1
    assert "tuning/trials.journal is damaged" in found.output
    assert "delete it" in found.output
    workspace.remove("tuning/trials.journal")
    assert tune(workspace).exit_code == 0


def test_a_later_search_goes_on_where_the_first_stopped_though_it_was_killed_in_a_line(workspace):
    tune(workspace)
    first = read_tuning(workspace, "svr").trials
    workspace.append("tuning/trials.journal", b'{"op_code": 4, "wor')
    for _ in range(2):
        assert tune(workspace).exit_code == 0
    assert read_tuning(workspace, "svr").trials > first


def test_a_disk_that_fills_up_ends_a_search_with_one_line_and_a_later_one_goes_on(workspace, monkeypatch):
    def full(self, logs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("optuna.storages.journal.JournalFileBackend.append_logs", full)
        told = tune(workspace)
    assert told.exit_code == 1
    assert "no space left to write" in told.output
    assert "trials.journal" in told.output
    assert tune(workspace).exit_code == 0


def test_what_the_configuration_sets_is_neither_searched_nor_overruled(workspace):
    tune(workspace)
    configure(workspace, C=7.0)
    head = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    inputs = workspace.read_json(f"{head['folder']}/head.json")["inputs"]
    assert inputs["params"]["penalty"] == 7.0
    assert all("penalty" not in found for found in inputs["tuned"]["folds"].values())
    tune(workspace)
    assert all("C" not in found for found in read_tuning(workspace, "svr").folds.values())


def test_the_configuration_can_turn_tuning_off(workspace):
    tune(workspace)
    configure(workspace, tuned=False)
    head = json.loads(shelfprice(workspace, "run", "--json").stdout)["heads"][0]
    assert head["tuned"] is False


def test_parameters_found_for_other_vectors_are_not_used_and_said_so(workspace):
    tune(workspace)
    publish_vectors(
        workspace, VectorSet("other", "full"), {"train": np.ones((N_TRAIN, 3)), "test": np.ones((N_TEST, 3))}
    )
    save_config(workspace, Config(heads=HeadConfig(run=("svr",), vectors=("fake@full", "other@full"))))
    result = shelfprice(workspace, "run")
    assert "belong to another catalogue, vectors or folds" in result.stderr
    assert "tuned" not in result.stdout


def test_prices_of_a_fold_do_not_enter_the_search_for_its_parameters(workspace):
    from heads.features.inputs import Inputs
    from heads.folds.search import search_parameters
    from heads.folds.tuning import BOUND_TO
    from heads.registry import make_head
    from heads.testing import folds_of, make_rows

    rows, log_price = make_rows(120)
    fold = folds_of(rows)
    changed = np.where(fold == 2, -log_price, log_price)
    found = []
    for target in (log_price, changed):
        workspace.remove("tuning")
        record = dict.fromkeys(BOUND_TO, "") | {"params": {}}
        inputs = Inputs(rows, target, fold, None)
        search_parameters(workspace, make_head("svr", {}, 0), "svr", frozenset(), record, inputs, 1e-6, print)
        import optuna

        backend = optuna.storages.journal.JournalFileBackend(workspace.path("tuning/trials.journal"))
        storage = optuna.storages.JournalStorage(backend)
        studies = optuna.get_all_study_names(storage)
        values = {
            name.split("-", 2)[2]: optuna.load_study(study_name=name, storage=storage).trials[0].value
            for name in studies
        }
        found.append(values)
    assert found[0]["2"] == found[1]["2"]
    assert found[0]["-1"] != found[1]["-1"]


def test_inner_folds_of_the_refit_are_any_and_of_a_fold_never_itself():
    fold = np.repeat([0, 1, 2], 4)
    assert inner_folds(fold, 0) == [1, 2]
    assert inner_folds(fold, 2) == [0, 1]
    assert len(inner_folds(fold, REFIT)) == 2


def test_a_head_that_chooses_inside_has_nothing_to_tune(workspace):
    result = shelfprice(workspace, "tune", "--head", "kernel-ridge")
    assert result.exit_code == 1
    assert "nothing to tune" in result.output


def test_two_folds_are_too_few_to_tune_inside(tmp_path, workspace):
    from heads.features.inputs import Inputs
    from heads.folds.search import search_parameters
    from heads.registry import make_head
    from heads.testing import make_rows

    rows, log_price = make_rows(20)
    inputs = Inputs(rows, log_price, np.arange(20) % 2, None)
    with pytest.raises(HeadError, match="at least 3 of them, got 2"):
        search_parameters(workspace, make_head("svr", {}, 0), "svr", frozenset(), {}, inputs, 1.0, print)


@pytest.mark.parametrize("head", sorted(SPACES))
def test_every_space_names_parameters_of_its_head_and_holds_its_default(head):
    import optuna

    from heads.registry import make_head

    space = space_of(head)
    default = {name: make_head(head, {}, 0).get_params()[name] for name in space}
    study = optuna.create_study()
    study.enqueue_trial(default)
    assert suggest(study.ask(), space) == default
