"""`shelfprice serve` as a process: it stops without losing a request, comes up again after a kill, keeps its memory."""

import asyncio
import json
import signal
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner

from store.cli import main
from tests.fake_prices import running
from tests.http_load import ask_fake, load, resident_mb

TOKEN = "a-token-that-nobody-guesses"
TEA = {"products": [{"title": "tea"}]}


def events(process):
    return [json.loads(line) for line in process.log if line.startswith("{")]


def test_a_signal_stops_it_once_requests_at_work_are_answered_and_no_token_is_in_its_log(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    given = {"authorization": f"Bearer {TOKEN}"}
    with running(tmp_path, "--token-file", str(tmp_path / "token"), FAKE_SECONDS="0.5") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{url}/v1/price", json=TEA).status_code == 401
        answers = []
        ask = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/price", json=TEA, headers=given, timeout=30))
        )
        ask.start()
        while "shelfprice_requests_at_work 2.0" not in httpx.get(f"{url}/metrics", headers=given).text:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        ask.join()
        assert answers[0].json()["prices"][0]["price"] == 3.0
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError, match="refused"):
            httpx.get(f"{url}/healthz")
    said = events(process)
    assert said[-1]["event"] == "stopped"
    assert [one["status"] for one in said if one.get("route") == "/v1/price"] == [200]
    assert TOKEN not in "".join(process.log)


def test_a_killed_server_comes_up_again_on_its_port(tmp_path):
    with running(tmp_path, FAKE_SECONDS="5") as (url, process):
        connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))
        body = json.dumps(TEA).encode()
        connection.sendall(
            b"POST /v1/price HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        process.kill()
        process.wait()
        with running(tmp_path, "--port", str(urlsplit(url).port)) as (again, _):
            assert again == url
            assert httpx.post(f"{url}/v1/price", json=TEA).json()["prices"][0]["price"] == 3.0
        connection.close()


def test_headers_without_end_are_refused_before_they_fill_the_memory(tmp_path):
    with running(tmp_path) as (url, process):
        before = resident_mb(process.pid)
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as connection:
            with suppress(OSError):  # the server hangs up
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
                for n in range(64):
                    connection.sendall(b"x-%d: %s\r\n" % (n, b"y" * 2**20))
                connection.sendall(b"\r\n")
            with suppress(ConnectionResetError):
                assert connection.recv(20).startswith(b"HTTP/1.1 400")
        assert resident_mb(process.pid) < before + 32
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_many_clients_each_get_their_own_answer_and_memory_stays_flat(tmp_path):
    with running(tmp_path) as (url, process):
        asyncio.run(load(url, ask_fake, clients=50, seconds=1))
        before = resident_mb(process.pid)
        done = asyncio.run(load(url, ask_fake, clients=50, seconds=3))
        after = resident_mb(process.pid)
        batches = httpx.get(f"{url}/metrics").text
    assert done.n_lost == done.n_wrong == 0
    assert set(done.statuses) == {200}
    assert after - before < 16, (before, after)
    (n,) = [
        float(line.split()[-1])
        for line in batches.splitlines()
        if line.startswith("shelfprice_batch_rows_count")
    ]
    assert n < done.n_sent, "requests were priced together"


def test_what_can_not_be_served_is_one_line(tmp_path):
    (tmp_path / "short").write_text("short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            ("--token-file", str(tmp_path / "short")): "a token has at least 16 characters",
            ("--port", port): f"can't listen on port {port} of 127.0.0.1: Address already in use",
            ("--host", "nowhere.invalid"): "can't listen on port 8000 of nowhere.invalid",
        }
        for options, said in cases.items():
            found = CliRunner().invoke(main, ["serve", "--model", str(tmp_path), *options])
            assert found.exit_code == 1
            assert said in found.output
    assert "nowhere.invalid is open to the network and no token is required" in found.output


def test_it_listens_on_loopback_and_takes_the_token_from_a_file_or_the_environment(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "ensemble.serving.server.serve", lambda folder, settings, level: started.append(settings)
    )
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    command = ["serve", "--model", str(tmp_path)]
    for options, variable in (([], None), ([], TOKEN), (["--token-file", str(tmp_path / "token")], "other")):
        found = CliRunner().invoke(main, command + options, env={"SHELFPRICE_TOKEN": variable})
        assert (found.exit_code, found.output) == (0, "")
    assert [one.token for one in started] == [None, TOKEN, TOKEN]
    assert started[0].host == "127.0.0.1"
    assert "localhost" in started[0].hosts
    assert TOKEN not in repr(started)
