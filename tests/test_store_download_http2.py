from dataclasses import replace

import pytest

from store.catalog.download.fetch import Limits
from store.catalog.download.progress import Progress
from store.catalog.download.run import Settings, download_images
from store.catalog.download.schedule import Policy
from store.catalog.images import image_digests
from store.catalog.links import read_links
from store.errors import ConfigError
from store.workspace import Workspace
from tests.fakes import catalog_table, publish_catalog
from tests.http2_server import certificates, http2_server
from tests.image_server import Site, serving

SETTINGS = Settings(
    limits=Limits(connect_seconds=10.0, silent_seconds=20.0, total_seconds=60.0),
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


def test_many_pictures_share_one_http2_connection(tmp_path, site):
    summary = run(tmp_path, site, [f"img/{i}.jpg" for i in range(100)])
    assert summary.n_stored == 100
    assert site.n_connections == 1
    assert len(image_digests(Workspace(tmp_path))) == 100


def test_an_endless_body_does_not_starve_the_others_on_its_connection(tmp_path, site):
    paths = [
        path for i in range(6) for path in (f"endless/{i}", *(f"img/{20 * i + j}.jpg" for j in range(20)))
    ]
    summary = run(tmp_path, site, paths, limits=replace(SETTINGS.limits, max_bytes=1_000_000))
    assert summary.n_stored == 120
    assert summary.failed == {"too large: over 1000000 bytes": 6}


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
