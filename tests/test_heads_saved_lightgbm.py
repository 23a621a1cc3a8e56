"""Trees of LightGBM without its Python package."""

import copy
from collections.abc import Iterator

import lightgbm
import numpy as np
import pytest

from heads.trees import saved_lightgbm
from heads.trees.saved_lightgbm import SavedTrees


@pytest.fixture(autouse=True)
def found_again() -> Iterator[None]:
    yield
    saved_lightgbm._library.cache_clear()


def boosted() -> tuple[lightgbm.Booster, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(2000, 12))
    X[random.random(X.shape) < 0.1] = np.nan
    X[:, 3] = random.integers(0, 9, len(X))
    data = lightgbm.Dataset(X, np.nan_to_num(2 * X[:, 0] + X[:, 3]), categorical_feature=[3])
    return lightgbm.train({"verbosity": -1}, data, 30), X


@pytest.mark.parametrize("has_library", [True, False])
def test_saved_trees_predict_as_their_booster_does(
    has_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_library:
        saved_lightgbm._library.cache_clear()
        monkeypatch.setattr(saved_lightgbm, "LIBRARY_NAMES", ())
    booster, X = boosted()
    saved = SavedTrees(booster.model_to_string())
    assert (saved_lightgbm._library() is not None) is has_library
    for rows in (X, X.astype(np.float32), X[:1], np.asfortranarray(X), X[::2], X[:0]):
        expected = booster.predict(rows) if len(rows) else np.empty(0)
        if has_library or len(rows):
            np.testing.assert_array_equal(saved.predict(rows, num_threads=1), expected)
    contributions = saved.predict(X[:5], pred_contrib=True)
    np.testing.assert_array_equal(contributions, booster.predict(X[:5], pred_contrib=True))
    np.testing.assert_array_equal(copy.deepcopy(saved).predict(X), booster.predict(X))


@pytest.mark.parametrize("text", ["", "tree\nnonsense", "x" * 100])
def test_a_text_that_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of classes"):
        SavedTrees(text)


def test_rows_of_another_width_are_refused() -> None:
    booster, X = boosted()
    with pytest.raises(ValueError, match="number of features"):
        SavedTrees(booster.model_to_string()).predict(X[:, :5])
