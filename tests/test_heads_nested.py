import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heads.folds.nested import NestedPlan, inner_cells


@given(st.integers(2, 7), st.integers(1, 2), st.integers(0, 100))
def test_no_model_that_chooses_for_a_fold_met_it_or_the_rows_that_it_is_scored_on(k, n_neighbours, seed):
    group = np.random.default_rng(seed).integers(0, 60, 200)
    fold = (group % k).astype(np.int16)
    plan = NestedPlan.of(fold, group, n_neighbours)
    for held in np.unique(fold).tolist():
        mine = set(plan.cell[fold == held].tolist())
        assert {scored for _, scored in plan.outer[held]} == mine
        assert plan.inner[held]
        for fitted, scored in plan.inner[held]:
            assert scored not in fitted
            assert not mine & fitted
            assert scored not in mine
            assert fitted
        for fitted, _ in plan.outer[held]:
            assert fitted == plan.cells - mine


@given(st.integers(2, 6), st.integers(0, 100))
def test_inner_cells_keep_groups_whole_whatever_the_row_order(k, seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 50, 150)
    cell = inner_cells(group, k)
    for value in np.unique(group):
        assert len(set(cell[group == value].tolist())) == 1
    order = rng.permutation(150)
    np.testing.assert_array_equal(inner_cells(group[order], k), cell[order])


def test_the_setting_with_the_smallest_inner_error_is_taken_and_one_that_failed_never():
    fold = np.repeat([0, 1, 2], 4)
    plan = NestedPlan.of(fold, np.arange(12), 1)
    log_price = np.zeros(12)
    predicted = {split: np.tile([0.5, 0.1, np.nan], (4, 1)) for split in plan.inner_splits}
    errors = plan.inner_errors(log_price, predicted)
    assert {int(np.argmin(found)) for found in errors.values()} == {1}
    outer = {split: np.tile([3.0, 7.0, 9.0], (4, 1)) for splits in plan.outer.values() for split in splits}
    oof, by_setting = plan.collect(log_price, outer, dict.fromkeys(range(3), 1))
    np.testing.assert_array_equal(oof, np.full(12, 7.0))
    assert by_setting.shape == (3,)
