"""Prepares a fine-tuning run: everything is decided before anything is trained or written."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from embed.encoders.base import Encoder, Sources
from embed.encoders.registry import library_of
from embed.finetune.recipe import FinetuneRecipe
from embed.finetune.record import RUN_FILE, RUNS, bound_parts, differences
from embed.finetune.towers import Tower, find_towers
from heads.features.inputs import Inputs, read_inputs
from heads.features.rows import Rows
from heads.networks.head import NetworkHead
from heads.networks.training import stopping_rows
from heads.params import run_params
from heads.registry import make_head
from store.config import Config
from store.errors import ConfigError, HeadError
from store.folds.assign import Folds, ensure_folds
from store.names import MOST_CHARACTERS, file_name
from store.vectors.spec import digest, slug
from store.workspace import Workspace

# Of encoders whose weights are kept as stored, where the user does not say: as measured in MulTaBench, arXiv 2605.10616.
BIG_LAST_BLOCKS = 3
Log = Callable[[str], None]


@dataclass(frozen=True)
class TrainingPart:
    """The rows that one fold's model is tuned on."""

    rows: Rows  # (n_kept,), with cached vectors
    positions: np.ndarray  # (n_kept,) among the training rows
    log_price: np.ndarray  # (n_kept,), as decisions of cleaning make it
    aside: np.ndarray  # (n_kept,) bool: not trained on, for early stopping


@dataclass(frozen=True)
class FinetuneJob:
    """One run: encoders, head, rows and how they are tuned."""

    workspace: Workspace
    name: str
    towers: tuple[Tower, ...]
    recipe: FinetuneRecipe
    params: dict[str, Any]  # of the head
    seed: int
    inputs: Inputs
    folds: Folds
    configuration: dict[str, Any]  # all that changes the weights, plain data

    @property
    def folder(self) -> str:
        return f"{RUNS}/{self.name}"

    def fold_folder(self, fold: int) -> str:
        return f"{self.folder}/fold-{fold}"

    @property
    def all_folds(self) -> list[int]:
        return [int(k) for k in np.unique(self.inputs.fold)]

    def chosen_folds(self, asked: Sequence[int]) -> list[int]:
        """The folds to work on: those asked for, else all.

        Raises:
            ConfigError: there is no such fold.
        """
        if unknown := sorted(set(asked) - set(self.all_folds)):
            raise ConfigError(f"there is no fold {unknown[0]}, the folds are {self.all_folds}")
        return list(dict.fromkeys(asked)) or self.all_folds

    def head(self) -> NetworkHead:
        """The head, unfitted."""
        return cast(NetworkHead, make_head(self.recipe.head, self.params, self.seed))

    def training_part(self, fold: int) -> TrainingPart:
        """Rows of every other fold, less those that cleaning drops."""
        inputs = self.inputs
        inside = np.flatnonzero(inputs.fold != fold)
        target = inputs.log_price[inside]
        if inputs.cleaning is not None:
            inside, target = inputs.cleaning.training_part(inside, inputs.log_price)
        rows = inputs.train.subset(inside)
        aside = stopping_rows(rows.group, self.recipe.aside, self.seed)
        if (~aside).sum() < self.recipe.batch_rows:
            raise HeadError(
                f"fine-tuning without fold {fold} has {int((~aside).sum())} rows to train on, fewer than one step takes "
                f"({self.recipe.batch_rows}): pass a smaller --batch-rows"
            )
        return TrainingPart(rows, inside, target, aside)

    def load_encoders(self) -> list[Encoder]:
        """The encoders before tuning, freshly loaded, in the order of the towers.

        Raises:
            EncoderError: weights can't be loaded.
        """
        found: dict[str, Encoder] = {}
        groups: dict[tuple[str, str, str], list[Tower]] = {}
        for tower in self.towers:
            groups.setdefault(tower.resolved.model_key, []).append(tower)
        for group in groups.values():
            resolved = [tower.resolved for tower in group]
            for one, encoder in zip(resolved, library_of(resolved[0].address).load(resolved), strict=True):
                found[one.spec.name] = encoder
        return [found[tower.resolved.spec.name] for tower in self.towers]


def prepare_job(
    workspace: Workspace,
    config: Config,
    encoders: Sequence[str],
    name: str | None,
    recipe: FinetuneRecipe,
    sources: Sources,
    log: Log,
) -> FinetuneJob:
    """Resolve, read and check everything; writes nothing but folds that were not decided yet.

    Raises:
        ConfigError: no encoder, or options that contradict one another.
        EncoderError: an unknown encoder, or its files are missing.
        HeadError: folds are in order of time, or every price is the same.
        MissingVectorsError: rows lack the cached vectors that the frozen phase needs; names the command.
    """
    if not encoders:
        raise ConfigError(
            "name at least one encoder to tune, such as efficientnet-lite0 or minilm@structured"
        )
    name = name or _default_name(encoders)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ConfigError(
            f"--name names files and may hold letters, digits and . _ + - alone, got {name!r}: pass another"
        )
    file_name(name, "a fine-tuning run")
    towers = tuple(find_towers(workspace, encoders, name, sources))
    if recipe.lora and not recipe.last_blocks and any(t.resolved.loaded_as != "fp32" for t in towers):
        recipe = replace(recipe, last_blocks=BIG_LAST_BLOCKS)
        log(
            f"adapters go into the last {BIG_LAST_BLOCKS} blocks of so large an encoder: --last-blocks says otherwise"
        )
    folds = ensure_folds(workspace, config, log)
    if folds.looks_back:
        raise HeadError(
            "folds are in order of time, and a model tuned on all other folds has seen later rows: ingest without "
            "--time-column to fine-tune"
        )
    inputs = read_inputs(workspace, [tower.vector_set for tower in towers], (), folds)
    if np.ptp(inputs.log_price) == 0:
        raise HeadError(
            f"all {len(inputs.log_price)} training prices are the same: there is nothing to learn"
        )
    params, _, _ = run_params(recipe.head, config.heads.params.get(recipe.head, {}))
    head = make_head(recipe.head, params, config.seed)
    configuration = {
        "encoders": [[str(tower.vector_set), tower.resolved.spec.fingerprint] for tower in towers],
        "head": recipe.head,
        "params": head.recorded_params(),
        "recipe": recipe.to_json(),
        **bound_parts(workspace, config, folds.hash),
    }
    return FinetuneJob(
        workspace, name, towers, recipe, params, config.seed, inputs, folds, _plain(configuration)
    )


def _default_name(encoders: Sequence[str]) -> str:
    name = "+".join(sorted(slug(encoder.partition("@")[0]) for encoder in encoders))
    return name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 17]}-{digest(name)}"


def check_configuration(job: FinetuneJob, restart: bool, log: Log) -> None:
    """Check that a run of this name continues with the configuration that it began with.

    Args:
        restart: begin anew instead, removing what is there.

    Raises:
        ConfigError: it began with another configuration; shows what differs.
    """
    workspace, record = job.workspace, f"{job.folder}/{RUN_FILE}"
    if restart and workspace.exists(job.folder):
        log(f"begun anew: what {workspace.path(job.folder)} held is removed")
        workspace.remove(job.folder)
    if workspace.exists(record):
        found = workspace.read_json(record)
        if changes := differences(found, job.configuration):
            raise ConfigError(
                f"{workspace.path(job.folder)} holds a run of another configuration: {'; '.join(changes)}: give the "
                "options that it began with, another --name, or --restart to begin anew"
            )
        return
    workspace.publish_json(record, job.configuration)


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
