import numpy as np
import pytest

from ensemble.report.dimensions import Dimension, bands, levels
from ensemble.report.slices import score_slices
from store.metric import smape_rows

N_ROWS = 1500
UNITS = ("ounce", "fl oz", "count", "gram", "pound")


def planted(seed, *, category=0.0, unit=0.0):
    """Rows whose errors have nothing to do with any slice, but for those planted: factors of the predicted price.

    Errors have heavy tails, rows come in groups, and dear rows err no more than cheap ones.
    """
    generator = np.random.default_rng(seed)
    group = np.sort(generator.integers(0, N_ROWS * 3 // 4, N_ROWS))
    predicted = generator.normal(3, 1, N_ROWS)
    error = 0.25 * generator.standard_t(4, N_ROWS) + 0.1 * generator.normal(size=N_ROWS)[group % N_ROWS]
    categories = [f"c{i}" for i in generator.integers(0, 10, N_ROWS)]
    units = list(generator.choice(UNITS, N_ROWS, p=[0.4, 0.25, 0.2, 0.1, 0.05]))
    log_actual = predicted - error
    error += category * np.array([one == "c3" for one in categories])
    error += unit * np.array([one == "pound" for one in units])
    predicted = log_actual + error
    lengths = generator.lognormal(5, 1, N_ROWS)
    dimensions = [
        bands("predicted price", np.exp(predicted), 6, str),
        levels("category", categories),
        levels("unit", units),
        bands("length", lengths, 5, str),
        levels("brand", [f"b{i}" for i in generator.zipf(1.6, N_ROWS)]),
        Dimension("fold", tuple("01234"), group % 5),
    ]
    return dimensions, smape_rows(log_actual, predicted), error, group


def test_of_20_catalogues_without_fault_at_most_one_has_a_slice_marked():
    marked = 0
    for seed in range(20):
        slices, findings = score_slices(*planted(seed), seed=seed)
        marked += any(one.marks for several in slices.values() for one in several)
        assert bool(findings) <= any(one.marks for several in slices.values() for one in several)
    assert marked <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_category_30_percent_too_high_and_a_misread_unit_are_the_first_two_findings(seed):
    _, findings = score_slices(*planted(seed, category=np.log(1.3), unit=np.log(16)), seed=seed)
    assert [(one.slice.dimension, one.slice.label) for one in findings] == [
        ("unit", "pound"),
        ("category", "c3"),
    ]
    assert {one.kind for one in findings} == {"too high"} or findings[0].kind == "worse"
    assert findings[1].slice.bias == pytest.approx(0.3, abs=0.1)
    assert "priced" in findings[1].words
    assert "too high" in findings[1].words
    # The score would be lower by this if the slice were as good as the rest, or its prices not off by their middle.
    dimensions, loss, error, _ = planted(seed, category=np.log(1.3), unit=np.log(16))
    for found in findings:
        (cut,) = [one for one in dimensions if one.name == found.slice.dimension]
        here = cut.codes == cut.labels.index(found.slice.label)
        mended = smape_rows(np.zeros(here.sum()), error[here] - np.median(error[here]))
        left = loss[~here].mean() if found.kind == "worse" else mended.mean()
        assert found.points == pytest.approx((loss[here].mean() - left) * here.mean())


def test_the_slices_of_a_dimension_add_up_to_the_score():
    dimensions, loss, error, group = planted(0)
    inside = np.abs(error) < 0.5
    slices, _ = score_slices(dimensions, loss, error, group, 0, inside)
    for several in slices.values():
        assert sum(one.n_rows for one in several) == N_ROWS
        assert sum(one.smape * one.n_rows for one in several) / N_ROWS == pytest.approx(loss.mean())
        assert sum(one.covered * one.n_rows for one in several) / N_ROWS == pytest.approx(inside.mean())
        assert all(one.interval[0] <= one.smape <= one.interval[1] for one in several)


def test_a_slice_of_few_groups_is_scored_and_never_marked():
    group = np.repeat(np.arange(60), 10)
    error = np.where(group < 5, 2.0, 0.05)
    one = Dimension("kind", ("bad", "good"), (group >= 5).astype(int))
    slices, findings = score_slices([one], smape_rows(np.zeros(600), error), error, group, 0)
    assert slices["kind"][0].smape > 100
    assert slices["kind"][0].n_groups == 5
    assert not findings
    assert not slices["kind"][0].marks
