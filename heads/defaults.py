"""Which heads a run trains where the configuration names none: chosen by the rows and columns of the catalogue."""

from dataclasses import dataclass

from store.catalog.read import extra_columns, split_path
from store.config import Config
from store.workspace import Workspace

RERANKED = "reranked-neighbours"
FEW = ("gaussian-process", "neighbours", "lightgbm", RERANKED)  # of a table of columns
SEVERAL = ("additive", "neighbours", "boosted", RERANKED)  # of one with more rows than the first learns from
TEXTS = ("additive", "kernel-ridge", "neighbours", RERANKED)  # without further columns
SEVERAL_TEXTS = ("additive", "neighbours", RERANKED)
MANY = ("additive", "kernel-ridge", "neighbours", "lightgbm")
MOST = ("additive", "neighbours", "lightgbm")
FEW_ROWS = 5_000  # from here on `gaussian-process` would learn from a sample
MANY_ROWS = 20_000  # from here on heads that fit many models inside each fold take longer than they gain
MOST_ROWS = 50_000  # from here on `kernel-ridge` takes as long as all others together


@dataclass(frozen=True)
class ChosenHeads:
    """Heads of a run, and why these."""

    names: tuple[str, ...]
    reason: str


def chosen_heads(workspace: Workspace, config: Config) -> ChosenHeads:
    """The heads of `heads.run`, or where that is empty those that suit the size of the catalogue; reads no row."""
    if config.heads.run:
        return ChosenHeads(config.heads.run, "named by heads.run of shelfprice.toml")
    n_rows, n_columns = 0, 0
    if workspace.exists(split_path("train")):
        with workspace.parquet(split_path("train")) as file:
            n_rows = file.metadata.num_rows
            n_columns = sum(map(len, extra_columns(file.schema_arrow)))
    names: tuple[str, ...]
    if n_rows >= MOST_ROWS:
        names, size = MOST, f"from {MOST_ROWS:,}"
    elif n_rows >= MANY_ROWS:
        names, size = MANY, f"from {MANY_ROWS:,}, below {MOST_ROWS:,}"
    elif n_rows >= FEW_ROWS:
        names, size = SEVERAL if n_columns else SEVERAL_TEXTS, f"from {FEW_ROWS:,}, below {MANY_ROWS:,}"
    else:
        names, size = FEW if n_columns else TEXTS, f"below {FEW_ROWS:,}"
    said = f"chosen for {n_rows:,} training rows ({size}) and {n_columns} further columns"
    return ChosenHeads(names, said)


def configured_heads(workspace: Workspace, config: Config) -> tuple[str, ...]:
    """Names of the heads that a run trains, see `chosen_heads`."""
    return chosen_heads(workspace, config).names
