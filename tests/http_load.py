"""Many clients at once on kept connections, each checking that the answer is its own.

`python -m tests.http_load --clients 200 --seconds 60` loads a stand-in model by hand and prints what came of it.
"""

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import click

from tests.image_server import draw_jpeg

PHOTO = {"photo": {"base64": base64.b64encode(draw_jpeg()).decode()}}


@dataclass
class Load:
    """What a run came to."""

    n_sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    n_wrong: int = 0  # answers that belong to another request
    seconds: list[float] = field(default_factory=list)

    @property
    def n_lost(self) -> int:
        """Requests without an answer."""
        return self.n_sent - self.statuses.total()

    def percentile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


Ask = Callable[
    [random.Random], tuple[bytes, Callable[[bytes], bool]]
]  # a JSON body, and whether an answer is its own


async def load(url: str, ask: Ask, clients: int, seconds: float, path: str = "/v1/price") -> Load:
    """Clients that ask again as soon as they are answered, until the time is over."""
    total, parts = Load(), urlsplit(url)
    end = time.monotonic() + seconds
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    )

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.monotonic() < end:
            body, is_own = ask(draw)
            started = time.perf_counter()
            total.n_sent += 1
            writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
            try:
                status, answer = await _read(reader)
            except (OSError, asyncio.IncompleteReadError):
                return
            total.seconds.append(time.perf_counter() - started)
            total.statuses[status] += 1
            total.n_wrong += status == 200 and not is_own(answer)
        writer.close()

    await asyncio.gather(*(client(n) for n in range(clients)))
    return total


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    (length,) = (int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split(" ")[1]), await reader.readexactly(length)


def ask_fake(draw: random.Random) -> tuple[bytes, Callable[[bytes], bool]]:
    """Products of random lengths, some with an image, whose prices `FakePriceModel` makes of that."""
    lengths = [draw.randrange(1, 2000) for _ in range(draw.choice((1, 1, 1, 5)))]
    factors = [draw.choice((1, 1, 10)) for _ in lengths]
    products = [
        {"title": "x" * n} | (PHOTO if factor > 1 else {}) for n, factor in zip(lengths, factors, strict=True)
    ]
    prices = [n * factor for n, factor in zip(lengths, factors, strict=True)]
    body = json.dumps({"products": products}).encode()
    return body, lambda answer: [one["price"] for one in json.loads(answer)["prices"]] == prices


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    import psutil

    return float(psutil.Process(pid).memory_info().rss) / 2**20


@click.command()
@click.option("--clients", default=200, show_default=True, help="Clients at a time.")
@click.option("--seconds", default=60.0, show_default=True, help="How long they ask.")
def main(clients: int, seconds: float) -> None:
    """Load a server with a stand-in model, and watch its memory."""
    import tempfile

    from tests.fake_prices import running

    with tempfile.TemporaryDirectory() as folder, running(folder) as (url, process):
        memory = []
        for _ in range(6):
            done = asyncio.run(load(url, ask_fake, clients, seconds / 6))
            memory.append(resident_mb(process.pid))
            click.echo(
                f"{done.n_sent} sent, {done.n_lost} lost, {done.n_wrong} wrong, {dict(done.statuses)}, "
                f"p50 {1000 * done.percentile(0.5):.1f} ms, p99 {1000 * done.percentile(0.99):.1f} ms, "
                f"{memory[-1]:.1f} MiB"
            )


if __name__ == "__main__":
    main()
