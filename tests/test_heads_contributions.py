"""What moved a head's price, part by part, adds up to it."""

import numpy as np
import pytest

from heads.contributions import _WAYS, explain_rows
from heads.registry import make_head
from heads.testing import make_rows, rows_for
from tests.fake_rows import FITTABLE, QUICK, with_one_core

one_core = pytest.fixture(autouse=True, scope="module")(with_one_core)
TRAIN, LOG_PRICE = make_rows(160)
TEST = make_rows(30, seed=5)[0]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, {}) for name in sorted({*_WAYS} & {*FITTABLE})),
        ("lightgbm", {"components": 0}),
        ("xgboost", {"components": 4}),
        ("xgboost-baseline", {"brands": True}),
    ],
)
def test_the_parts_of_a_head_add_up_to_its_log_price_and_none_is_the_head_as_a_whole(
    name: str, params: dict[str, object]
) -> None:
    head = make_head(name, QUICK.get(name, {}) | params)
    head.fit(rows_for(type(head), TRAIN), LOG_PRICE)
    test = rows_for(type(head), TEST)
    found = explain_rows([head, head], test, 2.0)
    total = [found.base + sum(of_row.values()) for of_row in found.parts]
    np.testing.assert_allclose(total, head.predict(test), rtol=0, atol=1e-5)
    parts = {part for of_row in found.parts for part in of_row}
    assert "head" not in {kind for kind, _ in parts}
    assert len(parts) > 2
    if params.get("brands"):
        assert any(name.startswith("fact:brand=") for _, name in parts)
