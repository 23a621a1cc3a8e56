"""What docs/python.md shows runs as it stands, and gives what the page shows."""

import doctest
import re
from pathlib import Path

import pytest

from heads import registry
from tests.snippets import AboutChecker, copy_vectors, reads_alike

PAGE = Path(__file__).parent.parent / "docs/python.md"


def test_every_line_of_the_page_gives_what_is_shown(readme_python, tmp_path, monkeypatch):
    copy_vectors(readme_python / "run", tmp_path / "run", shards=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = doctest.DocTestParser().get_doctest(
        "".join(blocks), {"__name__": "page"}, PAGE.name, str(PAGE), 0
    )
    assert len(shown.examples) > 30
    said = []
    failed = doctest.DocTestRunner(AboutChecker()).run(shown, out=said.append).failed
    assert not failed, "".join(said)


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
