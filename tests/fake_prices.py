"""A stand-in for a fitted model: the interface of `PriceModel`, answers that tell which row they belong to."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from math import exp, log
from pathlib import Path

import uvicorn
from PIL import Image

from ensemble.model.answers import (
    BAD_NUMBER,
    NO_IMAGE,
    NO_TEXT,
    UNREADABLE_IMAGE,
    Effect,
    Explanation,
    NearProduct,
    Priced,
)
from ensemble.model.price_model import ModelInputs, PriceModel
from ensemble.serving.cli import serve


class FakePriceModel:
    """Prices a row by its number of characters, 1 for each, and 10 times as much with an image.

    Args:
        folder: gets images of near products; None: they have none.
        seconds: that each batch takes.
    """

    currency = "$"
    fingerprint = "00112233aabbccdd"

    def __init__(self, folder=None, inputs=None, seconds=0.0):
        self.inputs = inputs or ModelInputs(("title", "description"), "photo", ("rating",), ("brand",))
        self.folder = folder
        self.seconds = seconds
        self.batches = []  # rows of each call
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        if folder is not None:
            (Path(folder) / "near").mkdir(exist_ok=True)
            for n, color in enumerate(("#c33", "#3a3", "#33c", "#cc3", "#3cc")):
                Image.new("RGB", (64, 64), color).save(Path(folder) / f"near/{n}.jpg")
            (Path(folder) / "weights.npz").write_bytes(b"PK\x03\x04 not for clients")

    def embed(self, rows):
        self.batches.append(len(rows))
        assert self.may_go_on.wait(30)
        time.sleep(self.seconds)
        return rows

    def price(self, rows, interval=0.9):
        return [self._priced(row, interval) for row in rows]

    def explain(self, rows, interval=0.9):
        return [
            self._explained(row, priced) for row, priced in zip(rows, self.price(rows, interval), strict=True)
        ]

    def _priced(self, row, interval):
        text = "".join(row.get(name) or "" for name in self.inputs.text)
        image, flags = row.get(self.inputs.image), []
        assert image is None or isinstance(image, bytes), "a path from a client must never get here"
        if "a bug" in text:
            raise RuntimeError(f"no price for {text}")
        if not text and not image:
            return Priced(None, None, None, (NO_TEXT, NO_IMAGE), "nothing is known of the product")
        if not text:
            flags.append(NO_TEXT)
        if image is None:
            flags.append(NO_IMAGE)
        elif not self._opens(image):
            flags.append(UNREADABLE_IMAGE)
        if isinstance(row.get("rating"), str):
            flags.append(BAD_NUMBER)
        price = max(1, len(text)) * (10.0 if image and UNREADABLE_IMAGE not in flags else 1.0)
        return Priced(price, price * (1 - interval / 2), price * (1 + interval), tuple(flags))

    def _opens(self, image):
        try:
            with Image.open(io.BytesIO(image)) as opened:
                opened.load()
        except OSError:
            return False
        return True

    def _explained(self, row, priced):
        if priced.price is None:
            return Explanation(priced, None, {}, {}, (), ())
        half = log(priced.price / 2)
        effects = (Effect("organic", 0.7 * half, f"{exp(0.7 * half) - 1:+.0%} 'organic'"),
                   Effect("pack of 2", -0.3 * half, f"{exp(-0.3 * half) - 1:+.0%} pack of 2"),
                   Effect("everything else", 0.6 * half, f"{exp(0.6 * half) - 1:+.0%} everything else"))  # fmt: skip
        near = tuple(
            NearProduct(n, f"Near product {n} <b>&</b> a name that is rather long for its place, 250 g",
                        priced.price * (0.6 + 0.25 * n), {"minilm@structured": 0.9 - n / 20, "item name": 0.8},
                        f"near/{n}.jpg" if self.folder and n < 4 else None)
            for n in range(5)
        )  # fmt: skip
        logs = {"ridge": log(priced.price) + 0.1, "lightgbm": log(priced.price) - 0.1}
        return Explanation(priced, 2.0, {"ridge": 0.5, "lightgbm": 0.5}, logs, effects, near)


@contextmanager
def serving(app):
    """Serve an application from a thread, on loopback; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def running(folder, *options, program=("tests.fake_prices",), **environment):
    """`shelfprice serve` of a stand-in, as a process; yields its address and itself."""
    command = [sys.executable, "-m", *program, "--model", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if '"listening"' in line:
                break
        else:
            raise AssertionError("".join(lines))
        process.log = lines  # all of what it said, once it has ended
        reading = threading.Thread(target=lambda: lines.extend(process.stderr))
        reading.start()
        yield json.loads(line)["url"], process
    finally:
        process.kill()
        process.wait()
    reading.join()


if __name__ == "__main__":  # as `shelfprice serve`, with a stand-in for what is loaded
    seconds = float(os.environ.get("FAKE_SECONDS", "0"))
    PriceModel.load = classmethod(lambda cls, folder: FakePriceModel(folder, seconds=seconds))
    serve()
