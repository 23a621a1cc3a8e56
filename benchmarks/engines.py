"""`embed run --engine ray` with two actors against the local engine: the same photos, after start-up, in turns."""

import shutil
import sys
from pathlib import Path

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import ingested, myntra_rows
from store.workspace import Workspace

ROWS = 5_000
TURNS = 2
MOST = 1.25  # seconds of Ray for one of the local engine
ENCODER = "efficientnet-lite0"


def measure(data: Path, rows: int | None) -> list[Result]:
    """Seconds from the first batch to the last shard: models are loaded and precision is measured before."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        return [Result.skipped("ray against local", "Ray is not installed: pip install 'shelfprice[ray]'")]
    found = myntra_rows(data, rows or ROWS)
    if not found:
        return [Result.skipped("ray against local", f"no Myntra catalogue in {data}")]
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    with scratch() as folder:
        made = ingested(folder / "made", found, data / "myntra/images")
        for turn in range(TURNS):
            for engine in seconds:
                root = folder / f"{engine}-{turn}"
                shutil.copytree(made.root, root)
                taken, n = _run(Workspace(root), engine)
                print(f"{engine}: {n} in {taken:.1f} s", file=sys.stderr)
                seconds[engine].append(taken)
                shutil.rmtree(root)
    best = {engine: min(taken) for engine, taken in seconds.items()}
    return [
        Result.at_most(
            "two Ray actors against the local engine, seconds",
            best["ray"] / best["local"],
            MOST,
            f"best of {TURNS} turns, after start-up",
            photos=len(found),
            ray_seconds=best["ray"],
            local_seconds=best["local"],
        )
    ]


def _run(workspace: Workspace, engine: str) -> tuple[float, int]:
    """Seconds of the work and how many photos it was."""
    from embed.distributed.cluster import Cluster
    from embed.distributed.engine import load_on_ray
    from embed.distributed.layout import WantedActors
    from embed.encoders.base import Sources
    from embed.forward.devices import DeviceSettings
    from embed.forward.fleet import load_engines
    from embed.job.limits import FailureLimits
    from embed.job.request import find_requests
    from embed.job.run import EmbedOptions, run

    requests = find_requests(workspace, [ENCODER], Sources(offline=True))
    settings = DeviceSettings()
    with Cluster(WantedActors(actors=2), None, 300.0) as cluster:

        def load(resolved: object) -> object:
            if engine == "ray":
                return load_on_ray(workspace, resolved, cluster, settings)
            return load_engines(workspace, resolved, settings)

        (outcome,) = run(
            workspace,
            requests,
            EmbedOptions(FailureLimits(0.5, 1.0)),
            load,
            lambda line: print(line, file=sys.stderr),
        )
    return outcome.seconds, outcome.n_embedded


if __name__ == "__main__":
    main(measure, embeds=True)
