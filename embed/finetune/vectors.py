"""Tuned encoders -> vectors of every row in the cache, a set for each fold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from embed.encoders.base import Encoder, Resolved
from embed.finetune.checkpoint import BEST, read_tensors
from embed.finetune.job import FinetuneJob, Log
from embed.finetune.layers import merge_adapters
from embed.finetune.network import TunedNetwork
from embed.finetune.record import DONE
from embed.job.catalog import CatalogSource
from embed.job.limits import FailureLimits
from embed.job.run import EmbedOptions, EncodeRequest, Runner, run
from heads.networks.head import NetworkParts
from store.vectors.folded import all_folds
from store.vectors.sets import publish_current
from store.vectors.spec import EncoderSpec, digest

# How many inputs may fail was decided when the frozen vectors were made: the same ones fail here.
ANY_SHARE = EmbedOptions(FailureLimits(1.0, 1.0))


def finished_folds(job: FinetuneJob) -> list[int]:
    """Folds whose model is tuned to the end."""
    return [k for k in job.all_folds if job.workspace.exists(f"{job.fold_folder(k)}/{DONE}")]


def weights_sha256(job: FinetuneJob, fold: int) -> str:
    """SHA-256 of the weights that a finished fold ended with."""
    recorded: str = job.workspace.read_json(f"{job.fold_folder(fold)}/{DONE}")["weights_sha256"]
    return recorded


def read_best(job: FinetuneJob, fold: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and record of a finished fold's best state.

    Raises:
        CorruptFileError: the file is not the one that the fold ended with.
    """
    return read_tensors(job.workspace, f"{job.fold_folder(fold)}/{BEST}", weights_sha256(job, fold))


def tuned_specs(job: FinetuneJob, fold: int) -> list[EncoderSpec]:
    """What the tuned encoders of a fold are, one a tower: weights, fold and the folds' hash make their fingerprint."""
    tuned = weights_sha256(job, fold)
    adapters = job.recipe.lora
    specs = []
    for tower in job.towers:
        spec = tower.resolved.spec
        weights = digest({"base": spec.weights_sha256, "tuned": tuned, "adapters": adapters}, characters=64)
        specs.append(
            replace(
                spec,
                name=tower.tuned.encoder,
                weights_sha256=weights,
                fold=fold,
                folds_hash=job.folds.hash,
            )
        )
    return specs


def embed_fold(job: FinetuneJob, fold: int, device: str, log: Log) -> None:
    """Embed what has no vector yet by the encoders of one fold: all rows, train and test.

    Raises:
        EncoderError, FailureLimitError, WorkspaceError: as `shelfprice embed run`.
    """
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import on_devices

    specs = tuned_specs(job, fold)
    requests = [
        EncodeRequest(replace(tower.resolved, spec=spec), CatalogSource(job.workspace, (tower.tuned,)))
        for tower, spec in zip(job.towers, specs, strict=True)
    ]
    loaded: dict[str, Encoder] = {}

    def load(resolved: Sequence[Resolved]) -> Sequence[Runner]:
        if not loaded:
            loaded.update(zip((spec.name for spec in specs), load_tuned(job, fold), strict=True))
        for one in resolved:
            loaded[one.spec.name].spec = one.spec
        encoders = [loaded[one.spec.name] for one in resolved]
        return on_devices(job.workspace, encoders, DeviceSettings((device,), openvino=False))

    run(job.workspace, requests, ANY_SHARE, load, log)


def load_tuned(job: FinetuneJob, fold: int) -> list[Encoder]:
    """The encoders of one fold with their tuned weights, adapters merged, in evaluation mode."""
    encoders = job.load_encoders()
    parts: NetworkParts = job.head().parts(job.training_part(fold).rows)
    plain = replace(job.recipe, checkpointing=False)
    network = TunedNetwork(encoders, parts, parts.network, plain)
    tensors, _ = read_best(job, fold)
    network.load(tensors)
    for encoder in encoders:
        merge_adapters(encoder.module)
        encoder.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        encoder.module.requires_grad_(False).eval()
    return encoders


def publish_all_folds(job: FinetuneJob) -> list[EncoderSpec]:
    """Record, for each tower, the spec that its name stands for: all folds together."""
    by_fold = [tuned_specs(job, fold) for fold in job.all_folds]
    together = [all_folds(specs) for specs in zip(*by_fold, strict=True)]
    for spec in together:
        publish_current(job.workspace, spec)
    return together
