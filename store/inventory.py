"""What a workspace contains of this package's files: catalogue, images, folds, decisions about doubtful rows."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pyarrow.compute as pc

from store.catalog.download.record import IMAGES_LOCK, JOURNAL_FOLDER, read_journal
from store.catalog.images.blobs import blob_path, lost_images, stored_digests
from store.catalog.images.links import MADE_AGAIN, read_links
from store.catalog.ingest.publish import HOLDOUT_FILE, REJECTED_FILE, lost_holdout
from store.catalog.read import (
    CATALOG_LOCK,
    SPLITS,
    catalog_digest,
    columns_of_images,
    n_with_several,
    split_path,
)
from store.cleaning import decided_digest, why_decide_again
from store.config import Config
from store.errors import ShelfpriceError
from store.folds.assign import FOLDS_FILE, read_folds, read_record, wanted_record, why_stale
from store.rooms import YOUNG_SECONDS, Leftover, Room, Section, size_text
from store.workspace import Workspace


@dataclass(frozen=True)
class SplitHolding:
    """Rows of one ingested split."""

    rows: int
    with_link: int  # rows that name an image, got or not
    with_image: int


@dataclass(frozen=True)
class CatalogHolding:
    """The ingested catalogue."""

    digest: str
    splits: dict[str, SplitHolding]
    rejected: dict[str, int]  # reason -> rows
    n_with_several: int = 0  # rows with several images
    lost_holdout: int = 0  # prices of test rows whose file is gone


@dataclass(frozen=True)
class ImageHolding:
    """The images that links.parquet knows."""

    stored: int
    failed: int
    n_bytes: int
    lost: int = 0  # of `stored`, whose files are gone; not looked for on an object store


@dataclass(frozen=True)
class FoldsHolding:
    """The folds on disk."""

    hash: str
    k: int
    rows: int
    groups: int
    grouping: str | None  # None: brought along by the user
    seed: int | None
    stale: str | None  # why they must be decided again
    is_refused: bool  # brought along for other rows: only 'catalog folds' replaces them


@dataclass(frozen=True)
class CleaningHolding:
    """Decisions about doubtful rows that training follows."""

    policies: dict[str, str]  # finding -> policy, of shelfprice.toml, without those that are 'keep'
    digest: str | None  # of the decisions on disk; None: none of them changes a fit
    stale: str | None  # why they must be taken again


def catalog_holding(workspace: Workspace) -> CatalogHolding | None:
    """None where nothing was ingested."""
    splits, n_several = {}, 0
    for split in SPLITS:
        if workspace.exists(split_path(split)):
            links = workspace.read_table(
                split_path(split), ["image_link", *columns_of_images(workspace, split)]
            )
            n_several += n_with_several(links)
            n_rows = len(links)
            with_link = pc.sum(pc.or_(links["image_link"].is_valid(), links["image"].is_valid())).as_py() or 0
            splits[split] = SplitHolding(n_rows, with_link, n_rows - links["image"].null_count)
    if not splits:
        return None
    rejected: dict[str, int] = {}
    if workspace.exists(REJECTED_FILE):
        for reason in workspace.read_table(REJECTED_FILE, ["reason"])["reason"].to_pylist():
            kind = reason.split(":")[0]  # what follows is the offending value
            rejected[kind] = rejected.get(kind, 0) + 1
    return CatalogHolding(catalog_digest(workspace), splits, rejected, n_several, lost_holdout(workspace))


def image_holding(workspace: Workspace) -> ImageHolding | None:
    """None where no image was looked for."""
    links = read_links(workspace)
    if not len(links):
        return None
    stored = links["sha256"].is_valid()
    once = links.filter(stored).group_by("sha256").aggregate([("n_bytes", "max")])
    return ImageHolding(
        stored=len(once),
        failed=len(links) - (pc.sum(stored).as_py() or 0),
        n_bytes=int(pc.sum(once["n_bytes_max"]).as_py() or 0),
        lost=len(lost_images(workspace)) if workspace.is_local else 0,
    )


def folds_holding(workspace: Workspace, config: Config) -> FoldsHolding | None:
    """None where none were decided."""
    if not workspace.exists(FOLDS_FILE):
        return None
    folds, record = read_folds(workspace), read_record(workspace)
    stale, is_refused = None, False
    if not workspace.exists(split_path("train")):
        stale = "there is no train catalogue"
    elif record is not None:
        stale = why_stale(record, wanted_record(workspace, config))
    else:
        try:
            folds.aligned(
                workspace.read_table(split_path("train"), ["sample_id"])["sample_id"].combine_chunks()
            )
        except ShelfpriceError:
            stale, is_refused = "it was brought along and is of other rows than the catalogue", True
    return FoldsHolding(
        hash=folds.hash,
        k=folds.k,
        rows=len(folds.fold),
        groups=len(pc.unique(folds.group)),
        grouping=record.grouping if record else None,
        seed=record.seed if record else None,
        stale=stale,
        is_refused=is_refused,
    )


def cleaning_holding(workspace: Workspace, config: Config, folds: FoldsHolding | None) -> CleaningHolding:
    """What 'shelfprice catalog clean' decided, if it was asked to decide anything."""
    policies = {name: policy for name, policy in asdict(config.clean).items() if policy != "keep"}
    stale = why_decide_again(workspace, folds.hash if folds else "", config.clean)
    digest = decided_digest(workspace)
    if stale is None and digest is not None and folds is not None and folds.stale is not None:
        stale = f"folds will be decided again: {folds.stale}"
    return CleaningHolding(policies, digest, stale)


# ---- as `status` and `prune` ask for it ----------------------------------------------------------


def sections(workspace: Workspace, config: Config) -> Iterator[Section]:
    """The catalogue with its images, the folds, the decisions about doubtful rows."""
    catalog, images = catalog_holding(workspace), image_holding(workspace)
    step = None
    if catalog is None or "train" not in catalog.splits:
        missing = "there is no catalogue" if catalog is None else "there is no train catalogue"
        step = "shelfprice catalog ingest --train FILE --test FILE", missing
    elif catalog.lost_holdout:
        step = "shelfprice catalog ingest --train FILE --test FILE", f"{HOLDOUT_FILE} is gone"
    record = {"catalog": catalog, "images": images}
    yield Section(10, "catalogue", tuple(_catalog_lines(catalog, images)), record, step)
    folds = folds_holding(workspace, config)
    step = None
    if folds is not None and folds.is_refused:
        step = "shelfprice catalog folds", f"{FOLDS_FILE}: {folds.stale}"
    yield Section(30, "folds", (_folds_line(folds),), {"folds": folds}, step)
    cleaning = cleaning_holding(workspace, config, folds) if catalog else None
    step = None
    if cleaning is not None and cleaning.stale is not None:
        step = "shelfprice catalog clean", cleaning.stale
    yield Section(40, "cleaning", (_cleaning_line(cleaning),), {"cleaning": cleaning}, step)


def _catalog_lines(catalog: CatalogHolding | None, images: ImageHolding | None) -> Iterator[str]:
    if catalog is None:
        return
    for name, split in catalog.splits.items():
        to_get = split.with_link - split.with_image
        links = f", {to_get:,} with a link alone" if to_get else ""
        yield f"{name:<6}{split.rows:>9,} rows, {split.with_image:,} with an image{links}"
    if catalog.n_with_several:
        yield f"{catalog.n_with_several:,} rows with several images"
    if catalog.lost_holdout:
        yield f"{catalog.lost_holdout:,} hold-out prices are gone with {HOLDOUT_FILE}"
    if catalog.rejected:
        counted = sorted(catalog.rejected.items(), key=lambda one: -one[1])
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in counted)
        yield f"{sum(catalog.rejected.values()):,} rows rejected: {reasons}"
    if images is not None:
        failed = f", {images.failed:,} failed" if images.failed else ""
        yield f"{images.stored:,} distinct images, {size_text(images.n_bytes)}{failed}"
        if images.lost:
            yield f"{images.lost:,} of them are gone from images/blobs: {MADE_AGAIN}"


def _folds_line(folds: FoldsHolding | None) -> str:
    if folds is None:
        return "none: the next 'heads run' decides them"
    groups = "each row on its own" if folds.grouping == "none" else f"{folds.grouping} groups"
    how = f"{groups}, seed {folds.seed}" if folds.grouping else "brought along"
    stale = f"; stale: {folds.stale}" if folds.stale else ""
    return f"{folds.k} folds of {folds.rows:,} rows in {folds.groups:,} groups, {how}{stale}"


def _cleaning_line(cleaning: CleaningHolding | None) -> str:
    if cleaning is None:
        return "none"
    policies = ", ".join(f"{finding}={policy}" for finding, policy in cleaning.policies.items())
    if cleaning.stale is not None:
        return f"{policies or 'keep'}; stale: {cleaning.stale}"
    if not policies:
        return "none: training takes every row as it is"
    return f"{policies}; {'up to date' if cleaning.digest else 'up to date, no row is concerned'}"


def leftovers(workspace: Workspace, config: Config) -> Iterator[Leftover]:
    """What killed writers left half-written anywhere, and images that no link stands for."""
    for path in workspace.half_written(YOUNG_SECONDS):
        yield Leftover(path, workspace.size(path), "half-written by a killed run")
    linked = set(read_links(workspace)["sha256"].to_pylist())
    for name in workspace.names(JOURNAL_FOLDER, suffix=".jsonl"):
        content = workspace.read_bytes(f"{JOURNAL_FOLDER}/{name}")
        linked |= {record["sha256"] for record in read_journal(content)}
    for path in map(blob_path, sorted(stored_digests(workspace) - linked)):
        if time.time() - workspace.modified(path) > YOUNG_SECONDS:
            locks = (CATALOG_LOCK, IMAGES_LOCK)
            yield Leftover(path, workspace.size(path), "an image that no link names", locks)


def disk(workspace: Workspace) -> dict[str, int]:
    """Bytes of the catalogue and of images; on an object store of those that links.parquet names."""
    images = image_holding(workspace)
    n_bytes = images.n_bytes if images else 0
    return {
        "catalogue": workspace.folder_bytes("catalog"),
        "images": workspace.folder_bytes("images") if workspace.is_local else n_bytes,
    }


room = Room(sections, leftovers, disk)
