"""One request to a server with wrong, slow and broken answers."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from store.catalog.download import network
from store.catalog.download.addresses import address_problem
from store.catalog.download.fetch import Fetcher, FetchLimits
from store.catalog.download.images import image_problem
from store.catalog.download.network import resolve
from tests.image_server import MODIFIED, Site, serving

LIMITS = FetchLimits(connect_seconds=10.0, silent_seconds=10.0, total_seconds=30.0)
IMPATIENT = {"hang": replace(LIMITS, silent_seconds=0.5), "drip": replace(LIMITS, total_seconds=1.5)}


@pytest.fixture(scope="module")
def site():
    return Site()


@pytest.fixture(scope="module")
def port(site):
    with serving(site) as port:
        yield port


def fetch(url, *, limits=LIMITS, allow_private=True, resolver=resolve, **conditions):
    """One reply, with its body read."""

    async def once():
        async with Fetcher(limits, "test", allow_private=allow_private, resolver=resolver) as fetcher:
            reply = await fetcher.fetch(url, **conditions)
            if reply.body is None:
                return reply, None
            problem = image_problem(reply.body, limits.max_pixels)
            reply.body.seek(0)
            with reply.body:
                return reply, problem or reply.body.read()

    return asyncio.run(once())


def test_an_image_arrives_byte_by_byte_as_it_was_sent(site, port):
    reply, body = fetch(f"http://127.0.0.1:{port}/img/5.jpg")
    assert (reply.status, reply.reason, body) == (200, None, site.image_bytes(5))


@pytest.mark.parametrize(("path", "n"), [("gzip", 7), ("chunked", 8), ("typeless", 9)])
def test_odd_but_honest_answers_are_read_right(site, port, path, n):
    assert fetch(f"http://127.0.0.1:{port}/{path}")[1] == site.image_bytes(n)


@pytest.mark.parametrize(
    ("path", "reason", "retry"),
    [
        ("404", "http 404", False),
        ("403", "http 403", False),
        ("429", "http 429", True),
        ("500-once", "http 500", True),
        ("html", "not an image: HTML", False),
        ("short", "connection: cut off", True),
        ("reset", "connection: reset", True),
        ("huge-length", "too large: over 25000000 bytes", False),
        ("endless", "too large: over 25000000 bytes", False),
        ("gzip-endless", "too large: over 25000000 bytes", False),
        ("gzip-bomb", "too large: over 25000000 bytes when unpacked", False),
        ("bad-gzip", "protocol: bad compression", False),
        ("brotli", "encoding not accepted", False),
        ("garbage", "protocol: bad response", True),
        ("hang", "timeout: silent for 0.5 s", True),
        ("drip", "timeout: over 1.5 s", True),
    ],
)
def test_every_misbehaviour_becomes_a_reason(port, path, reason, retry):
    reply, _ = fetch(f"http://127.0.0.1:{port}/{path}", limits=IMPATIENT.get(path, LIMITS))
    assert (reply.reason, reply.retry) == (reason, retry)
    assert reply.body is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("unframed-short", "broken image: truncated"),
        ("longer-than-said", "broken image: truncated"),
        ("empty", "not an image: empty"),
        ("torn", "broken image: truncated"),
        ("pixels", "too many pixels: over 120000000"),
    ],
)
def test_a_body_that_does_not_decode_is_found_out(port, path, problem):
    assert fetch(f"http://127.0.0.1:{port}/{path}")[1] == problem


def test_a_small_size_cap_holds_while_the_body_streams(site, port):
    limits = replace(LIMITS, max_bytes=5000)
    assert fetch(f"http://127.0.0.1:{port}/chunked", limits=limits)[0].reason == "too large: over 5000 bytes"


def test_an_unchanged_image_is_not_sent_again(site, port):
    first, _ = fetch(f"http://127.0.0.1:{port}/tagged")
    again, _ = fetch(f"http://127.0.0.1:{port}/tagged", etag=first.etag)
    dated, _ = fetch(f"http://127.0.0.1:{port}/dated", last_modified=MODIFIED)
    assert (again.not_modified, dated.not_modified) == (True, True)


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("file:///etc/passwd", "redirect refused: scheme not allowed: file"),
        ("ftp://a.example/x", "redirect refused: scheme not allowed: ftp"),
        ("http://user@a.example/", "redirect refused: not a link: user name in it"),
    ],
)
def test_a_redirect_leads_to_http_only(port, to, reason):
    assert fetch(f"http://127.0.0.1:{port}/redirect?to={to}")[0].reason == reason


def test_a_relative_redirect_is_joined_to_its_url(port):
    assert fetch(f"http://127.0.0.1:{port}/loop")[0].redirect == f"http://127.0.0.1:{port}/loop"


def test_a_connection_is_used_again_after_an_error_page(site):
    async def several(port):
        async with Fetcher(LIMITS, "test", allow_private=True) as fetcher:
            for path in ("404", "html", "img/1.jpg", "loop", "img/2.jpg"):
                reply = await fetcher.fetch(f"http://127.0.0.1:{port}/{path}")
                if reply.body is not None:
                    reply.body.close()

    with serving(site) as port:
        before = site.n_connections
        asyncio.run(several(port))
        assert site.n_connections - before == 1


def test_the_user_agent_is_sent_and_nothing_of_the_machine(site, port):
    fetch(f"http://127.0.0.1:{port}/same")
    assert set(site.headers["/same"]) == {"host", "user-agent", "accept", "accept-encoding"}
    assert site.headers["/same"]["user-agent"] == "test"


# ---- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_refused_however_it_is_written(site, port, host):
    before = site.requests.total()
    reply, _ = fetch(f"http://{host}:{port}/img/1.jpg", allow_private=False)
    assert reply.reason.startswith(("address refused: loopback", "dns: "))
    assert site.requests.total() == before


def test_a_name_that_leads_inside_is_refused(site, port):
    async def resolver(host, port):
        return ["10.0.0.7", "127.0.0.1"]

    reply, _ = fetch(f"http://public.example:{port}/x", allow_private=False, resolver=resolver)
    assert reply.reason == "address refused: private (10.0.0.7)"


def test_only_the_allowed_one_of_several_addresses_is_asked(site, port):
    async def resolver(host, port):
        return ["169.254.169.254", "127.0.0.1"]

    assert fetch(f"http://public.example:{port}/img/3.jpg", resolver=resolver)[1] == site.image_bytes(3)


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(site, port):
    answers = [["127.0.0.1"], ["169.254.169.254"], ["169.254.169.254"]]
    asked = []

    async def resolver(host, port):
        asked.append(host)
        return answers[len(asked) - 1]

    _, body = fetch(f"http://rebinding.example:{port}/img/4.jpg", resolver=resolver)
    assert body == site.image_bytes(4)
    assert asked == ["rebinding.example"]
    assert site.headers["/img/4.jpg"]["host"] == f"rebinding.example:{port}"


def test_every_new_connection_is_checked_again(site, port):
    answers = iter([["127.0.0.1"], ["192.168.0.1"]])

    async def resolver(host, port):
        return next(answers)

    async def twice():
        async with Fetcher(LIMITS, "test", allow_private=False, resolver=resolver) as fetcher:
            first = await fetcher.fetch(f"http://rebinding.example:{port}/short")
            return first.reason, (await fetcher.fetch(f"http://rebinding.example:{port}/short")).reason

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "address_problem", _only_127_0_0_1_is_public)
        assert asyncio.run(twice()) == ("connection: cut off", "address refused: private (192.168.0.1)")


def test_a_redirect_to_a_loopback_address_is_refused(site, port, monkeypatch):
    monkeypatch.setattr(network, "address_problem", _only_127_0_0_1_is_public)
    redirect, _ = fetch(
        f"http://127.0.0.1:{port}/redirect?to=http://127.0.0.2:{port}/same", allow_private=False
    )
    reply, _ = fetch(redirect.redirect, allow_private=False)
    assert reply.reason == "address refused: loopback (127.0.0.2)"


def _only_127_0_0_1_is_public(address, allow_private=False):
    return None if address == "127.0.0.1" else address_problem(address, allow_private)


def test_an_ipv6_address_is_named_to_the_server_in_brackets(site, port):
    async def resolver(host, port):
        assert host == "::1"
        return ["127.0.0.1"]  # where the test's server listens

    assert fetch(f"http://[::1]:{port}/img/6.jpg", resolver=resolver)[1] == site.image_bytes(6)
    assert site.headers["/img/6.jpg"]["host"] == f"[::1]:{port}"


def test_whatever_goes_wrong_with_one_link_is_its_reason(port):
    async def resolver(host, port):
        raise TypeError("an argument that the system does not take")

    reply, _ = fetch(f"http://a.example:{port}/x", resolver=resolver)
    assert (reply.reason, reply.retry) == ("can't be asked: TypeError", False)


def test_no_network_is_told_from_no_image(port):
    async def resolver(host, port):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    reply, _ = fetch("http://a.example/x", resolver=resolver)
    assert (reply.reason, reply.unreachable) == ("dns: Temporary failure in name resolution", True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reply, _ = fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/x")
    assert (reply.reason, reply.unreachable) == ("connect: refused", True)


def test_retry_after_is_read_as_seconds_or_as_a_date(port):
    from store.catalog.download.fetch import _retry_after

    assert _retry_after("120") == 120.0
    assert _retry_after("Wed, 01 Jan 2020 00:00:00 GMT") == 0.0
    assert _retry_after(
        time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    ) == pytest.approx(60, abs=2)
    assert [_retry_after(value) for value in (None, "", "soon", "-3", "²")] == [None] * 5
    assert _retry_after("9" * 5000) > 1e9
