import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from store.cli import main
from store.printable import printable

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eabc\x9b31m"


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Tea, grün, 茶, 🍵\tx", "Tea, grün, 茶, 🍵\tx"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m \x7f \r", "\\x9b31m \\x7f \\x0d"),
        ("a\u202eb\u2066c\u2028d", "a\\u202eb\\u2066c\\u2028d"),
        ("\udcff", "\\udcff"),
        ("a\u061cb", "a\\u061cb"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_as_an_escape(text, shown):
    assert printable(text) == shown


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.csv"
    rows = [f'"{EVIL}{i}","Tea {EVIL} {i % 2}",{i % 3 + 1}' for i in range(40)]
    rows[3] = f'"{EVIL}3",x,"{EVIL}"'
    path.write_text("sample_id,catalog_content,price\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("max_rejected", ["0", "0.1"])
def test_no_id_name_or_cell_reaches_the_terminal_as_it_is(tmp_path, train, max_rejected):
    def run(*command):
        return CliRunner().invoke(main, ["catalog", *command, "-w", str(tmp_path / "w")]).output

    printed = run("ingest", "--train", str(train), "--max-rejected", max_rejected)
    printed += run("ingest", "--train", str(train), "--max-rejected", max_rejected, "--price-column", EVIL)
    printed += run("folds") + run("clean") + run("show", "--text")
    assert "x1b]0;owned" in printed
    assert not set("\x1b\x07\x9b\u202e") & set(printed)


def test_json_for_machines_says_the_same_text_in_its_own_escapes(tmp_path, train):
    command = ["catalog", "ingest", "--train", str(train), "--max-rejected", "1", "--json"]
    printed = CliRunner().invoke(main, [*command, "-w", str(tmp_path / f"w{chr(0x9B)}")]).stdout
    assert not set("\x1b\x07\x9b") & set(printed)
    assert json.loads(printed)["splits"]["train"]["n_rows"] == 39


def test_every_line_for_people_is_printed_by_the_one_function_that_escapes():
    root = Path(main.callback.__code__.co_filename).parent.parent
    own = {root / "store/options.py", root / "store/catalog/download/progress.py"}  # the latter a fixed line
    rooms = [root / room for room in ("store", "embed", "heads", "ensemble")]
    printing = [p for room in rooms for p in room.rglob("*.py") if "click.echo(" in p.read_text()]
    assert set(printing) <= own
