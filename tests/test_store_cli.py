import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from store.cli import main
from store.errors import ShelfpriceError


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
