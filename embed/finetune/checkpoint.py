"""Checkpoints: one safetensors file each, whole or not at all, with all that a run needs to go on as if never stopped."""

import hashlib
import json
import shutil
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from embed.finetune.processes import Processes
from embed.finetune.record import PREFIX, SUFFIX
from embed.finetune.step import Stepper
from store.errors import CorruptFileError, WorkspaceError
from store.workspace import Workspace

BEST, WARM = "best.safetensors", "warm.safetensors"
RECORD = "record"  # metadata: plain data as JSON
DIGEST = "sha256"  # in the record: of it and of all tensors


def step_name(step: int) -> str:
    """Sorts by step."""
    return f"{PREFIX}{step:09d}{SUFFIX}"


def publish_tensors(
    workspace: Workspace, relative: str, tensors: dict[str, torch.Tensor], record: dict[str, Any]
) -> str:
    """Publish tensors with plain data beside them.

    Returns:
        SHA-256 of the file.

    Raises:
        WorkspaceError: the disk is full or can't be written; what was published before stands.
    """
    told = {**record, DIGEST: _digest(tensors, record)}
    content = save_tensors(tensors, {RECORD: json.dumps(told, allow_nan=False)})
    try:
        workspace.publish_bytes(relative, content)
    except WorkspaceError as error:
        raise WorkspaceError(
            f"{error} (a checkpoint of {len(content) / 1e9:.2f} GB; the one before it stands, and the same command "
            "goes on from there)"
        ) from error
    return hashlib.sha256(content).hexdigest()


def read_tensors(
    workspace: Workspace, relative: str, sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and the plain data beside them, checked against the digest that the file carries.

    Args:
        sha256: of the whole file, where a record states it.

    Raises:
        CorruptFileError: the file is damaged, or another one than the record's.
    """
    if sha256 is not None and not workspace.exists(relative):
        raise damaged(workspace, relative, "it is gone")
    content = workspace.read_bytes(relative)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(workspace, relative, f"its SHA-256 is not the recorded {sha256}")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        tensors, record = load_tensors(content), json.loads(header["__metadata__"][RECORD])
    except Exception as error:  # the library raises many kinds over damaged bytes
        raise damaged(workspace, relative, " ".join(str(error).split())[:120]) from error
    stated = record.pop(DIGEST, None)  # version 0.1.0 stated none
    if stated not in (None, _digest(tensors, record)):
        raise damaged(workspace, relative, "its content is not what its digest says")
    return tensors, record


def damaged(workspace: Workspace, relative: str, reason: str) -> CorruptFileError:
    """The error for a file of a fold, which can be made anew."""
    path = workspace.path(relative)
    if relative.endswith((BEST, WARM)):
        folder = workspace.path(relative.rpartition("/")[0])
        return CorruptFileError(
            f"{path} is damaged ({reason}): remove {folder}, and the same command tunes this fold again"
        )
    return CorruptFileError(
        f"{path} is damaged ({reason}): remove it, and the same command goes on without it"
    )


def _digest(tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> str:
    """SHA-256 of every tensor's name, type, shape and bytes, and of the record."""
    digest = hashlib.sha256(json.dumps(record, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def checkpoint_bytes(parameters: int, averaged: bool) -> int:
    """Size of a checkpoint that trains so many parameters: weights, both moments of AdamW, a running mean."""
    return 4 * parameters * (4 if averaged else 3)


def check_room(workspace: Workspace, stepper: Stepper) -> None:
    """Raises WorkspaceError where a local disk has no room for two checkpoints and the best state."""
    if not workspace.is_local:
        return
    trained = sum(p.numel() for p in stepper.parameters)
    needed = 2 * checkpoint_bytes(trained, bool(stepper.mean.mean)) + 4 * trained
    free = shutil.disk_usage(workspace.path("")).free
    if free < needed:
        raise WorkspaceError(
            f"{free / 1e9:.2f} GB are free under {workspace.root} and checkpoints take up to {needed / 1e9:.2f} GB: free "
            "some, or train less of the encoders with --last-blocks or --lora"
        )


def publish_checkpoint(
    workspace: Workspace,
    folder: str,
    stepper: Stepper,
    processes: Processes,
    step: int,
    record: dict[str, Any],
) -> None:
    """Publish the whole state after a step, then remove older ones; called by every process together."""
    random = processes.gather(torch.get_rng_state())
    cuda = (
        processes.gather(torch.cuda.get_rng_state(processes.device))
        if processes.device.type == "cuda"
        else []
    )
    if not processes.writes:
        return
    tensors = stepper.network.state()
    for at, parameter in enumerate(stepper.parameters):
        for key, value in stepper.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{at}/{key}"] = value.detach().to("cpu", copy=True).contiguous()
    for at, mean in enumerate(stepper.mean.mean):
        tensors[f"mean/{at}"] = mean.to("cpu", copy=True).contiguous()
    tensors |= {f"random/cpu/{rank}": state for rank, state in enumerate(random)}
    tensors |= {f"random/cuda/{rank}": state for rank, state in enumerate(cuda)}
    publish_tensors(
        workspace,
        f"{folder}/{step_name(step)}",
        tensors,
        {**record, "mean_steps": stepper.mean.steps, "scaler": stepper.scaler.state_dict()},
    )
    for name in workspace.names(folder, PREFIX, SUFFIX):
        if name != step_name(step):
            workspace.remove(f"{folder}/{name}")


def latest_checkpoint(workspace: Workspace, folder: str) -> str | None:
    """The newest of a folder; None where there is none."""
    names = workspace.names(folder, PREFIX, SUFFIX)
    return f"{folder}/{names[-1]}" if names else None


@torch.no_grad()
def restore(stepper: Stepper, processes: Processes, tensors: dict[str, torch.Tensor], record: Any) -> None:
    """Bring network, optimiser, running mean, scaler and random numbers to a checkpoint's state."""
    stepper.network.load(tensors)
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            at, _, key = rest.partition("/")
            parameter = stepper.parameters[int(at)]
            placed = value.to(parameter.device) if value.ndim == 0 and parameter.is_cuda else value
            if (
                value.shape == parameter.shape
            ):  # laid out in memory as its parameter, which fused steps count on
                placed = torch.empty_like(parameter).copy_(value)
            stepper.optimizer.state[parameter][key] = placed
        elif kind == "mean":
            stepper.mean.mean[int(rest)].copy_(value)
    stepper.mean.steps = record["mean_steps"]
    stepper.scaler.load_state_dict(record["scaler"])
    if (own := tensors.get(f"random/cpu/{processes.rank}")) is not None:
        torch.set_rng_state(own)
    if processes.device.type == "cuda" and (own := tensors.get(f"random/cuda/{processes.rank}")) is not None:
        torch.cuda.set_rng_state(own, processes.device)
