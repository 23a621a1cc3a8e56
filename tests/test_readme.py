"""What the README and docs/steps.md show can be run: Python, every `shelfprice` line in order, every `make` target."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.minimums import HEAVY
from tests.snippets import blocks, copy_vectors, reads_alike, run_lines

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("shelfprice")
SHOWN = "\n".join((ROOT / page).read_text() for page in ("README.md", "docs/steps.md"))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", SHOWN, re.MULTILINE | re.DOTALL)
COMMANDS = [block for language, block in BLOCKS if not language]
LINES = [line.split("  #")[0].strip() for block in COMMANDS for line in block.splitlines()]
SHELFPRICE = [line for line in LINES if line.startswith("shelfprice ")]
MAKE = [line for line in LINES if line.startswith("make ")]


def test_the_commands_of_a_run_are_shown():
    assert len(SHELFPRICE) >= 8
    assert "make submission" in MAKE


def test_the_python_of_the_readme_runs_and_prints_what_it_says(readme_python):
    shown = (ROOT / "README.md").read_text()
    (output,) = re.findall(r"^```python\n.*?^```\n\n```text\n(.*?)^```", shown, re.MULTILINE | re.DOTALL)
    printed = (readme_python / "stdout").read_text()
    assert reads_alike(printed, output), printed
    assert (readme_python / "run/submission.csv").exists()


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_every_extra_is_in_the_table_of_what_can_be_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    table = (ROOT / "docs/install.md").read_text().partition("| extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(setup["options.extras_require"])


def test_contributors_are_told_which_lower_bounds_are_not_tried():
    told = (ROOT / "CONTRIBUTING.md").read_text().partition("Not tried that way")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", told)) == {*HEAVY, "peft"}


def test_the_first_version_of_the_changes_is_the_one_that_is_built():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    newest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == setup["metadata"]["version"]


def test_users_get_no_tools_of_contributors_and_contributors_do():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = {
        target: subprocess.run(
            ["make", target, "--dry-run", "VENV=/nowhere"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for target in ("install", "submission", "test", "check")
    }
    assert "'.[starter]'" in shown["install"]
    assert not any("dev" in shown[target] for target in ("install", "submission"))
    assert all("'.[starter,dev]'" in shown[target] for target in ("test", "check"))


@pytest.mark.parametrize("line", MAKE)
def test_every_make_line_names_targets_that_exist(line):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def demo_run(readme_python, tmp_path_factory):
    """The folder in which every `shelfprice` line ran, in the order shown."""
    folder = tmp_path_factory.mktemp("readme")
    copy_vectors(readme_python / "run", folder / "run", shards=False)
    small = {"catalog demo": ["--train", "150", "--test", "40"]}
    lines = [shlex.split(line)[1:] + small.get(" ".join(line.split()[1:3]), []) for line in SHELFPRICE]
    (folder / "stdout").write_text(run_lines(lines, folder))
    return folder


def test_the_shelfprice_lines_end_in_a_price_for_every_test_row(demo_run):
    prices = (demo_run / "run" / "submission.csv").read_text().splitlines()
    assert prices[0] == "sample_id,price"
    assert len(prices) == 1 + 40


def test_the_output_that_the_readme_shows_is_what_the_commands_print(demo_run):
    def words(line):
        line = re.sub(r"(?<![\w-])(?:[\d,.]+\d|\d|-)(?=[\s,.)%]|$)", "#", line)
        return re.sub(r"\S*/submission", "submission", " ".join(line.split()))

    shown = blocks(ROOT / "README.md", "text")[0]
    printed = {words(line) for line in (demo_run / "stdout").read_text().splitlines()}
    assert not [line for line in shown.splitlines() if line and words(line) not in printed]


def test_make_does_only_what_a_workspace_lacks(demo_run, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/shelfprice").symlink_to(COMMAND)
    (tmp_path / ".installed").touch()
    demo, run = demo_run / "demo", demo_run / "run"
    before = (run / "submission.csv").read_bytes()
    (run / "submission.csv").unlink()
    (run / "report.html").unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "embeddings", "heads", "submission", f"VENV={tmp_path}", f"TRAIN={demo}/train.csv",
         f"TEST={demo}/test.csv", f"IMAGES={demo}/images", f"WORKSPACE={run}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for did_nothing in ("the catalogue was not rewritten", ": 0 embedded", "already there", "nothing to do"):
        assert did_nothing in done.stdout
    assert "training on" not in done.stderr
    assert (run / "submission.csv").read_bytes() == before
    assert b"</html>" in (run / "report.html").read_bytes()
