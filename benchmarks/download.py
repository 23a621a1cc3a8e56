"""Images of 8 KB from a server on loopback: `shelfprice catalog images` compared with other ways.

In one run, each in a process of its own, all from the same server:
- shelfprice: with its defaults; every image decoded, hashed, stored, recorded;
- bare: the same client and schedule, but what arrives is dropped;
- requests: 32 threads with `requests.get`, retries and a file per image, as the winning team did it;
- requests-session: the same with one session for all threads, which that team did not have.
Memory is measured at this number of images and at four times as many.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from store.workspace import Workspace

N_IMAGES = 10_000
ROUNDS = 3
THREADS = 32


def make_catalog(folder: str, port: int, n: int) -> None:
    """Rows whose links lie on the server."""
    from tests.fakes import catalog_table, publish_catalog

    rows = [
        {"sample_id": i, "price": 1.0, "image_link": f"http://127.0.0.1:{port}/img/{i}.jpg"} for i in range(n)
    ]
    publish_catalog(Workspace(folder), catalog_table(rows))


def run_shelfprice(port: int, n: int, folder: str) -> float:
    """The whole job."""
    from store.catalog.download.progress import Progress
    from store.catalog.download.run import DownloadSettings, download_images

    workspace = Workspace(folder)
    started = time.perf_counter()
    summary = download_images(workspace, DownloadSettings(allow_private=True), Progress(show=False))
    seconds = time.perf_counter() - started
    assert summary.n_stored == n, summary
    return seconds


def run_bare(port: int, n: int, folder: str) -> float:
    """The same schedule and fetcher; what arrives is dropped."""
    from store.catalog.download.fetch import Fetcher, FetchLimits
    from store.catalog.download.run import user_agent
    from store.catalog.download.schedule import DownloadSchedule, DownloadTask, Policy

    async def drive() -> None:
        schedule = DownloadSchedule(Policy())
        for i in range(n):
            url = f"http://127.0.0.1:{port}/img/{i}.jpg"
            schedule.add(DownloadTask(url, url))
        wake = asyncio.Event()
        running: set[asyncio.Task[None]] = set()

        async def work(fetcher: Fetcher, job: DownloadTask) -> None:
            reply = await fetcher.fetch(job.url)
            assert schedule.finish(job, reply)
            assert reply.body is not None
            reply.body.close()

        def done(task: asyncio.Task[None]) -> None:
            running.discard(task)
            task.result()
            wake.set()

        async with Fetcher(FetchLimits(), user_agent(None), allow_private=True) as fetcher:
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
    return time.perf_counter() - started


def _run_threads(get: Callable[..., Any], port: int, n: int, folder: str) -> float:
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
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(fetch, range(n)))
    return time.perf_counter() - started


def run_requests(port: int, n: int, folder: str) -> float:
    """A thread pool with `requests.get`."""
    import requests

    return _run_threads(requests.get, port, n, folder)


def run_requests_session(port: int, n: int, folder: str) -> float:
    """A thread pool sharing one session and its connections."""
    import requests

    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
    return _run_threads(session.get, port, n, folder)


RUNS: dict[str, Callable[[int, int, str], float]] = {
    "shelfprice": run_shelfprice,
    "bare": run_bare,
    "requests": run_requests,
    "requests-session": run_requests_session,
}


def _in_own_process(name: str, port: int, n: int, folder: Path) -> dict[str, Any]:
    """Seconds, images/s, CPU seconds and peak memory in MB of one run, which fills `folder`."""
    folder.mkdir()
    given = f"({str(folder)!r}, {port}, {n})"  # the catalogue's making must not count
    _python(f"from benchmarks.download import make_catalog; make_catalog{given}")
    output = _python(f"from benchmarks.download import child; child({name!r}, *{given})")
    result: dict[str, Any] = json.loads(output)
    return result | {"images_per_second": n / result["seconds"]}


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout


def child(name: str, folder: str, port: int, n: int) -> None:
    """Run one of `RUNS` and print what it took."""
    seconds = RUNS[name](port, n, folder)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    # Not ru_maxrss, which a process takes over from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))


def measure(data: Path, rows: int | None) -> list[Result]:
    """Rounds of all runs, one after another; of each the fastest counts.

    What they wrote is removed at the very end: ext4 takes many times as long to make a file while thousands have just
    been deleted, since it passes over every inode that was freed lately.
    """
    with scratch() as folder:
        return _measure(rows or N_IMAGES, folder)


def _measure(n: int, folder: Path) -> list[Result]:
    server = subprocess.Popen([sys.executable, "-m", "tests.image_server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        rounds = [
            {name: _in_own_process(name, port, n, folder / f"{name}-{at}") for name in RUNS}
            for at in range(ROUNDS)
        ]
        larger = _in_own_process("shelfprice", port, 4 * n, folder / "larger")
    finally:
        server.terminate()
        server.wait()
    best = {name: min((one[name] for one in rounds), key=lambda run: float(run["seconds"])) for name in RUNS}
    speed = {name: float(run["images_per_second"]) for name, run in best.items()}
    ours, bare = speed["shelfprice"], speed["bare"]
    peaks = {"peak_mb": best["shelfprice"]["peak_mb"], "peak_mb_four_times_as_many": larger["peak_mb"]}
    return [
        Result.at_least(
            "download against 1,000 images/s, or 0.8 of the same client without storing",
            max(ours / 1000.0, ours / bare / 0.8),
            1.0,
            images=n,
            images_per_second=ours,
            bare_images_per_second=bare,
            cpu_seconds=best["shelfprice"]["cpu_seconds"],
        ),
        Result.at_least(
            "download against threads with requests",
            ours / speed["requests"],
            2.0,
            images=n,
            images_per_second=ours,
            requests_images_per_second=speed["requests"],
            requests_session_images_per_second=speed["requests-session"],
        ),
        Result.at_most(
            "download memory, four times as many images",
            larger["peak_mb"] / best["shelfprice"]["peak_mb"],
            1.25,
            **peaks,
        ),
    ]


if __name__ == "__main__":
    main(measure)
