"""Fitted heads as files and back."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from heads.base import FoldPredictions, Head
from heads.features.rows import Rows
from heads.fitted import ARRAYS, TREE, predict_fitted, read_fitted, write_fitted
from heads.folds.crossfit import crossfit
from heads.registry import head_class, make_head
from heads.testing import folds_of, make_rows, rows_for
from store.errors import CorruptFileError, HeadError
from tests.fake_rows import FITTABLE, QUICK, with_one_core

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)
TRAIN, LOG_PRICE = make_rows(160)
TEST = make_rows(30, seed=5)[0]


def run(name: str, **params: Any) -> tuple[Head, FoldPredictions]:
    head = make_head(name, QUICK.get(name, {}) | params)
    train, test = rows_for(type(head), TRAIN), rows_for(type(head), TEST)
    return head, crossfit(head, train, LOG_PRICE, folds_of(train), test)


def there_and_back(name: str, result: FoldPredictions) -> list[Head]:
    files = write_fitted(name, result.fold_models or (result.model,))
    train = rows_for(head_class(name), TRAIN)

    def of_ids(ids: pa.Array) -> Rows:
        return train.subset(pc.index_in(ids, value_set=train.sample_id).to_numpy())

    return read_fitted(files.__getitem__, of_ids)


@pytest.mark.parametrize("name", FITTABLE)
def test_a_head_that_was_written_and_read_predicts_the_test_rows_alike_together_and_one_by_one(
    name: str,
) -> None:
    head, result = run(name)
    models = there_and_back(name, result)
    test = rows_for(type(head), TEST)
    assert result.test is not None
    np.testing.assert_allclose(predict_fitted(models, test), result.test, rtol=0, atol=1e-9)
    backwards = np.arange(len(test))[::-1]
    one_by_one = np.concatenate(
        [predict_fitted(models, test.subset(backwards[i : i + 1])) for i in range(30)]
    )
    np.testing.assert_allclose(one_by_one[::-1], result.test, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["fusion", "mlp-layernorm"])
def test_a_network_trained_in_bf16_prices_a_row_alike_whatever_is_beside_it(name: str) -> None:
    head, result = run(name, precision="bf16")
    test = rows_for(type(head), TEST)
    alone = np.concatenate(
        [predict_fitted(result.fold_models, test.subset(np.array([i]))) for i in range(len(test))]
    )
    np.testing.assert_allclose(alone, result.test, rtol=0, atol=1e-6)


def test_brands_that_spacy_finds_are_found_again() -> None:
    head, result = run("xgboost-baseline", brands=True)
    models = there_and_back("xgboost-baseline", result)
    assert result.test is not None
    np.testing.assert_allclose(predict_fitted(models, rows_for(type(head), TEST)), result.test, atol=1e-9)


def test_a_landmark_kernel_and_vectors_in_place_of_components_come_back_as_well() -> None:
    for name, params in (
        ("kernel-ridge", {"exact_rows": 50, "landmarks": 40}),
        ("lightgbm", {"components": 0}),
        ("xgboost", {"components": 4}),
    ):
        _, result = run(name, **params)
        assert result.test is not None
        np.testing.assert_allclose(predict_fitted(there_and_back(name, result), TEST), result.test, atol=1e-6)


@dataclass(kw_only=True, eq=False)
class Opaque(Head):
    name = "opaque"
    summary = "keeps what can't be written"

    def _fit(self, rows: Rows, log_price: np.ndarray) -> None:
        self.model_ = {"inner": iter(())}


def test_what_can_not_be_written_without_pickle_is_an_error_that_names_it() -> None:
    with pytest.raises(
        HeadError, match=r"opaque can't be packed: model_\['inner'\] has the type builtins\.tuple_iterator"
    ):
        write_fitted("opaque", [Opaque().fit(TRAIN, LOG_PRICE)])


def test_a_file_that_names_a_foreign_class_makes_nothing_of_it() -> None:
    _, result = run("ridge")
    files = write_fitted("ridge", [result.model])
    record = json.loads(files[TREE])
    record["models"][0]["state"]["layout_"]["class"] = "os:system"
    with pytest.raises(CorruptFileError, match="names os:system, which is none of shelfprice's"):
        read_fitted({TREE: json.dumps(record).encode(), ARRAYS: files[ARRAYS]}.__getitem__, lambda ids: TRAIN)


def test_a_head_of_another_version_is_refused() -> None:
    files = write_fitted("ridge", [run("ridge")[1].model])
    record = json.loads(files[TREE]) | {"code_version": 99}
    with pytest.raises(HeadError, match=r"ridge was fitted by another version .* fit it again"):
        read_fitted({**files, TREE: json.dumps(record).encode()}.__getitem__, lambda ids: TRAIN)
