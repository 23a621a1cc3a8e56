"""What failed, by row and file: images that could not be fetched or read, and inputs that gave no vector."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.catalog.images.links import FILE_PREFIX, is_given, read_links
from store.catalog.read import columns_of_images, image_references, present_splits, read_split
from store.config import Config
from store.errors import MissingVectorsError
from store.vectors.folded import fold_specs
from store.vectors.sets import VectorSet, current_encoders, current_spec, iter_image_keys
from store.vectors.shard import read_failures
from store.workspace import Workspace


@dataclass(frozen=True)
class FailedRow:
    """One row without what it should have."""

    what: str  # "image", or a vector set
    split: str
    sample_id: int | str
    file: str | None  # file name or link of its image; None: it is about the text
    stage: str  # "fetch", "read", "decode", "encode"
    reason: str


def failed_rows(workspace: Workspace, config: Config) -> Iterator[FailedRow]:
    """Every row whose image could not be fetched or read, then those of each vector set, in catalogue order.

    Raises:
        CatalogError: nothing was ingested.
    """
    splits = present_splits(workspace)
    links = read_links(workspace)
    links = links.filter(links["reason"].is_valid())
    reasons = dict(zip(links["link"].to_pylist(), links["reason"].to_pylist(), strict=True))
    for split in splits if reasons else ():
        rows = read_split(workspace, split, ["sample_id", *columns_of_images(workspace, split)])
        for sample_id, images in zip(rows["sample_id"].to_pylist(), image_references(rows), strict=True):
            for image in images:
                if image in reasons:
                    stage = "read" if is_given(image) else "fetch"
                    yield FailedRow("image", split, sample_id, _file(image), stage, reasons[image])
    for vector_set in _vector_sets(workspace, config):
        yield from _without_vector(workspace, vector_set, splits)


def _vector_sets(workspace: Workspace, config: Config) -> list[VectorSet]:
    """Every set of the configuration, and the default one of each other encoder that has embedded something."""
    named = dict.fromkeys([*config.embed.vectors, *config.heads.vectors])
    encoders = {name.partition("@")[0] for name in named}
    named.update(dict.fromkeys(name for name in current_encoders(workspace) if name not in encoders))
    found = []
    for name in named:
        try:
            spec = current_spec(workspace, name.partition("@")[0])
        except MissingVectorsError:
            continue
        found.append(VectorSet.parse(name, spec.modality))
    return found


def _without_vector(workspace: Workspace, vector_set: VectorSet, splits: list[str]) -> Iterator[FailedRow]:
    spec = current_spec(workspace, vector_set.encoder)
    failed: dict[bytes, tuple[str, str]] = {}
    for one in fold_specs(spec).values() or [spec]:
        for row in read_failures(workspace, one.folder).to_pylist():
            failed[row["key"]] = row["stage"], row["reason"]
    for split in splits if failed else ():
        of_images = (part for parts in iter_image_keys(workspace, vector_set, split) for part in parts)
        for batch, keys in of_images:
            for at, key in enumerate(keys.to_pylist()):
                if key in failed:
                    is_image = vector_set.composition is None
                    file = _file(batch.column("image")[at].as_py()) if is_image else None
                    yield FailedRow(
                        str(vector_set), split, batch.column("sample_id")[at].as_py(), file, *failed[key]
                    )


def failure_lines(rows: Sequence[FailedRow]) -> Iterator[str]:
    """One line a row that failed; a row is there once for each thing that it lacks."""
    for row in rows:
        file = f" ({row.file})" if row.file is not None else ""
        line = f"{row.what}: {row.split} {row.sample_id}{file}: {row.stage}: {row.reason}"
        yield line.replace("\n", "\\n")
    yield f"{len(rows):,} failure{'s' * (len(rows) > 1)}" if rows else "no failures"


def _file(reference: str) -> str:
    return reference.removeprefix(FILE_PREFIX)
