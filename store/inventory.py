"""What a workspace holds: catalogue, images, vectors, folds. Reads contracts alone, no vector and no price."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from store.catalog.images.links import read_links
from store.catalog.ingest.publish import REJECTED_FILE
from store.catalog.read import SPLITS, catalog_digest, split_path
from store.config import Config
from store.errors import MissingVectorsError, ShelfpriceError
from store.folds.assign import FOLDS_FILE, read_folds, read_record, wanted_record, why_stale
from store.vectors.folded import embedded_keys, fold_specs
from store.vectors.keys import among
from store.vectors.sets import VectorSet, current_encoders, current_spec, iter_row_keys
from store.vectors.shard import shard_names
from store.vectors.spec import EncoderSpec
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


@dataclass(frozen=True)
class ImageHolding:
    """The images that links.parquet knows."""

    stored: int
    failed: int
    n_bytes: int


@dataclass(frozen=True)
class SetCoverage:
    """Which rows of a split have a vector of one set."""

    rows: int
    have: int
    failed: int
    missing: int  # rows with content that was never embedded

    @property
    def without_content(self) -> int:
        return self.rows - self.have - self.failed - self.missing


@dataclass(frozen=True)
class VectorHolding:
    """One vector set that the configuration or the workspace knows."""

    name: str
    is_configured: bool
    fingerprint: str | None  # None: never embedded
    dim: int | None
    n_shards: int
    n_bytes: int
    coverage: dict[str, SetCoverage]  # split -> rows
    problem: str | None  # what can't be read, in words

    @property
    def missing(self) -> int:
        return sum(split.missing for split in self.coverage.values())


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


def catalog_holding(workspace: Workspace) -> CatalogHolding | None:
    """None where nothing was ingested."""
    splits = {}
    for split in SPLITS:
        if workspace.exists(split_path(split)):
            links = workspace.read_table(split_path(split), ["image_link", "image"])
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
    return CatalogHolding(catalog_digest(workspace), splits, rejected)


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
    )


def vector_holdings(
    workspace: Workspace, config: Config, catalog: CatalogHolding | None
) -> list[VectorHolding]:
    """Every configured vector set in its order, then what else was embedded."""
    of_heads = [name for params in config.heads.params.values() for name in params.get("vectors", ())]
    configured = list(dict.fromkeys([*config.embed.vectors, *config.heads.vectors, *of_heads]))
    encoders = {name.partition("@")[0] for name in configured}
    others = [name for name in current_encoders(workspace) if name not in encoders]
    reader = _CoverageReader(workspace, catalog)
    return [reader.holding(name, name in configured) for name in [*configured, *others]]


class _CoverageReader:
    """Reads the keys of each encoder once, however many sets share them."""

    def __init__(self, workspace: Workspace, catalog: CatalogHolding | None) -> None:
        self._workspace, self._catalog = workspace, catalog
        self._keys: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def holding(self, name: str, is_configured: bool) -> VectorHolding:
        splits = self._catalog.splits if self._catalog is not None else {}
        try:
            spec = current_spec(self._workspace, name.partition("@")[0])
        except MissingVectorsError:
            is_text = "@" in name  # without a spec nothing else tells
            nothing_yet = {
                split: SetCoverage(n.rows, 0, 0, n.rows if is_text else n.with_image)
                for split, n in splits.items()
            }
            return VectorHolding(name, is_configured, None, None, 0, 0, nothing_yet, None)
        coverage, problem = {}, None
        try:
            vector_set = VectorSet.parse(name, is_text=spec.modality == "text")
            coverage = {split: self._coverage(spec, vector_set, split) for split in splits}
        except ShelfpriceError as error:
            problem = str(error)
        folders = [one.folder for one in fold_specs(spec).values()] or [spec.folder]
        return VectorHolding(
            name=str(vector_set) if problem is None else name,
            is_configured=is_configured,
            fingerprint=spec.fingerprint,
            dim=spec.dim,
            n_shards=sum(len(shard_names(self._workspace, folder)) for folder in folders),
            n_bytes=sum(self._workspace.folder_bytes(folder) for folder in folders),
            coverage=coverage,
            problem=problem,
        )

    def _coverage(self, spec: EncoderSpec, vector_set: VectorSet, split: str) -> SetCoverage:
        if spec.folder not in self._keys:
            self._keys[spec.folder] = embedded_keys(self._workspace, spec)
        have, failed = self._keys[spec.folder]
        n_rows = n_have = n_failed = n_missing = 0
        for _, keys in iter_row_keys(self._workspace, vector_set, split):
            found, filled = among(have, keys), len(keys) - keys.null_count
            bad = among(failed, keys) & ~found
            n_rows += len(keys)
            n_have += int(found.sum())
            n_failed += int(bad.sum())
            n_missing += filled - int(found.sum()) - int(bad.sum())
        return SetCoverage(n_rows, n_have, n_failed, n_missing)


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
