"""kill -9 ten times during 10,000 images."""

import hashlib
import random
import signal
import subprocess
import sys
import time

from store.catalog.download.record import JOURNAL_FOLDER, read_journal
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import read_links
from store.workspace import Workspace
from tests.fakes import catalog_table, image_digests, publish_catalog
from tests.image_server import Site, serving

N_IMAGES = 10_000
N_KILLS = 10


def stored_links(workspace):
    """Links whose image lies here whole, by the record alone."""
    records = read_links(workspace).to_pylist()
    for name in workspace.names(JOURNAL_FOLDER):
        records += read_journal(workspace.read_bytes(f"{JOURNAL_FOLDER}/{name}"))
    return {r["link"] for r in records if r["sha256"] and workspace.exists(blob_path(r["sha256"]))}


def test_a_download_killed_ten_times_ends_complete_with_nothing_fetched_twice_and_nothing_torn(tmp_path):
    workspace, site, draw = Workspace(tmp_path), Site(), random.Random(7)
    kills = sorted(draw.sample(range(50, N_IMAGES - 50), N_KILLS))
    with serving(site) as port:
        base = f"http://127.0.0.1:{port}"
        rows = [{"sample_id": i, "image_link": f"{base}/img/{i}.jpg", "price": 1.0} for i in range(N_IMAGES)]
        publish_catalog(workspace, catalog_table(rows))
        command = [
            sys.executable,
            "-m",
            "store.cli",
            "catalog",
            "images",
            "-w",
            str(tmp_path),
            "--allow-private",
        ]
        asked_when_stored: dict[str, int] = {}
        for kill_at in kills:
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                while process.poll() is None and len(site.requests) < kill_at:
                    time.sleep(0.001)
                assert process.poll() is None, process.stderr.read()
                process.send_signal(signal.SIGKILL)
            for link in stored_links(workspace):
                asked_when_stored.setdefault(link, site.requests[link.removeprefix(base)])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        again = [n for link, n in asked_when_stored.items() if site.requests[link.removeprefix(base)] != n]
    assert again == []
    assert len(asked_when_stored) > kills[-1] - N_KILLS * 100
    digests = image_digests(workspace)
    assert len(digests) == N_IMAGES
    assert site.requests.total() <= N_IMAGES + N_KILLS * 64  # what was on its way at a kill
    for link, sha256 in digests.items():
        assert hashlib.sha256((tmp_path / blob_path(sha256)).read_bytes()).hexdigest() == sha256, link
    blobs = {path.name for path in (tmp_path / "images/blobs").rglob("*") if path.is_file()}
    assert {name for name in blobs if not name.startswith(".")} == set(digests.values())
    assert workspace.names(JOURNAL_FOLDER) == []
