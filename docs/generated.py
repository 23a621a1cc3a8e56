"""Pages of the site that are made from the code: commands, configuration, Python API, notebooks. A hook of MkDocs."""

import base64
import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
COMMON = {  # what parameters mean that many libraries have
    "C": "inverse strength of the regularisation",
    "alpha_max": "largest penalty that is tried",
    "alpha_min": "smallest penalty that is tried",
    "batch_rows": "rows of a step",
    "category_weight": "weight of category columns beside vectors",
    "colsample_bytree": "share of columns that each tree uses",
    "dropout": "share of units left out at random in training",
    "epochs": "passes over the rows, at most",
    "hidden": "units of each layer",
    "huber_bend": "where the loss turns linear, in log price; 0: squared error",
    "learning_rate": "step size of the training",
    "loss": "loss that is minimised, in log price",
    "max_bin": "bins of a column, at most",
    "max_depth": "depth of a tree, at most",
    "min_child_weight": "minimum weight of the rows in a leaf",
    "min_data_in_leaf": "minimum number of rows in a leaf",
    "n_alphas": "penalties that are tried, from the smallest to the largest",
    "n_estimators": "trees",
    "num_leaves": "leaves of a tree, at most",
    "number_weight": "weight of number columns beside vectors",
    "patience": "epochs without a better inner score before it stops",
    "random_state": "seed of all random draws",
    "reg_lambda": "penalty on squared leaf values",
    "schedule": "schedule of the learning rate",
    "seeds": "networks that are averaged",
    "smoothing": "rows of the overall mean that a category's mean is mixed with",
    "subsample": "share of rows that each tree uses",
    "weight_decay": "weight decay of AdamW",
}
ROOMS = ("store", "embed", "heads", "ensemble")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated, and the pages that lie at the top of the repository."""
    pages: dict[str, str | bytes] = {
        "reference/commands.md": commands_page(),
        "reference/config.md": config_page(),
        "reference/api.md": api_page(),
        "contributing.md": top_page("CONTRIBUTING.md"),
        "changes.md": top_page("CHANGELOG.md"),
    }
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        pages |= notebook_pages(notebook)
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to notebooks of the repository lead to their pages."""
    return re.sub(r"\]\(\.\./examples/(\w+)\.ipynb\)", r"](examples/\1.md)", markdown)


def notebook_pages(notebook: Path) -> dict[str, str | bytes]:
    """A notebook as Markdown with the outputs kept in it, and a file for each of its images."""
    place, lines = f"examples/{notebook.stem}", []
    images: dict[str, str | bytes] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += ["", re.sub(r"\]\(\.\./docs/", "](../", source).replace(".ipynb)", ".md)")]
            continue
        language = "sh" if source.startswith("%%bash") else "python"
        lines += ["", f"```{language}", source.removeprefix("%%bash\n"), "```"]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data or "image/svg+xml" in data:
                kind = "png" if "image/png" in data else "svg"
                name = f"{notebook.stem}-{len(images)}.{kind}"
                content = "".join(data["image/png" if kind == "png" else "image/svg+xml"])
                images[f"examples/{name}"] = base64.b64decode(content) if kind == "png" else content
                lines += ["", f"![What the cell shows]({name})"]
            elif text := "".join(output.get("text", data.get("text/plain", ()))).rstrip():
                lines += ["", "```text", text, "```"]
    return {f"{place}.md": "\n".join(lines).strip() + "\n", **images}


def top_page(name: str) -> str:
    """A page of the repository's top folder, its links as the site needs them."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text())


def commands_page() -> str:
    """Every command, as `--help` has it."""
    from store.cli import main

    lines = [
        "# Commands",
        "",
        "Results go to stdout, progress to stderr. An error is one line on stderr and exit code 1, a wrong option exit",
        "code 2. `-h` is short for `--help`.",
        "",
        'Completion: `eval "$(_SHELFPRICE_COMPLETE=bash_source shelfprice)"` in `~/.bashrc`, with `zsh_source` in',
        "`~/.zshrc`.",
    ]
    for path, command in walk(main, "shelfprice"):
        lines += [
            "",
            f"{'##' if isinstance(command, click.Group) else '###'} {path}",
            "",
            paragraph(command.help),
        ]
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        options.sort(key=lambda one: one.name in ("workspace", "as_json"))
        arguments = [one for one in command.params if isinstance(one, click.Argument)]
        if isinstance(command, click.Group):
            continue
        usage = " ".join(
            [path, *(f"{a.human_readable_name}{'…' if a.nargs < 0 else ''}" for a in arguments), "[OPTIONS]"]
        )
        lines += ["", "```text", usage, "```", ""]
        sections: dict[str, Sequence[str]] = getattr(command, "sections", {})
        placed = {name for names in sections.values() for name in names}
        for title, names in {"": [one.name for one in options if one.name not in placed], **sections}.items():
            if rows := [option_row(one) for one in options if one.name in names]:
                lines += [
                    *(["", f"**{title}**", ""] if title else []),
                    "| option | what it does |",
                    "|---|---|",
                    *rows,
                ]
    return "\n".join(lines) + "\n"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with what a user types."""
    if path != "shelfprice":
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from walk(below, f"{path} {name}")


def option_row(option: click.Option) -> str:
    """One line of the table of options."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    kind = "" if option.is_flag else f" {cell(option.make_metavar(click.Context(click.Command('x'))))}"
    default = option.default
    shown = not option.is_flag and isinstance(default, str | int | float) and default != ""
    tail = f" Default: `{default}`." if shown and "Default" not in (option.help or "") else ""
    return f"| {names}{kind} | {cell(option.help or '')}{tail} |"


def cell(text: str) -> str:
    """Text that can stand in a table of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def paragraph(text: str | None) -> str:
    """Help as Markdown: lines joined, paragraphs kept, examples as they stand."""
    blocks = []
    for block in inspect.cleandoc(text or "").split("\n\n"):
        if block.startswith("\b"):
            _, _, *lines = block.splitlines()  # "Examples:"
            blocks.append("\n".join(["```sh", *(line.strip() for line in lines), "```"]))
        else:
            blocks.append(" ".join(block.split()).replace("<", "&lt;"))
    return "\n\n".join(blocks)


def config_page() -> str:
    """Every key of `shelfprice.toml`, with its default and the comment beside it in the code."""
    from store.config import Config

    lines = [
        "# Configuration",
        "",
        "`shelfprice.toml` at the root of a workspace. Every key may be left out. An unknown key or a wrong type is an",
        "error that names it; commands that change a value keep your comments.",
        "",
        "## Top level",
        "",
    ]
    simple = [one for one in dataclasses.fields(Config) if not nested(Config, one.name)]
    lines += table_of(Config, [one.name for one in simple])
    for one in dataclasses.fields(Config):
        inner = nested(Config, one.name)
        if inner is not None:
            lines += [
                "",
                f"## [{one.name}]",
                "",
                paragraph((inspect.getdoc(inner) or "").partition("\n\n>>>")[0]),
                "",
            ]
            lines += table_of(inner, [field.name for field in dataclasses.fields(inner)])
    return "\n".join([*lines, *head_tables()]) + "\n"


def head_tables() -> list[str]:
    """Every parameter of every head, with what it may be."""
    from heads.params import declared_of, defaults_of
    from heads.registry import HEADS, HeadSource

    lines = [
        "",
        "## [heads.params.NAME]",
        "",
        "Parameters of a head; in Python they are arguments: `heads.Ridge(n_alphas=30)`. A value outside of its range is an",
        "error before anything is fitted. The parameter `target` exists only in Python: `log_price`, as in a run, or `price`.",
    ]
    for name, place in HEADS.items():
        head = HeadSource("shelfprice", place).load(name)
        lines += ["", f"### {name}", "", f"{cell(head.summary[0].upper() + head.summary[1:])}.", ""]
        lines += ["| parameter | may be | default | meaning |", "|---|---|---|---|"]
        for key, default in defaults_of(head).items():
            if key == "target":
                continue
            meaning = cell(comment_of(head, key) or COMMON.get(key, ""))
            may_be = (
                "true or false"
                if isinstance(default, bool)
                else declared_of(head, key).described(type(default))
            )
            lines.append(f"| `{key}` | {cell(may_be)} | `{toml_text(default)}` | {meaning} |")
    return lines


def comment_of(owner: type, name: str) -> str:
    """The comments beside a field, in the class that declares it."""
    for base in owner.__mro__:
        source = inspect.getsource(base) if name in inspect.get_annotations(base) else ""
        if found := re.search(rf"^    {name}: .*?(?=^    [\w#]|\Z)", source, re.MULTILINE | re.DOTALL):
            comments = re.findall(r"  # (?!noqa|fmt)(.*?)(?:  # noqa.*)?$", found[0], re.MULTILINE)
            return " ".join(comments)
    return ""


def nested(owner: type, name: str) -> type | None:
    """The dataclass behind a table of the configuration; None for a plain value."""
    hint = get_type_hints(owner)[name]
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None


def table_of(owner: type, names: list[str]) -> list[str]:
    """Key, values, default and meaning of each field."""
    source = inspect.getsource(owner)
    comments = {name: text for text, name in re.findall(r"^    # (.*)\n    (\w+): ", source, re.MULTILINE)}
    comments |= dict(re.findall(r"^    (\w+): .*?  # (.*)$", source, re.MULTILINE))
    hints, defaults = get_type_hints(owner), owner()
    rows = [
        f"| `{name}` | {cell(type_text(hints[name]))} | `{toml_text(getattr(defaults, name))}` "
        f"| {cell(comments.get(name, ''))} |"
        for name in names
    ]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *rows]


def type_text(hint: Any) -> str:
    """What may stand there, in words."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if get_args(hint) and all(isinstance(value, str) for value in get_args(hint)):
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {words.get(get_args(hint)[0], 'values')}"
    return words.get(hint, "table")


def toml_text(value: Any) -> str:
    """A default as it would stand in the file."""
    import tomlkit

    value = list(value) if isinstance(value, tuple) else value
    return tomlkit.item(value).as_string().strip() if not isinstance(value, dict) else "{}"


def api_page() -> str:
    """Every public name of the four packages, from its docstring."""
    lines = [
        "# Python API",
        "",
        "What each package offers. Importing a package loads no library; a name loads what it needs when it is first used.",
    ]
    for room in ROOMS:
        module = importlib.import_module(room)
        lines += ["", f"## {room}", "", paragraph(inspect.getdoc(module)), ""]
        lines += [f"::: {module._MODULES[name]}.{name}\n" for name in sorted(module.__all__, key=str.lower)]
    return "\n".join(lines) + "\n"
