"""`python -m benchmarks.download`: pictures of 8 KB from a server on loopback, against what others do.

In one run, each in a process of its own, all from the same server:
- shelfprice: `catalog images` with its defaults, checked, stored, recorded;
- the same client without storing: nothing is decoded, hashed, written or recorded;
- threads with `requests.get`, retries and a file per picture, as the winning team's notebook did it;
- the same with one session for all threads, which that team did not have.
Memory is measured at the given number of pictures and at four times as many.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from store.workspace import Workspace

RESULT = Path("benchmarks/results/download.json")


def make_catalog(workspace: Workspace, port: int, n: int) -> None:
    """Rows whose links lie on the server."""
    from tests.fakes import catalog_table, publish_catalog

    rows = [
        {"sample_id": i, "price": 1.0, "image_link": f"http://127.0.0.1:{port}/img/{i}.jpg"} for i in range(n)
    ]
    publish_catalog(workspace, catalog_table(rows))


def run_shelfprice(port: int, n: int, folder: str) -> dict[str, Any]:
    """The whole job."""
    from store.catalog.download.progress import Progress
    from store.catalog.download.run import Settings, download_images

    workspace = Workspace(folder)
    make_catalog(workspace, port, n)
    started = time.perf_counter()
    summary = download_images(workspace, Settings(allow_private=True), Progress(show=False))
    seconds = time.perf_counter() - started
    assert summary.n_stored == n, summary
    return {"seconds": seconds}


def run_bare(port: int, n: int, folder: str) -> dict[str, Any]:
    """The same schedule and fetcher; what arrives is dropped."""
    from store.catalog.download.fetch import Fetcher, Limits
    from store.catalog.download.run import user_agent
    from store.catalog.download.schedule import Job, Policy, Schedule

    async def drive() -> None:
        schedule = Schedule(Policy())
        for i in range(n):
            url = f"http://127.0.0.1:{port}/img/{i}.jpg"
            schedule.add(Job(url, url))
        wake = asyncio.Event()
        running: set[asyncio.Task[None]] = set()

        async def work(fetcher: Fetcher, job: Job) -> None:
            reply = await fetcher.fetch(job.url)
            assert schedule.finish(job, reply)
            assert reply.body is not None
            reply.body.close()

        def done(task: asyncio.Task[None]) -> None:
            running.discard(task)
            task.result()
            wake.set()

        async with Fetcher(Limits(), user_agent(None), allow_private=True) as fetcher:
            while schedule.n_left or running:
                while len(running) < 64 and (job := schedule.take()) is not None:
                    task = asyncio.create_task(work(fetcher, job))
                    running.add(task)
                    task.add_done_callback(done)
                if running:
                    await wake.wait()
                    wake.clear()

    started = time.perf_counter()
    asyncio.run(drive())
    return {"seconds": time.perf_counter() - started}


def _run_threads(get: Callable[..., Any], port: int, n: int, folder: str) -> dict[str, Any]:
    def fetch(i: int) -> bool:
        for _ in range(3):
            try:
                response = get(f"http://127.0.0.1:{port}/img/{i}.jpg", timeout=10)
                if response.status_code == 200:
                    Path(folder, f"{i}.jpg").write_bytes(response.content)
                    return True
            except OSError:
                time.sleep(1)
        return False

    started = time.perf_counter()
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(fetch, range(n)))
    return {"seconds": time.perf_counter() - started}


def run_requests(port: int, n: int, folder: str) -> dict[str, Any]:
    """A thread pool with `requests.get`."""
    import requests

    return _run_threads(requests.get, port, n, folder)


def run_requests_session(port: int, n: int, folder: str) -> dict[str, Any]:
    """A thread pool sharing one session and its connections."""
    import requests

    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=32))
    return _run_threads(session.get, port, n, folder)


RUNS: dict[str, Callable[[int, int, str], dict[str, Any]]] = {
    "shelfprice": run_shelfprice,
    "bare": run_bare,
    "requests": run_requests,
    "requests-session": run_requests_session,
}


def measure(name: str, port: int, n: int) -> dict[str, Any]:
    """One run in a process of its own: images/s, CPU seconds, peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.download", "--run", name, str(port), str(n), folder]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    result: dict[str, Any] = json.loads(output)
    result["images_per_second"] = n / result["seconds"]
    return result


def _child(name: str, port: int, n: int, folder: str) -> None:
    result = RUNS[name](port, n, folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result |= {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="pictures per run")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest of each counts")
    parser.add_argument("--run", nargs=4, metavar=("NAME", "PORT", "N", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, port, n, folder = options.run
        _child(name, int(port), int(n), folder)
        return
    n = options.images
    server = subprocess.Popen([sys.executable, "-m", "tests.image_server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        best: dict[str, dict[str, Any]] = {}
        for _ in range(options.repeats):
            for name in RUNS:
                result = measure(name, port, n)
                if name not in best or result["seconds"] < best[name]["seconds"]:
                    best[name] = result
        larger = measure("shelfprice", port, 4 * n)
    finally:
        server.terminate()
        server.wait()
    for name, result in best.items():
        print(
            f"{name:18s} {result['images_per_second']:7.0f} images/s, {result['cpu_seconds']:.1f} s CPU, "
            f"{result['peak_mb']:.0f} MB"
        )
    speed = {name: result["images_per_second"] for name, result in best.items()}
    ratios = {name: speed["shelfprice"] / speed[name] for name in speed if name != "shelfprice"}
    print("shelfprice is " + ", ".join(f"{ratio:.2f} x {name}" for name, ratio in ratios.items()))
    print(
        f"peak memory: {best['shelfprice']['peak_mb']:.0f} MB at {n}, {larger['peak_mb']:.0f} MB at {4 * n} images"
    )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({"images": n, "runs": best, "ratios": ratios, "four_times_as_many": larger}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    main()
