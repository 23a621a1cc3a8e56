"""Which heads a run trains where the configuration names none: chosen by the rows and columns of the catalogue."""

from dataclasses import dataclass

from store.catalog.read import extra_columns, split_path
from store.config import Config
from store.workspace import Workspace

SUMS_AND_KERNELS = ("additive", "kernel-ridge", "neighbours")
FEW = (*SUMS_AND_KERNELS, "boosted")  # of a table of columns
TEXTS = (*SUMS_AND_KERNELS, "lightgbm")  # without further columns `boosted` adds nothing to them
MANY = (*SUMS_AND_KERNELS, "lightgbm")
MANY_ROWS = 20_000  # from here on heads that fit many models inside each fold take longer than they gain


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
    has_many = n_rows >= MANY_ROWS
    side = "from" if has_many else "below"
    said = f"chosen for {n_rows:,} training rows ({side} {MANY_ROWS:,}) and {n_columns} further columns"
    return ChosenHeads(MANY if has_many else FEW if n_columns else TEXTS, said)


def configured_heads(workspace: Workspace, config: Config) -> tuple[str, ...]:
    """Names of the heads that a run trains, see `chosen_heads`."""
    return chosen_heads(workspace, config).names
