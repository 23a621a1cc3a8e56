"""Whole runs of `shelfprice catalog images` against a server on loopback."""

import errno
import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from store.catalog.download import storer
from store.catalog.download.fetch import FetchLimits
from store.catalog.download.progress import Progress
from store.catalog.download.run import DownloadSettings, download_images
from store.catalog.download.schedule import Policy
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import read_links
from store.catalog.ingest.run import ingest
from store.catalog.read import catalog_digest
from store.cli import main
from store.errors import ConfigError, WorkspaceError
from store.workspace import Workspace
from tests.fakes import catalog_table, image_digests, publish_catalog
from tests.image_server import Site, serving

SETTINGS = DownloadSettings(
    limits=FetchLimits(connect_seconds=10.0, silent_seconds=10.0, total_seconds=30.0),
    policy=Policy(backoff_seconds=0.02, retries=2, dead_seconds=0.5),
    allow_private=True,
)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def port(site):
    with serving(site) as port:
        yield port


def catalog_of(workspace, links):
    publish_catalog(
        workspace,
        catalog_table([{"sample_id": i, "image_link": link, "price": 1.0} for i, link in enumerate(links)]),
    )


def run(workspace, **changes):
    return download_images(workspace, replace(SETTINGS, **changes), Progress(show=False))


def rows(workspace):
    return {row["link"]: row for row in read_links(workspace).to_pylist()}


def test_links_that_no_system_call_takes_end_as_reasons_and_so_does_the_next_run(tmp_path, site, port):
    workspace, base = Workspace(tmp_path), f"http://127.0.0.1:{port}"
    catalog_of(
        workspace,
        ["http://[fe80::1%é]/a.jpg", f"{base}/redirect?to=http://[fe80::1%25é]/a.jpg", f"{base}/img/1.jpg"],
    )
    summary = run(workspace)
    assert summary.n_stored == 1
    assert dict(summary.wanted.n_unusable) == {"bad host: an IPv6 address with a scope": 1}
    assert [reason for reason in summary.failed if reason.startswith("redirect refused: bad host")]
    assert run(workspace).n_asked == 0


def test_each_link_ends_with_an_image_or_a_reason_and_the_same_bytes_lie_there_once(tmp_path, site, port):
    workspace, base = Workspace(tmp_path), f"http://127.0.0.1:{port}"
    paths = [
        "img/1.jpg",
        "img/1.jpg",
        "same",
        "hops?n=5",
        "hops?n=6",
        "404",
        "500-once",
        "html",
        "torn",
        "loop",
    ]
    catalog_of(workspace, [f"{base}/{path}" for path in paths])
    summary = run(workspace)
    found = rows(workspace)
    assert set(found) == {f"{base}/{path}" for path in paths}
    assert all((row["sha256"] is None) != (row["reason"] is None) for row in found.values())
    assert found[f"{base}/same"]["sha256"] == found[f"{base}/hops?n=5"]["sha256"]
    assert (summary.n_asked, summary.n_stored, summary.n_new_images) == (9, 4, 3)
    assert sum(1 for path in (tmp_path / "images/blobs").rglob("*") if path.is_file()) == 3
    assert dict(summary.failed) == {
        **{"http 404": 1, "not an image: HTML": 1, "broken image: truncated": 1},
        "redirects: over 5": 2,
    }
    assert (tmp_path / blob_path(found[f"{base}/img/1.jpg"]["sha256"])).read_bytes() == site.image_bytes(1)
    assert found[f"{base}/500-once"]["tries"] == 2
    assert site.requests["/img/1.jpg"] == 1


def test_a_second_run_asks_for_nothing_and_retry_failed_only_for_failures(tmp_path, site, port):
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/{path}" for path in ("img/1.jpg", "404", "img/2.jpg")])
    run(workspace)
    site.requests.clear()
    summary = run(workspace)
    assert (summary.n_asked, summary.n_stored_before, summary.n_failed_before) == (0, 2, 1)
    assert site.requests.total() == 0
    run(workspace, retry_failed=True)
    assert dict(site.requests) == {"/404": 1}


def test_an_image_whose_bytes_have_gone_is_fetched_again(tmp_path, site, port):
    workspace, link = Workspace(tmp_path), f"http://127.0.0.1:{port}/img/1.jpg"
    catalog_of(workspace, [link])
    run(workspace)
    (tmp_path / blob_path(rows(workspace)[link]["sha256"])).unlink()
    assert run(workspace).n_stored == 1


def test_refresh_asks_conditionally_and_keeps_an_image_that_is_gone_at_its_server(tmp_path, site, port):
    workspace, base = Workspace(tmp_path), f"http://127.0.0.1:{port}"
    catalog_of(workspace, [f"{base}/tagged", f"{base}/500-once", f"{base}/img/1.jpg"])
    run(workspace)
    before = image_digests(workspace)
    assert run(workspace, refresh=True).n_not_modified == 1
    assert image_digests(workspace) == before
    site.version = '"v2"'
    site.answer_500_once = site.answer_404
    summary = run(workspace, refresh=True)
    after = image_digests(workspace)
    assert summary.failed == {"http 404": 1}
    assert after[f"{base}/tagged"] != before[f"{base}/tagged"]
    assert after[f"{base}/500-once"] == before[f"{base}/500-once"]


def test_retry_after_is_obeyed(tmp_path, site, port):
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/429-once?after=1"])
    assert run(workspace).n_stored == 1
    first, second = site.times["/429-once?after=1"]
    assert second - first >= 1.0


def test_a_host_that_asks_for_a_day_ends_the_run_at_once(tmp_path, site, port):
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/429-for-long?{i}" for i in range(50)])
    summary = run(workspace, policy=replace(SETTINGS.policy, per_host=2))
    assert summary.n_failed == 50
    assert site.requests.total() <= 4


def test_a_host_is_asked_no_more_at_a_time_than_allowed(tmp_path, site, port):
    workspace = Workspace(tmp_path)
    site.delay = 0.02
    catalog_of(workspace, [f"http://127.0.0.1:{port}/img/{i}.jpg" for i in range(40)])
    run(workspace, policy=replace(SETTINGS.policy, per_host=3))
    assert site.most_active == 3
    assert site.n_connections <= 3


def test_rows_see_what_arrived_and_a_later_ingest_agrees(tmp_path, site, port):
    workspace = Workspace(tmp_path / "w")
    table = tmp_path / "train.csv"
    table.write_text(
        "sample_id,catalog_content,image_link,price\n"
        f"1,Tea,http://127.0.0.1:{port}/img/1.jpg,2\n"
        f"2,Jam,\"'http://127.0.0.1:{port}/img/1.jpg'\",3\n"
        f"3,Rice,http://127.0.0.1:{port}/404,4\n4,Salt,,5\n5,Oil,images/5.jpg,5\n"
    )
    ingest(workspace, str(table))
    before = catalog_digest(workspace)
    assert run(workspace).n_rows_with_image == 2
    digests = image_digests(workspace)
    images = workspace.read_table("catalog/train.parquet")["image"].to_pylist()
    assert [image in digests for image in images] == [True, True, False, False, False]
    assert catalog_digest(workspace) != before
    after = catalog_digest(workspace)
    assert ingest(workspace, str(table)).is_unchanged
    assert catalog_digest(workspace) == after
    run(workspace)
    assert catalog_digest(workspace) == after


def test_a_column_of_lists_gives_each_row_all_its_links(tmp_path, site, port):
    base, workspace = f"http://127.0.0.1:{port}", Workspace(tmp_path / "w")
    cells = [[f"{base}/img/1.jpg", f"{base}/img/2.jpg"], [], None, [f"{base}/img/3.jpg"]]
    names = {"sample_id": [1, 2, 3, 4], "catalog_content": ["a", "b", "c", "d"], "price": [1.0] * 4}
    pq.write_table(pa.table(names | {"image_link": cells}), tmp_path / "train.parquet")
    ingest(workspace, str(tmp_path / "train.parquet"))
    summary = run(workspace)
    assert set(image_digests(workspace)) == {f"{base}/img/{n}.jpg" for n in (1, 2, 3)}
    assert (summary.wanted.n_without, summary.n_rows_with_image) == (2, 2)


def test_a_row_with_an_image_from_a_folder_asks_no_server(tmp_path, site, port):
    workspace = Workspace(tmp_path)
    rows_ = [
        {
            "sample_id": 1,
            "image": "file:1.jpg",
            "image_link": f"http://127.0.0.1:{port}/img/1.jpg",
            "price": 1.0,
        }
    ]
    publish_catalog(workspace, catalog_table(rows_))
    summary = run(workspace)
    assert (summary.wanted.n_from_folder, summary.n_asked, site.requests.total()) == (1, 0, 0)


def test_a_full_disk_is_one_error_and_what_was_stored_counts(tmp_path, site, port, monkeypatch):
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/img/{i}.jpg" for i in range(200)])
    with monkeypatch.context() as patch:
        patch.setattr("store.files.publish_local", _full_after(100))
        patch.setattr(storer, "StoreProcess", storer.StoreThread)
        with pytest.raises(
            WorkspaceError, match=r"no space left to write .*: free some and run the command again"
        ):
            run(workspace)
    assert 0 < len(image_digests(workspace)) <= 100
    n_before = len(image_digests(workspace))
    assert run(workspace).n_stored == 200 - n_before
    assert len(image_digests(workspace)) == 200


def _full_after(n):
    from store.local import publish_local

    blobs = []

    def publish(target, write, flush=True):
        if "blobs" in target:
            if len(blobs) >= n:
                raise OSError(errno.ENOSPC, "No space left on device")
            blobs.append(target)
        publish_local(target, write, flush)

    return publish


def test_a_full_disk_for_temporary_files_is_one_error_and_no_image_is_to_blame(tmp_path, port, monkeypatch):
    class Full(io.BytesIO):
        def write(self, piece):
            raise OSError(errno.ENOSPC, "No space left on device")

    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/same"])
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.SpooledTemporaryFile", lambda most: Full())
        with pytest.raises(WorkspaceError, match=r"no space left to write a temporary file in .*: free some"):
            run(workspace)
    assert run(workspace).n_stored == 1


def test_two_runs_at_once_both_end_well_and_nothing_is_fetched_twice(tmp_path, site, port):
    import threading

    site.delay = 0.005
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/img/{i}.jpg" for i in range(100)])
    summaries = []
    threads = [threading.Thread(target=lambda: summaries.append(run(Workspace(tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(summary.n_stored for summary in summaries) == [0, 100]
    assert max(site.requests.values()) == 1


def test_an_object_store_takes_images_too(tmp_path, site, port):
    workspace = Workspace(f"memory://{tmp_path.name}")
    catalog_of(workspace, [f"http://127.0.0.1:{port}/img/{i}.jpg" for i in range(20)])
    assert run(workspace).n_stored == 20
    assert run(workspace).n_asked == 0
    (sha256,) = {row["sha256"] for link, row in rows(workspace).items() if link.endswith("/img/7.jpg")}
    assert workspace.read_bytes(blob_path(sha256)) == site.image_bytes(7)


def test_links_parquet_is_brought_up_to_date_while_a_long_run_goes_on(tmp_path, site, port, monkeypatch):
    monkeypatch.setattr("store.catalog.download.run.CHECKPOINT_LINES", 30)
    workspace = Workspace(tmp_path)
    catalog_of(workspace, [f"http://127.0.0.1:{port}/img/{i}.jpg" for i in range(200)])
    assert run(workspace).n_stored == 200
    assert len(image_digests(workspace)) == 200
    assert max(site.requests.values()) == 1


# ---- the command ---------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(main, ["catalog", *map(str, arguments)])


BAD_CELLS = [
    None,
    "",
    "images/1.jpg",
    "not a link",
    "ftp://a.example/1.jpg",
    "http://a..example/1.jpg",
    "http://user:pw@a.example/1.jpg",
    "http://h/" + "x" * 5000,
]


def test_bad_cells_are_counted_and_told(tmp_path, site, port):
    workspace, base = Workspace(tmp_path), f"http://127.0.0.1:{port}"
    catalog_of(workspace, [*BAD_CELLS, f"'{base}/img/1.jpg'", f'["{base}/img/2.jpg"]'])
    result = invoke("images", "-w", tmp_path, "--allow-private", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (told["n_rows_without_link"], told["n_rows_unusable_link"], told["n_stored"]) == (2, 6, 2)
    assert told["unusable"]["relative link"] == 1
    assert told["unusable"]["link too long: over 4096 characters"] == 1
    assert sum(told["notes"].values()) == 2
    assert rows(workspace)["images/1.jpg"]["reason"] == "relative link"
    text = invoke("images", "-w", tmp_path, "--allow-private").stdout
    assert "10 rows: 2 with a link (2 different)" in text
    assert "unusable: 1 scheme not allowed: ftp" in text


def test_private_addresses_are_refused_unless_allowed(tmp_path, site, port):
    catalog_of(Workspace(tmp_path), [f"http://127.0.0.1:{port}/img/1.jpg"])
    result = invoke("images", "-w", tmp_path)
    assert result.exit_code == 0
    assert "failed: 1 address refused: loopback (127.0.0.1)" in result.stdout
    assert "only with --allow-private (and --retry-failed)" in result.stdout
    assert site.requests.total() == 0
    assert "stored: 1 " in invoke("images", "-w", tmp_path, "--allow-private", "--retry-failed").stdout


def test_no_network_is_one_line_and_exit_code_1(tmp_path):
    catalog_of(Workspace(tmp_path), [f"http://no-such-host-{i}.invalid/{i}.jpg" for i in range(3)])
    result = invoke("images", "-w", tmp_path, "--retries", "0")
    assert result.exit_code == 1
    assert "Error: not one of 3 links could be reached (dns: " in result.stderr
    assert "check the network" in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_catalogue_is_needed(tmp_path):
    result = invoke("images", "-w", tmp_path)
    assert result.exit_code == 1
    assert "catalog ingest" in result.stderr


def test_a_contact_stands_in_the_user_agent(tmp_path, site, port):
    catalog_of(Workspace(tmp_path), [f"http://127.0.0.1:{port}/img/1.jpg"])
    invoke("images", "-w", tmp_path, "--allow-private", "--contact", "shop@example.org")
    assert site.headers["/img/1.jpg"]["user-agent"].endswith("(catalogue images; contact: shop@example.org)")


def test_a_contact_that_would_break_the_header_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--contact must be an e-mail address or a URL"):
        download_images(Workspace(tmp_path), DownloadSettings(contact="x\r\nEvil: 1"), Progress(show=False))


def test_the_links_file_keeps_its_schema(tmp_path, site, port):
    from store.schema import LINKS

    catalog_of(Workspace(tmp_path), [f"http://127.0.0.1:{port}/tagged"])
    run(Workspace(tmp_path))
    table = Workspace(tmp_path).read_table("images/links.parquet")
    assert table.schema.equals(LINKS)
    assert isinstance(table, pa.Table)
    assert table["etag"].to_pylist() == ['"v1"']
