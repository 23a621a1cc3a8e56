import asyncio
from dataclasses import replace

import pytest

from store.catalog.download.connections import Pool, tls_context
from store.catalog.download.fetch import Fetcher, FetchLimits
from store.catalog.download.network import CheckedBackend
from store.catalog.download.progress import Progress
from store.catalog.download.run import DownloadSettings, download_images
from store.catalog.download.schedule import Policy
from store.catalog.images.links import read_links
from store.errors import ConfigError
from store.workspace import Workspace
from tests.fakes import catalog_table, image_digests, publish_catalog
from tests.http2_server import certificates, http2_server
from tests.image_server import Site, serving

SETTINGS = DownloadSettings(
    limits=FetchLimits(connect_seconds=10.0, silent_seconds=20.0, total_seconds=60.0),
    policy=Policy(backoff_seconds=0.02),
    allow_private=True,
)


@pytest.fixture
def site():
    return Site()


def run(folder, site, paths, **changes):
    context, authority = certificates(folder)
    workspace = Workspace(folder)
    with serving(site, http2_server(site), context) as port:
        base = f"https://127.0.0.1:{port}"
        rows = [
            {"sample_id": i, "image_link": f"{base}/{path}", "price": 1.0} for i, path in enumerate(paths)
        ]
        publish_catalog(workspace, catalog_table(rows))
        settings = replace(SETTINGS, ca_file=authority, **changes)
        return download_images(workspace, settings, Progress(show=False))


def test_many_images_share_one_http2_connection(tmp_path, site):
    summary = run(tmp_path, site, [f"img/{i}.jpg" for i in range(100)])
    assert summary.n_stored == 100
    assert site.n_connections == 1
    assert len(image_digests(Workspace(tmp_path))) == 100


def among(bad, n_bad=6, n_good=120):
    """Links of images with a bad one among every few."""
    every = n_good // n_bad
    return [
        path
        for i in range(n_bad)
        for path in (f"{bad}/{i}", *(f"img/{every * i + j}.jpg" for j in range(every)))
    ]


ONE_TRY = Policy(backoff_seconds=0.02, retries=0)


def test_an_endless_body_costs_the_others_on_its_connection_nothing(tmp_path, site):
    limits = replace(SETTINGS.limits, max_bytes=1_000_000)
    summary = run(tmp_path, site, among("endless"), limits=limits, policy=ONE_TRY)
    assert summary.n_stored == 120
    assert summary.failed == {"too large: over 1000000 bytes": 6}
    assert site.n_connections == 1
    assert site.n_cancelled == 6
    assert set(site.requests.values()) == {1}


@pytest.fixture
def https(tmp_path, site):
    """URL of a server that speaks HTTP/2, and the file with its authority."""
    context, authority = certificates(tmp_path)
    with serving(site, http2_server(site), context) as port:
        yield f"https://127.0.0.1:{port}", authority


@pytest.mark.parametrize("bad", ["hang", "stop"])
def test_an_answer_given_up_while_it_stalls_leaves_its_connection_to_the_others(https, site, bad):
    base, authority = https

    async def ask():
        async with Fetcher(SETTINGS.limits, "test", allow_private=True, ca_file=authority) as fetcher:
            stalled = asyncio.create_task(fetcher.fetch(f"{base}/{bad}"))
            while not site.requests[f"/{bad}"]:
                await asyncio.sleep(0)
            before = await fetcher.fetch(f"{base}/img/1.jpg")
            stalled.cancel()
            await asyncio.wait([stalled])
            after = await fetcher.fetch(f"{base}/img/2.jpg")
            for reply in (before, after):
                reply.body.seek(0)
            return [reply.body.read() for reply in (before, after)]

    assert asyncio.run(ask()) == [site.image_bytes(1), site.image_bytes(2)]
    assert (site.n_connections, site.n_cancelled) == (1, 1)


def test_what_was_sent_and_never_read_is_given_back_to_the_window(https, site):
    base, authority = https

    async def ask():
        backend = CheckedBackend(allow_private=True)
        async with Pool(ssl_context=tls_context(authority), n=1, backend=backend) as pool:
            async with pool.stream("GET", f"{base}/endless"):
                starved = asyncio.create_task(pool.request("GET", f"{base}/img/1.jpg"))
                while not site.window_is_full:
                    await asyncio.sleep(0)
                assert not starved.done()
            return (await starved).content

    assert asyncio.run(ask()) == site.image_bytes(1)


def test_no_more_requests_are_sent_at_a_time_than_the_server_takes(tmp_path, site):
    site.most_streams = 3  # it ends a connection on which more are sent
    assert run(tmp_path, site, [f"img/{i}.jpg" for i in range(60)], policy=ONE_TRY).n_stored == 60
    assert site.n_connections == 1
    assert set(site.requests.values()) == {1}


@pytest.mark.parametrize("bad", ["reset", "garbage"])
def test_what_a_server_breaks_over_http2_costs_the_others_nothing(tmp_path, site, bad):
    summary = run(tmp_path, site, among(bad), policy=ONE_TRY)
    assert summary.n_stored == 120
    assert summary.n_failed == 6
    assert max(site.requests.values()) == 2


def test_a_connection_lost_with_all_its_requests_is_held_against_the_one_to_blame(tmp_path, site):
    summary = run(tmp_path, site, among("lost"), policy=ONE_TRY)
    assert summary.n_stored == 120
    assert summary.n_failed == 6
    assert max(site.requests.values()) == 2


def test_a_server_that_says_goodbye_is_asked_again(tmp_path, site):
    assert run(tmp_path, site, ["goaway", "img/1.jpg"]).n_stored == 2


def test_a_certificate_of_no_known_authority_is_refused(tmp_path, site):
    summary = run(tmp_path, site, ["img/1.jpg"])
    assert summary.n_stored == 1
    (tmp_path / "other").mkdir()
    workspace = Workspace(tmp_path / "other")
    context, _ = certificates(tmp_path)
    with serving(site, http2_server(site), context) as port:
        link = f"https://127.0.0.1:{port}/img/1.jpg"
        publish_catalog(workspace, catalog_table([{"sample_id": 1, "image_link": link, "price": 1.0}]))
        download_images(workspace, SETTINGS, Progress(show=False))
    (row,) = read_links(workspace).to_pylist()
    assert row["reason"].startswith("tls: ")
    assert row["tries"] == 1


def test_an_authority_file_that_is_no_pem_is_one_error(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"--ca-file .* can't be read as PEM certificates"):
        download_images(
            Workspace(tmp_path), replace(SETTINGS, ca_file=str(tmp_path / "ca.pem")), Progress(show=False)
        )
