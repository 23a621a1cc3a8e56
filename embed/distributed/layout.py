"""Divides the CPUs and GPUs of a cluster between actors, which hold the model, and tasks, which read and decode."""

from dataclasses import dataclass

from store.errors import EngineError

TASK_CPUS = 1.0


@dataclass(frozen=True)
class WantedActors:
    """What the user asked of a cluster; None: found out."""

    actors: int | None = None
    num_gpus: float | None = None  # of an actor


@dataclass(frozen=True)
class ClusterLayout:
    """What Ray is asked for."""

    actors: int
    actor_cpus: float
    actor_gpus: float
    task_cpus: float  # of a task that reads or decodes
    threads: int  # of an actor, on the processor

    def __str__(self) -> str:
        gpus = f" and {self.actor_gpus:g} GPUs" if self.actor_gpus else ""
        return f"{self.actors} actors of {self.actor_cpus:g} CPUs{gpus}"


def lay_out(nodes: list[tuple[float, float]], wanted: WantedActors) -> ClusterLayout:
    """Divide a cluster so that tasks can always be scheduled beside the actors; else Ray waits for ever.

    Args:
        nodes: CPUs and GPUs of each machine.
        wanted: of the user.

    Raises:
        EngineError: the cluster can't hold what was asked for.
    """
    cpus, gpus = sum(c for c, _ in nodes), sum(g for _, g in nodes)
    largest = max((c for c, _ in nodes), default=0.0)
    if cpus <= 0:
        raise EngineError("the Ray cluster has no CPU: start a node with one, or run without --engine ray")
    actor_gpus = wanted.num_gpus if wanted.num_gpus is not None else (1.0 if gpus else 0.0)
    if actor_gpus > max((g for _, g in nodes), default=0.0):
        raise EngineError(
            f"--num-gpus {actor_gpus:g} can't be scheduled: no machine of the Ray cluster has so many GPUs "
            f"(most: {max((g for _, g in nodes), default=0.0):g})"
        )
    room = sum(int(g / actor_gpus + 1e-9) for _, g in nodes) if actor_gpus else None
    actors = wanted.actors or (room if room is not None else max(1, len(nodes)))
    if room is not None and actors > room:
        raise EngineError(
            f"--actors {actors} with --num-gpus {actor_gpus:g} can't be scheduled: the Ray cluster's {gpus:g} GPUs hold "
            f"{room}: ask for fewer, or add machines"
        )
    task_cpus = min(TASK_CPUS, largest / 2)
    # Room for a task on every machine. An actor of a hundredth of a CPU is scheduled, and runs, all the same.
    spare = sum(max(0.0, c - task_cpus) for c, _ in nodes)
    actor_cpus = min(1.0, int(100 * spare / actors) / 100)
    if actor_cpus <= 0:
        raise EngineError(
            f"--actors {actors} can't be scheduled: the Ray cluster's {cpus:g} CPUs must also hold the tasks that read "
            "and decode: ask for fewer, or add machines"
        )
    per_node = -(-actors // len(nodes))
    return ClusterLayout(actors, actor_cpus, actor_gpus, task_cpus, max(1, int(largest) // per_node))
