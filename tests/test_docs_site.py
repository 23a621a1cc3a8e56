"""The site builds without a warning, and what its pages name exists."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from store.cli import main
from tests.snippets import blocks, command_lines

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


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

    known = {path for path, _ in walk(main, "shelfprice")}
    notebooks = (ROOT / "examples").glob("*.ipynb")
    for page in [*PAGES, *notebooks]:
        for line in re.findall(r"shelfprice ((?:[a-z]+ ?){1,2})", page.read_text()):
            words = line.split()
            group = f"shelfprice {words[0]}"
            if group in known and any(path.startswith(f"{group} ") for path in known) and len(words) > 1:
                assert f"{group} {words[1]}" in known, f"{page.name}: shelfprice {line}"


def test_every_key_of_the_configuration_is_explained():
    from docs.generated import config_page

    unexplained = re.findall(r"^\| `(\w+)` \|[^\n]*\|  \|$", config_page(), re.MULTILINE)
    assert not unexplained
    assert "----" not in config_page()  # a line that parts a class is no meaning of the field above it


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_of_a_command_that_a_page_shows_is_one_of_it(page):
    for words, is_whole in command_lines(page):
        command, rest = main, words
        while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            command, rest = command.get_command(click.Context(command), rest[0]), rest[1:]
        if isinstance(command, click.Group):
            continue
        context = click.Context(command)
        # An option that the command does not know is an error; in a sentence the last one may lack its value.
        given, _, _ = command.make_parser(context).parse_args(rest if is_whole else [*rest, "VALUE"])
        required = {one.name for one in command.params if one.required}
        assert not is_whole or required <= set(given), f"{page.name}: {words}"


def test_the_start_page_shows_the_python_of_the_readme():
    assert blocks(DOCS / "index.md", "python") == blocks(ROOT / "README.md", "python")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_shows_is_one(page, tmp_path):
    from store.config import load_config

    for code in blocks(page, "toml"):
        (tmp_path / "shelfprice.toml").write_text(code)
        load_config(tmp_path)


def test_a_catalogue_is_read_by_the_command_and_the_python_of_its_page(tmp_path, monkeypatch):
    page = DOCS / "catalogue.md"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(b"an image")
    rows = [f"{i},tea {i},20 bags,{i}.jpg" for i in range(1, 7)]
    Path("new.csv").write_text("sku,title,about,photo\n" + "\n".join(rows))
    Path("shop.csv").write_text("sku,title,about,photo,usd\n" + "\n".join(f"{row},9.5" for row in rows))
    (words, _), *_ = command_lines(page)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    names = {}
    exec(blocks(page, "python")[0], names)
    assert names["report"].is_unchanged
    assert {name: split.n_rows for name, split in names["report"].splits.items()} == {"train": 6, "test": 6}


def test_the_calls_of_a_price_model_on_its_page_are_those_that_it_has():
    from ensemble import PriceModel

    tree = ast.parse(blocks(DOCS / "model.md", "python")[0])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(call, getattr(call.func, "attr", "__init__")) for call in calls]
    assert {"__init__", "fit", "predict", "price", "explain", "evaluate", "save", "load"} <= {
        name for _, name in named
    }
    for call, name in named:
        values = [None] * (len(call.args) + (name != "load"))
        inspect.signature(getattr(PriceModel, name)).bind(*values, **{one.arg: None for one in call.keywords})


@pytest.mark.parametrize("page", [DOCS / "index.md", DOCS / "serving.md"], ids=lambda page: page.name)
def test_the_requests_and_answers_that_a_page_shows_are_those_of_the_server(page):
    from ensemble.model.answers import FLAGS
    from ensemble.serving.answers import Prices

    code = "".join(blocks(page, "sh", "json", "text"))
    bodies = [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'\n", code, re.DOTALL)]
    answers = [
        json.loads(found) for found in re.findall(r'^\{"currency".*?\}\]\}', code, re.MULTILINE | re.DOTALL)
    ]
    assert bodies
    assert answers
    assert all(set(body) == {"products"} for body in bodies)
    for answer in answers:
        assert Prices.model_validate(answer).model_dump() == answer
        assert {flag for price in answer["prices"] for flag in price["flags"]} <= set(FLAGS)
