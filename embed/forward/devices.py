"""What this machine computes with. Torch is imported only where a device is opened."""

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DeviceSettings:
    """How a run wants its encoders run."""

    devices: tuple[str, ...] = ("auto",)
    batch_tokens: int | None = None  # most padded tokens per forward pass; None: found by measuring
    batch_images: int | None = None  # most images
    always_measured: bool = (
        True  # precision, however few the rows: for runs of which others of their kind follow
    )
    threads: int | None = None  # that compute on a CPU; None: see `default_threads`
    openvino: bool = True  # try it on a CPU, where it is installed


def cores() -> int:
    """Processors that this process may use: its affinity, within its control group's quota."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            n = min(n, max(1, round(int(quota) / int(period))))
    return n


def decodes_in_processes(device_type: str) -> bool:
    """Whether images are decoded by processes: a GPU waits for threads of one interpreter."""
    return device_type == "cuda" and cores() > 2


def default_threads() -> int:
    """Threads that compute on a CPU: torch's own number within what this process may use, known without torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return max(1, min(torch.get_num_threads(), cores()))
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, min(int(named) if named.isdecimal() else _physical_cores(), cores()))


def _physical_cores() -> int:
    """Cores that this process may run on, of two hyperthreads one."""
    if not hasattr(os, "sched_getaffinity"):
        return cores()
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        try:
            path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            siblings.add(path.read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


def host() -> str:
    """This machine's name, as provenance."""
    return platform.node()


def is_cpu_alone(names: Sequence[str]) -> bool:
    """Whether names mean the CPU, known without torch; False where only torch knows."""
    return list(names) == ["cpu"] or (list(names) == ["auto"] and _lacks_gpu())


def device_kind(names: Sequence[str]) -> str:
    """`cpu` or `gpu`: what times of a run on these devices are kept by, known without torch."""
    return "cpu" if is_cpu_alone(names) else "gpu"


def _lacks_gpu() -> bool:
    """True on a Linux machine that shows no sign of a GPU."""
    signs = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
    return sys.platform == "linux" and not any(os.path.exists(sign) for sign in signs)


def open_devices(names: Sequence[str]) -> "list[torch.device]":
    """Devices by name, `all` standing for every GPU. Sets the number of CPU threads.

    Raises:
        ConfigError: there is no such device on this machine, or one is named twice.
    """
    import torch

    torch.set_num_threads(default_threads())
    if "all" in names:
        names = [f"cuda:{at}" for at in range(torch.cuda.device_count())]
        if not names:
            raise ConfigError("--devices all needs a GPU and none was found: pass --devices auto")
    devices = [_open_device(name) for name in names]
    for at, device in enumerate(devices):
        if device in devices[:at]:
            raise ConfigError(
                f"device {device} is named twice in --devices {','.join(names)}: name each once"
            )
    return devices


def _open_device(name: str) -> "torch.device":
    """`auto` is the first GPU, Apple's, or the CPU."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {name!r} can't be used here: {str(error).splitlines()[0]}: name auto, cpu, cuda or mps"
        ) from error
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def device_name(device: "torch.device | str", threads: int | None = None) -> str:
    """The hardware in words, the same on every run: what was measured holds for it.

    Args:
        threads: that compute on a CPU; None: see `default_threads`.
    """
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    if kind == "mps":
        return f"mps {platform.machine()}"
    return f"cpu {_cpu_model()} x{threads or default_threads()}"


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
