"""Which links a catalogue asks for, and which of them are still to be fetched."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from store.catalog.download.addresses import MAX_LINK_CHARS, read_link
from store.catalog.download.record import LinkRecord
from store.catalog.download.schedule import DownloadTask
from store.catalog.images.blobs import stored_digests
from store.catalog.images.links import is_given, read_links
from store.catalog.read import present_splits, split_path
from store.config import load_config
from store.workspace import Workspace


@dataclass
class WantedLinks:
    """The link column of every split, read."""

    n_rows: int = 0
    n_from_folder: int = 0  # rows whose image is a local file: nothing to fetch
    n_without: int = 0  # rows with an empty cell
    n_rows_with_link: int = 0
    urls: dict[str, None] = field(default_factory=dict)  # unique, in catalogue order; until a plan is made
    n_links: int = 0  # unique ones
    unusable: dict[str, str] = field(default_factory=dict)  # cell as given -> why
    n_unusable: Counter[str] = field(default_factory=Counter)  # rows by reason
    notes: Counter[str] = field(default_factory=Counter)  # rows by what had to be done to read the cell


@dataclass(frozen=True)
class DownloadPlan:
    """What a run has to do."""

    jobs: list[DownloadTask]
    n_stored: int  # links whose image is here already
    n_failed: int  # links that failed in an earlier run and are left alone


def read_wanted(workspace: Workspace) -> WantedLinks:
    """Every link of the catalogue.

    Raises:
        CatalogError: none was ingested.
    """
    wanted = WantedLinks()
    take_all = load_config(workspace).columns.images_per_row == "all"
    for split in present_splits(workspace):
        for batch in workspace.batches(split_path(split), ["image", "image_link"]):
            cells = zip(batch["image"].to_pylist(), batch["image_link"].to_pylist(), strict=True)
            for image, cell in cells:
                _count(wanted, image, cell, take_all)
    wanted.n_links = len(wanted.urls)
    return wanted


def _count(wanted: WantedLinks, image: str | None, cell: str | None, take_all: bool) -> None:
    wanted.n_rows += 1
    if is_given(image):
        wanted.n_from_folder += 1
        return
    link = read_link(cell, take_all=take_all)
    if link.note:
        wanted.notes[link.note] += 1
    if link.urls:
        wanted.n_rows_with_link += 1
        wanted.urls.update(dict.fromkeys(link.urls))
    elif link.problem is not None:
        wanted.n_unusable[link.problem] += 1
        wanted.unusable.setdefault((cell or "")[:MAX_LINK_CHARS], link.problem)
    else:
        wanted.n_without += 1


def make_plan(
    workspace: Workspace, wanted: WantedLinks, *, retry_failed: bool, refresh: bool
) -> DownloadPlan:
    """Compare what is wanted with what is here. An image whose bytes have gone is wanted again."""
    table = read_links(workspace)
    columns = [table[name].to_pylist() for name in ("link", "sha256", "etag", "last_modified")]
    known = {link: rest for link, *rest in zip(*columns, strict=True)}
    there = stored_digests(workspace)
    jobs: list[DownloadTask] = []
    n_stored = n_failed = 0
    for url in wanted.urls:
        sha256, etag, last_modified = known.get(url, (None, None, None))
        if sha256 is not None and sha256 in there:
            n_stored += 1
            if refresh:
                jobs.append(DownloadTask(url, url, etag, last_modified, keep=True))
        elif sha256 is None and url in known and not retry_failed:
            n_failed += 1
        else:
            jobs.append(DownloadTask(url, url))
    return DownloadPlan(jobs, n_stored, n_failed)


def unusable_records(workspace: Workspace, wanted: WantedLinks) -> Iterator[LinkRecord]:
    """Rows of links.parquet for cells that hold no usable link, where they are not there yet."""
    if wanted.unusable:
        known = set(read_links(workspace)["link"].to_pylist())
        for cell, reason in wanted.unusable.items():
            if cell not in known:
                yield LinkRecord(cell, None, reason)
