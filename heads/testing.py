"""`check_head`, which every head must pass, those of this project and of other packages.

It makes its own rows: two vector sets, fields, texts, and prices that depend on all of them.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from heads.base import FoldPredictions, Head
from heads.features.rows import CategoricalColumn, FieldTable, Rows
from heads.folds.crossfit import crossfit
from store.errors import HeadError
from store.metric import smape_log
from store.vectors.matrix import Matrix

N_ROWS = 400
BRANDS = ("acme", "bolt", "crest", "dune", "elm", "fern", "gale", "hart")


def make_rows(n_rows: int, seed: int = 0, no_image: float = 0.2) -> tuple[Rows, np.ndarray]:
    """Rows in pairs that share a group, and their log price of shape (n_rows,).

    A quarter of the price's spread is noise; the rest is told by brand, size, both vectors and the words.

    Args:
        no_image: share of rows without a vector of the second set.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n_rows) // 2
    brand = rng.integers(0, len(BRANDS), n_rows)
    size = rng.lognormal(4, 1, n_rows)
    text, image = rng.standard_normal((n_rows, 12)), rng.standard_normal((n_rows, 6))
    valid = rng.random(n_rows) >= no_image
    signal = 0.3 * brand + 0.5 * np.log(size) + 0.3 * text[:, 0] + 0.3 * image[:, 0] * valid
    log_price = 1 + signal + rng.normal(0, 0.25, n_rows)
    names = [f"{BRANDS[b]} thing number{b} of {s:.0f} g" for b, s in zip(brand, size, strict=True)]
    numbers = np.column_stack(
        [np.where(rng.random(n_rows) < 0.1, np.nan, np.log(size)), np.zeros(n_rows), rng.random(n_rows) < 0.5]
    )
    fields = FieldTable(
        ("log_value", "log_pack_count", "flag:organic"),
        numbers,
        {
            "unit": CategoricalColumn(("g",), np.zeros(n_rows, np.int32)),
            "fact:brand": CategoricalColumn(BRANDS, brand.astype(np.int32)),
        },
    )
    texts = np.array(names, dtype=object)
    rows = Rows(
        sample_id=pa.array(np.arange(n_rows) + 1000),
        matrices=(
            Matrix("minilm@structured", text.astype(np.float16), np.ones(n_rows, dtype=bool)),
            Matrix("efficientnet-lite0", (image * valid[:, None]).astype(np.float16), valid),
        ),
        fields=fields,
        texts={composition: texts for composition in ("full", "name", "structured")},
        group=group,
    )
    return rows, log_price


def rows_for(head: type[Head], rows: Rows) -> Rows:
    """The rows with the vector sets that a head reads; one that names its own gets as many of the made ones."""
    if head.vectors is None:
        return rows
    return rows.select([matrix.name for matrix in rows.matrices[: len(head.vectors)]])


def folds_of(rows: Rows, k: int = 4) -> np.ndarray:
    """A fold a row, groups whole, shape (n_rows,)."""
    return (rows.group % k).astype(np.int16)


@dataclass(frozen=True)
class CheckedHead:
    """A head under check, and what several checks compare with."""

    head: Head  # unfitted
    tolerance: float = 1e-3  # see `check_head`

    def run(
        self, rows: Rows, log_price: np.ndarray, fold: np.ndarray, test: Rows | None = None
    ) -> FoldPredictions:
        """Out-of-fold predictions of a fresh head."""
        test = None if test is None else rows_for(type(self.head), test)
        return crossfit(self.head.clone(), rows_for(type(self.head), rows), log_price, fold, test)

    @cached_property
    def plain(self) -> FoldPredictions:
        """Real prices, four folds, test rows."""
        rows, log_price = make_rows(N_ROWS)
        return self.run(rows, log_price, folds_of(rows), make_rows(200, seed=5)[0])


def check_head(head: Head, *, tolerance: float = 1e-3) -> None:
    """Raise where a head leaks prices, depends on other rows or fails on odd input; it takes about ten fits of 300 rows.

    Call it in a test, with parameters that make the head quick. For heads that take a plain
    matrix, scikit-learn's `check_estimator` checks the rest.

    Args:
        head: unfitted.
        tolerance: how far, in log price, predictions of a fold may move in the median where other rows of that
            fold are left out.

    Raises:
        AssertionError: names the check and what was found.
    """
    checked = CheckedHead(head, tolerance)
    for check in CHECKS:
        try:
            check(checked)
        except AssertionError as error:
            words = check.__name__.replace("_", " ")
            raise AssertionError(f"head {head.name!r} fails the check that {words}: {error}") from error


# ---- the checks: each name says what holds -------------------------------------------------------


def parameters_are_fields_with_defaults(checked: CheckedHead) -> None:
    head, cls = checked.head, type(checked.head)
    _hold(isinstance(cls.name, str) and cls.summary, "the class needs a name and a summary of one line")
    fields = {field.name for field in dataclasses.fields(cls)}
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        _hold(
            name in fields or "ClassVar" in str(annotation),
            f"parameter {name} is no field: decorate the class with @dataclass(kw_only=True, eq=False)",
        )
    _hold(cls.__hash__, "it must be hashable: decorate the class with @dataclass(kw_only=True, eq=False)")
    _hold(set(cls().get_params()) == fields, "its constructor must store every parameter under its own name")
    _hold(head.clone().get_params() == head.get_params(), "a clone has other parameters")
    json.dumps(head.recorded_params())  # they name its predictions
    try:
        head.clone().set_params(no_such_parameter=1)
    except HeadError:
        return
    raise AssertionError("an unknown parameter is accepted without an error")


def prices_of_a_fold_do_not_enter_its_own_predictions(checked: CheckedHead) -> None:
    rows, log_price = make_rows(N_ROWS)
    fold = folds_of(rows)
    changed = log_price.copy()
    held = fold == 2
    changed[held] = np.random.default_rng(9).normal(3, 2, held.sum())
    before, after = checked.plain.oof, checked.run(rows, changed, fold).oof
    # Single precision rounds as memory happens to lie; a price that leaked would move its row by far more.
    _close(before[held], after[held], 1e-5, "other prices of a fold move that fold's own predictions")
    _hold(not np.allclose(before[~held], after[~held]), "other prices of a fold move no prediction at all")


def vectors_fields_and_words_of_a_fold_do_not_enter_predictions_of_its_other_rows(
    checked: CheckedHead,
) -> None:
    """Rows of a fold are predicted one by one: a row's neighbours in its fold say nothing about it."""
    rows, log_price = make_rows(N_ROWS)
    fold = folds_of(rows)
    keep = (fold != 2) | (np.arange(N_ROWS) % 16 < 6)
    whole = checked.plain.oof
    fewer = checked.run(rows.subset(keep), log_price[keep], fold[keep]).oof
    both = keep & (fold == 2)
    gap = float(np.median(np.abs(whole[both] - fewer[fold[keep] == 2])))
    _hold(
        gap < checked.tolerance,
        f"they move by {gap:.2g} in the median, more than tolerance={checked.tolerance:g}",
    )


def shuffled_prices_leave_no_skill(checked: CheckedHead) -> None:
    rows, log_price = make_rows(N_ROWS)
    shuffled = np.random.default_rng(3).permutation(log_price)
    fold = folds_of(rows)
    constant = np.array([np.median(shuffled[fold != f]) for f in fold])
    noise = 3 * 200 * np.tanh(np.abs(shuffled - constant) / 2).std() / np.sqrt(N_ROWS)
    found, least = (
        smape_log(shuffled, checked.run(rows, shuffled, fold).oof),
        smape_log(shuffled, constant) - noise,
    )
    _hold(
        found > least,
        f"SMAPE {found:.2f} on shuffled prices, the score of a head without leaks is at least {least:.2f}",
    )


def real_prices_are_predicted_better_than_by_their_median(checked: CheckedHead) -> None:
    _, log_price = make_rows(N_ROWS)
    _, test_price = make_rows(200, seed=5)
    result = checked.plain
    median = np.full(N_ROWS, np.median(log_price))
    for what, actual, predicted in (
        ("out of fold", log_price, result.oof),
        ("test", test_price, result.test),
    ):
        assert predicted is not None
        found, most = smape_log(actual, predicted), 0.95 * smape_log(actual, median[: len(actual)])
        _hold(found < most, f"SMAPE {found:.2f} {what}, must be below {most:.2f}")


def row_order_does_not_change_what_a_row_is_predicted(checked: CheckedHead) -> None:
    rows, log_price = make_rows(N_ROWS)
    fold = folds_of(rows)
    order = np.random.default_rng(4).permutation(N_ROWS)
    other = checked.run(rows.subset(order), log_price[order], fold[order]).oof
    correlation = float(np.corrcoef(checked.plain.oof[order], other)[0, 1])
    _hold(correlation > 0.9, f"correlation {correlation:.3f} with the rows in another order")


def a_second_fit_predicts_the_same(checked: CheckedHead) -> None:
    rows, log_price = make_rows(80)
    first, second = (checked.run(rows, log_price, folds_of(rows), rows) for _ in range(2))
    _close(first.oof, second.oof, 1e-5, "out-of-fold predictions differ from fit to fit")
    assert first.test is not None
    assert second.test is not None
    _close(first.test, second.test, 1e-5, "test predictions differ from fit to fit")


def one_row_in_is_one_row_out_and_nothing_that_is_given_changes(checked: CheckedHead) -> None:
    given, log_price = make_rows(120)
    rows = rows_for(type(checked.head), given)
    head = checked.head.clone().fit(rows, log_price)
    _hold(isinstance(head, type(checked.head)), "fit must return the head")
    whole = head.predict(rows)
    _hold(
        whole.shape == (120,) and whole.dtype == np.float64, f"got {whole.shape} {whole.dtype} for 120 rows"
    )
    _hold(bool(np.isfinite(whole).all()), "a prediction is not finite")
    some = np.array([7, 3, 50])
    _close(head.predict(rows.subset(some)), whole[some], 1e-4, "a row is predicted by the rows beside it")
    fresh, fresh_price = make_rows(120)
    np.testing.assert_array_equal(log_price, fresh_price)
    np.testing.assert_array_equal(given.fields.X, fresh.fields.X)
    for matrix, untouched in zip(given.matrices, fresh.matrices, strict=True):
        np.testing.assert_array_equal(matrix.X, untouched.X)


def prices_give_what_log_prices_give(checked: CheckedHead) -> None:
    given, log_price = make_rows(120)
    rows = rows_for(type(checked.head), given)
    on_log = checked.head.clone().fit(rows, log_price).predict(rows)
    on_price = checked.head.clone().set_params(target="price").fit(rows, np.exp(log_price)).predict(rows)
    _close(np.log(on_price), on_log, 1e-3, 'target="price" predicts something else')


def rows_of_little_weight_hardly_count_and_equal_weights_change_nothing(checked: CheckedHead) -> None:
    given, log_price = make_rows(200)
    rows, new = (rows_for(type(checked.head), one) for one in (given, make_rows(150, seed=5)[0]))
    wrong = np.random.default_rng(1).random(200) < 0.4

    def predicted(weight: np.ndarray | None) -> np.ndarray:
        weighted = dataclasses.replace(rows, weight=weight)
        return checked.head.clone().fit(weighted, log_price + 1.5 * wrong).predict(new)

    plain = predicted(None)
    _close(predicted(np.full(200, 3.0)), plain, 0.0, "weights that are all the same move predictions")
    lower = float((plain - predicted(np.where(wrong, 0.02, 1.0))).mean())
    _hold(
        lower > 0.2,
        f"where 2 of 5 prices are too high by 1.5 and of weight 0.02, predictions are lower by {lower:.2f} than without "
        "weights, must be 0.2 or more: _fit has to use rows.weight, or leave takes_weights out",
    )


def the_fewest_rows_that_a_fold_may_leave_are_enough(checked: CheckedHead) -> None:
    for fold in ([0, 1, 2, 3], [0, 0, 0, 1, 1, 1]):
        rows, log_price = make_rows(len(fold), no_image=0.5)
        rows = dataclasses.replace(rows, group=np.arange(len(fold)))
        oof = checked.run(rows, log_price, np.array(fold), rows).oof
        _hold(bool(np.isfinite(oof).all()), f"a prediction is not finite with folds {fold}")


def rows_without_any_image_are_predicted(checked: CheckedHead) -> None:
    rows, log_price = make_rows(N_ROWS, no_image=1.0)
    oof = checked.run(rows, log_price, folds_of(rows)).oof
    _hold(bool(np.isfinite(oof).all()), "a prediction is not finite")


def a_fold_whose_rows_alone_have_images_is_predicted(checked: CheckedHead) -> None:
    rows, log_price = make_rows(N_ROWS, no_image=0.0)
    fold = folds_of(rows)
    text, image = rows.matrices
    valid = fold == 1
    image = Matrix(image.name, image.X * valid[:, None], valid)
    oof = checked.run(dataclasses.replace(rows, matrices=(text, image)), log_price, fold).oof
    _hold(bool(np.isfinite(oof).all()), "a prediction is not finite")


def the_model_of_a_run_is_saved_without_pickle(checked: CheckedHead) -> None:
    files = checked.plain.model.files()
    for file, content in files.items():
        _hold(isinstance(content, bytes) and content, f"{file} must be bytes, got {type(content).__name__}")
        _hold(not file.endswith((".pkl", ".pickle", ".joblib")), f"{file}: no pickle is ever loaded")
    json.dumps(checked.plain.learned)  # part of the report


CHECKS: tuple[Callable[[CheckedHead], None], ...] = (
    parameters_are_fields_with_defaults,
    prices_of_a_fold_do_not_enter_its_own_predictions,
    vectors_fields_and_words_of_a_fold_do_not_enter_predictions_of_its_other_rows,
    shuffled_prices_leave_no_skill,
    real_prices_are_predicted_better_than_by_their_median,
    row_order_does_not_change_what_a_row_is_predicted,
    a_second_fit_predicts_the_same,
    one_row_in_is_one_row_out_and_nothing_that_is_given_changes,
    prices_give_what_log_prices_give,
    rows_of_little_weight_hardly_count_and_equal_weights_change_nothing,
    the_fewest_rows_that_a_fold_may_leave_are_enough,
    rows_without_any_image_are_predicted,
    a_fold_whose_rows_alone_have_images_is_predicted,
    the_model_of_a_run_is_saved_without_pickle,
)


def _hold(condition: object, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _close(found: np.ndarray, expected: np.ndarray, most: float, otherwise: str) -> None:
    gap = float(np.abs(found - expected).max())
    _hold(gap <= most, f"{otherwise}: by up to {gap:.2g} in log price, {most:g} are let pass for rounding")
