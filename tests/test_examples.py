"""Every script and notebook under examples/ runs, in a folder of its own, and says what it is there to show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_models import save_tiny_bert, save_tiny_timm
from tests.snippets import copy_vectors

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = {
    "vectors_in_sklearn.py": [r"heads.Ridge: SMAPE \d+\.\d", r"\nRidgeCV: SMAPE \d+\.\d"],
    "your_own_head.py": ["bayes passes every check", "bayes on vectors alone: SMAPE", r"predictions/bayes-\w+"],
}  # fmt: skip
SMALL = {"N_TRAIN": 80, "N_TEST": 20}
NOTEBOOKS = {
    "first_price.ipynb": (
        ["0 embedded by the second call", "blend, honest", r"SMAPE of the test rows: \d+\.\d; expected", "20 prices"],
        {},
    ),
    "your_own_catalogue.ipynb": (
        [r"refused: \{.*\}", "'ask us'", "'sample_id': 'A2'", r"20 prices in .*own-catalogue/run/submission.csv"],
        {},
    ),
    "compare_encoders.ipynb": (
        [r"(better than|worse than|no certain difference from)", r"all of them +SMAPE \d+", r"embedded: \[0\]"],
        {"N_TRAIN": 120, "N_TEST": None, "ENCODERS": ["TEXT@structured", "IMAGE"]},
    ),
    "finetune_and_serve.ipynb": (
        [r"ridge +SMAPE \d+\.\d on frozen", "finetuned:tuned", r"'price': \d+\.\d", r"base price \d", "exit code 0"],
        {"ENCODER": "TEXT@structured", "SETTINGS": "--epochs 1 --warmup-epochs 1 --batch-rows 16 --precision fp32"},
    ),
}  # fmt: skip
TOML = """
[embed]
vectors = ["TEXT@structured", "IMAGE"]
max_coverage_gap = 1.0
[folds]
k = 2
[heads]
vectors = ["TEXT@structured", "IMAGE"]
run = ["ridge", "sparse"]
learning_curve = false
"""


def test_every_example_is_known():
    assert {path.name for path in EXAMPLES.iterdir()} == {*SCRIPTS, *NOTEBOOKS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_and_shows_what_it_is_for(script, readme_python, tmp_path):
    copy_vectors(readme_python / "run", tmp_path / "here/run")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(tmp_path / "here")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for pattern in SCRIPTS[script]:
        assert re.search(pattern, done.stdout), f"no {pattern!r} in\n{done.stdout}"
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """TEXT, IMAGE -> folders of encoders with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "TEXT": f"{save_tiny_bert(folder / 'text')}?max_tokens=24",
        "IMAGE": str(save_tiny_timm(folder / "image")),
    }


def with_folders(value, tiny):
    """The value with TEXT and IMAGE replaced."""
    if isinstance(value, list):
        return [with_folders(one, tiny) for one in value]
    return re.sub("TEXT|IMAGE", lambda match: tiny[match[0]], value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks."""
    from tests.notebooks import running_kernel

    with running_kernel() as kernel:
        yield kernel


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_what_it_is_for(name, kernel, tiny, tmp_path):
    from tests.notebooks import execute, printed

    patterns, changes = NOTEBOOKS[name]
    run = tmp_path / name.partition(".")[0].replace("_", "-").removeprefix("your-") / "run"
    run.mkdir(parents=True)
    (run / "shelfprice.toml").write_text(with_folders(TOML, tiny))
    small = {key: with_folders(value, tiny) for key, value in (SMALL | changes).items() if value is not None}
    shown = printed(execute(EXAMPLES / name, tmp_path, small, kernel))
    for pattern in patterns:
        assert re.search(pattern, shown), f"no {pattern!r} in\n{shown}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_with_the_outputs_of_every_cell_and_is_small(name):
    import json

    text = (EXAMPLES / name).read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", ()) for output in outputs) > 0
    assert len(text) < 300_000
    said = " ".join(str(output.get("text", "")) for output in outputs)
    assert not re.search(r"(?<![\w:/.])/\w+/", said)  # a path of the machine that it ran on
