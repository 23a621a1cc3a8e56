import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from store import progress
from store.cli import main
from store.errors import ShelfpriceError
from store.options import InOrder, Sectioned, say
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog

ROOT = Path(__file__).parent.parent


def commands(command, path=()):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


ALL = dict(commands(main))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_every_option_says_what_it_does(path):
    command = ALL[path]
    assert command.help or command.short_help, path
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.name}"


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_of_every_command_can_be_printed(path):
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if isinstance(command, click.Group)])
def test_a_list_of_commands_cuts_no_sentence(path):
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output
    assert "..." not in shown.partition("Options:")[2]


@pytest.mark.parametrize(
    "path", [path for path, command in ALL.items() if not isinstance(command, click.Group)], ids=" ".join
)
def test_every_command_has_examples_that_it_understands(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "model", "models", "demo"):
        (tmp_path / folder).mkdir()
    for file in (
        "train.csv",
        "test.csv",
        "new.csv",
        "images.tar",
        "token",
        "demo/train.csv",
        "demo/test.csv",
    ):
        (tmp_path / file).touch()
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output
    lines = shown.partition("Examples:")[2].partition("Options:")[0].strip().splitlines()
    assert lines
    for line in lines:
        words = line.split()
        assert tuple(words[1 : 1 + len(path)]) == path
        assert words[0] == "shelfprice"
        ALL[path].make_context(path[-1], words[1 + len(path) :])  # refuses what a call would refuse


def test_a_long_help_lists_every_option_once_and_a_group_every_command(tmp_path):
    grouped = {path: command for path, command in ALL.items() if isinstance(command, Sectioned)}
    assert len(grouped) > 3
    for path, command in grouped.items():
        shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output
        for title in ("Options", *command.sections):
            assert f"\n{title}:\n" in shown
        listed = re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown.partition("\nOptions:")[2], re.MULTILINE)
        options = [one.opts for one in command.params if isinstance(one, click.Option) and not one.hidden]
        assert sorted(listed) == sorted(["--help", *(names[-1] for names in options)])
    for path, command in ALL.items():
        if isinstance(command, InOrder):
            assert set(command.order) == set(command.commands), path


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from click.testing import CliRunner; from store.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'xgboost', 'lightgbm', 'faiss', 'sklearn', 'scipy', 'pandas', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_our_errors_become_one_line_and_bugs_keep_their_traceback(monkeypatch):
    def ours():
        raise ShelfpriceError("the rule, the value, the next step")

    def bug():
        raise KeyError("bug")

    for name, callback in (("ours", ours), ("bug", bug)):
        monkeypatch.setitem(ALL, (name,), None)
        main.add_command(click.Command(name, callback=callback))
    monkeypatch.setattr(main, "get_command", lambda context, name: main.commands[name])
    result = CliRunner().invoke(main, ["ours"])
    assert result.exit_code == 1
    assert result.output == "Error: the rule, the value, the next step\n"
    assert isinstance(CliRunner().invoke(main, ["bug"]).exception, KeyError)
    main.commands.clear()


@pytest.mark.parametrize(
    ("command", "at_work", "said"),
    [
        (
            ("ensemble", "blend"),
            "ensemble.blend.run_blend",
            "stopped; what was finished is kept: run the same command again to go on",
        ),
        (
            ("embed", "run", "--offline"),
            "embed.catalogue.embed_catalogue",
            "stopped; what was embedded is published: run the command again to go on",
        ),
        (
            ("embed", "finetune", "minilm", "--offline"),
            "embed.finetune.run.finetune",
            "stopped: the same command goes on from the last checkpoint",
        ),
    ],
)
def test_ctrl_c_says_how_to_go_on_with_a_code_of_its_own(tmp_path, monkeypatch, command, at_work, said):
    monkeypatch.setattr(at_work, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr("embed.finetune.job.prepare_job", lambda *args: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever ran in this process earlier
    try:
        result = CliRunner().invoke(main, [*command, "-w", str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert said in result.stderr


def test_further_lines_of_a_broken_line_stand_under_its_text(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    say("vectors     minilm@structured " + "train 292 of 292, " * 4)
    say("a sentence without a label, " * 4)
    _, second, _, fourth = stream.getvalue().splitlines()
    assert [len(line) - len(line.lstrip()) for line in (second, fourth)] == [14, 2]


def test_a_line_longer_than_a_terminal_is_broken_between_words(monkeypatch):
    line = "  expect 10.25 on the test rows, " + "if they are like the training rows, " * 4 + "/a/path" * 20
    for is_terminal in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda found=is_terminal: found
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", "200")
        say(line)
        lines = stream.getvalue().splitlines()
        assert [word for one in lines for word in one.split()] == line.split()
        assert len(lines) == (4 if is_terminal else 1)
        assert all(len(one) <= 80 and one.startswith("  ") for one in lines[:-1])


def test_an_error_is_broken_into_lines_on_a_terminal_alone(tmp_path, monkeypatch):
    for is_terminal in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda found=is_terminal: found
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(SystemExit, match="1"):
            main(["catalog", "show", "-w", str(tmp_path / "w")])
        words = f"Error: no catalogue in {tmp_path / 'w'}: run 'shelfprice catalog ingest"
        assert " ".join(stream.getvalue().split()).startswith(words)
        lines = stream.getvalue().splitlines()
        assert (len(lines) > 1) == is_terminal
        assert all(len(one) <= 80 or " " not in one for one in lines) == is_terminal


@pytest.mark.parametrize(
    ("command", "at_work", "moving"),
    [
        (("heads", "run"), "heads.run.run_heads", "store.progress.moving"),
        (("ensemble", "blend"), "heads.defaults.configured_heads", "store.progress.moving"),
        (("ensemble", "audit"), "ensemble.audit.run.read_evidence", "ensemble.audit.run.moving"),
        (("catalog", "clean"), "store.catalog.clean.run.clean_catalog", "store.progress.moving"),
    ],
)
def test_work_begins_once_its_line_moves(tmp_path, monkeypatch, command, at_work, moving):
    seen = []

    @contextlib.contextmanager
    def recorded(said):
        seen.append(said)
        yield
        raise AssertionError("the work was not done")

    def work(*args, **kwargs):
        seen.append("at work")
        raise ShelfpriceError("far enough")

    publish_catalog(Workspace(tmp_path), catalog_table([{"sample_id": 1, "price": 1.0}]))
    monkeypatch.setattr(moving, recorded)
    monkeypatch.setattr(at_work, work)
    result = CliRunner().invoke(main, [*command, "-w", str(tmp_path)])
    assert result.stderr == "Error: far enough\n"
    assert seen[1:] == ["at work"]


def test_exit_codes_are_those_of_the_table(tmp_path):
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "docs/report.md").read_text(), re.MULTILINE))
    assert list(table) == ["0", "1", "2", "130"]  # 130: see above
    for code, command in (
        (0, ["heads", "list"]),
        (1, ["catalog", "show"]),
        (2, ["catalog", "show", "--no-such"]),
    ):
        result = CliRunner().invoke(main, [*command, "-w", str(tmp_path)] if code else command)
        assert result.exit_code == code, result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_options_are_completed(shell):
    def complete(**environment):
        environment = {"_SHELFPRICE_COMPLETE": f"{shell}_{environment.pop('what')}", **environment}
        return CliRunner().invoke(main, [], prog_name="shelfprice", env=environment).stdout

    assert f"_SHELFPRICE_COMPLETE={shell}_complete" in complete(what="source")
    words, at = ("shelfprice ensemble", "rep") if shell == "fish" else ("shelfprice ensemble rep", "2")
    assert "report" in complete(what="complete", COMP_WORDS=words, COMP_CWORD=at)


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    @click.command()
    def command():
        say("fine", colour="green")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert CliRunner().invoke(command, color=True).stdout == "\x1b[32mfine\x1b[0m\n"
    assert CliRunner().invoke(command).stdout == "fine\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(command, color=True).stdout == "fine\n"


def test_work_that_takes_long_is_seen_to_move_on_a_terminal_alone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return self.is_terminal

    for is_terminal in (True, False):
        stream = Terminal()
        stream.is_terminal = is_terminal
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "SECONDS", 0.02)
        with progress.moving("blend") as line:
            line.say("weights " * 40)
            before, deadline = len(stream.getvalue()), time.monotonic() + 20
            while is_terminal and len(stream.getvalue()) <= before and time.monotonic() < deadline:
                time.sleep(0.02)
        shown = stream.getvalue()
        assert bool(shown) == is_terminal
        assert all(len(part) <= 80 for part in shown.split("\r"))
        if is_terminal:
            assert "blend: 00:00" in shown
            assert len(shown) > before


@pytest.mark.parametrize(
    "line",
    ["ensemble blend", "ensemble report", "ensemble submit", "ensemble pack --to model", "heads run", "heads plan",
     "embed run", "catalog show", "predict new.csv"],
)  # fmt: skip
def test_a_workspace_without_a_catalogue_leads_to_the_ingest(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("id,text\n1,tea\n")
    done = CliRunner().invoke(main, [*line.split(), "-w", "nowhere"])
    assert done.exit_code == 1
    assert "no catalogue in nowhere: run 'shelfprice catalog ingest --train FILE -w nowhere'" in done.stderr


@pytest.mark.parametrize("line", ["predict new.csv --model nomodel", "serve --model nomodel"])
def test_a_folder_without_a_model_leads_to_the_command_that_makes_one(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("id,text\n1,tea\n")
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == 1
    assert "make one with 'shelfprice ensemble pack --to nomodel'" in done.stderr
