"""The site builds without a warning, and what its pages name exists."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it: a dead link, a lost anchor or a page outside the menu is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=_quiet(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def _quiet():
    import os

    return os.environ | {"NO_MKDOCS_2_WARNING": "1"}


def test_the_reference_has_every_command_key_and_public_name(site):
    import embed
    import ensemble
    import heads
    import store

    commands = (site / "reference/commands/index.html").read_text()
    for path in ("shelfprice catalog ingest", "shelfprice embed run", "shelfprice ensemble blend"):
        assert f"{path}<" in commands
    assert "--max-failures" in commands
    config = (site / "reference/config/index.html").read_text()
    assert "max_coverage_gap" in config
    assert "efficientnet-lite0" in config
    names = (site / "reference/api/index.html").read_text()
    for room in (store, embed, heads, ensemble):
        for name in room.__all__:
            assert f".{name}" in names, name


def test_every_notebook_is_a_page_with_its_plots(site):
    for notebook in (ROOT / "examples").glob("*.ipynb"):
        if "image/png" not in notebook.read_text():
            continue
        page = (site / "examples" / notebook.stem / "index.html").read_text()
        plots = re.findall(r'<img[^>]* src="?\.\./([\w-]+\.(?:png|svg))', page)
        assert plots, notebook
        assert all((site / "examples" / plot).stat().st_size > 1000 for plot in plots)


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\" >]+)", page.read_text())
        assert not loaded, f"{page}: {loaded}"


def test_every_function_that_the_architecture_page_names_is_where_it_says():
    named = re.findall(r"`([\w/]+\.py)` `(\w+)`", (DOCS / "architecture.md").read_text())
    assert len(named) > 10
    for file, name in named:
        defined = {getattr(node, "name", "") for node in ast.parse((ROOT / file).read_text()).body}
        assert name in defined, f"{file} has no {name}"


def test_every_command_that_a_page_names_exists():
    from docs.generated import walk
    from store.cli import main

    known = {path for path, _ in walk(main, "shelfprice")}
    notebooks = (ROOT / "examples").glob("*.ipynb")
    for page in [*DOCS.glob("*.md"), *notebooks, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for line in re.findall(r"shelfprice ((?:[a-z]+ ?){1,2})", page.read_text()):
            words = line.split()
            group = f"shelfprice {words[0]}"
            if group in known and any(path.startswith(f"{group} ") for path in known) and len(words) > 1:
                assert f"{group} {words[1]}" in known, f"{page.name}: shelfprice {line}"


def test_every_key_of_the_configuration_is_explained():
    from docs.generated import config_page

    unexplained = re.findall(r"^\| `(\w+)` \|[^\n]*\|  \|$", config_page(), re.MULTILINE)
    assert not unexplained
