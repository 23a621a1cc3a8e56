"""Vector sets: what a head asks for by name, `encoder` for images or `encoder@composition` for text.

An encoder that takes both has `encoder@joint`, one vector of a row's image and text (`@joint-name` of its name),
`encoder@image`, and `encoder@composition` of the text alone. All sets of one encoder share a cache folder, since the
row key is a digest of what enters the encoder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.images.links import known_links, row_images
from store.catalog.parse.compose import COMPOSITIONS, DEFAULT_COMPOSITION, compose, composition_columns
from store.catalog.read import columns_of_images, split_path
from store.errors import ConfigError, MissingVectorsError
from store.vectors.content import image_keys, joint_keys, text_keys
from store.vectors.spec import EncoderSpec, Modality, digest, slug
from store.workspace import Workspace

IMAGE, JOINT = "image", "joint"
TAKES_BOTH = (JOINT, *(f"{JOINT}-{one}" for one in COMPOSITIONS), IMAGE, *COMPOSITIONS)


@dataclass(frozen=True)
class VectorSet:
    """One set of vectors over the rows of a catalogue."""

    encoder: str
    composition: str | None = None  # None: images, by an encoder of images

    @property
    def has_image(self) -> bool:
        """Whether a row's image enters."""
        return self.composition in (None, IMAGE) or str(self.composition).startswith(JOINT)

    @property
    def text(self) -> str | None:
        """The composition of the text that enters; None: no text does."""
        if self.composition == JOINT:
            return DEFAULT_COMPOSITION
        return None if self.composition in (None, IMAGE) else str(self.composition).removeprefix(f"{JOINT}-")

    def __str__(self) -> str:
        return f"{self.encoder}@{self.composition}" if self.composition else self.encoder

    @classmethod
    def parse(cls, name: str, modality: Modality) -> "VectorSet":
        """From `encoder` or `encoder@composition`.

        Args:
            modality: of the encoder.

        Raises:
            ConfigError: the composition is unknown, or given for images.
        """
        encoder, at, composition = name.partition("@")
        if modality == "image":
            if at:
                raise ConfigError(f"{encoder} embeds images and takes no composition: write {encoder!r}")
            return cls(encoder)
        known = COMPOSITIONS if modality == "text" else TAKES_BOTH
        composition = composition or (DEFAULT_COMPOSITION if modality == "text" else JOINT)
        if composition not in known:
            raise ConfigError(f"{name}: unknown text composition {composition!r}, one of {', '.join(known)}")
        return cls(encoder, composition)


def columns_of(vector_set: VectorSet) -> list[str]:
    """The catalogue columns that decide a row's key."""
    image = ["image"] if vector_set.has_image else []
    return image + (list(composition_columns(vector_set.text)) if vector_set.text else [])


def row_keys(
    vector_set: VectorSet, rows: pa.Table | pa.RecordBatch, known: Mapping[str, str | None]
) -> pa.Array:
    """Content key of each catalogue row, null where the row has no such content.

    Args:
        rows: catalogue rows holding at least `columns_of(vector_set)`.
        known: image reference -> hex SHA-256, from `known_links`; unused for text.

    Raises:
        CorruptFileError: a row names an image that is not known.
    """
    images = row_images(rows.column("image"), known) if vector_set.has_image else None
    texts = compose(vector_set.text, rows) if vector_set.text else None
    if images is not None and texts is not None:
        return joint_keys(images, texts)
    return image_keys(images) if images is not None else text_keys(texts)


def iter_image_keys(
    workspace: Workspace, vector_set: VectorSet, split: str, rows: int = 8192
) -> Iterator[list[tuple[pa.RecordBatch, pa.Array]]]:
    """Stream catalogue batches, each once for every image that its rows have; memory holds one and the image digests.

    Yields:
        (batch, keys) by the rows' first image, then by their second, and so on; column `image` of a batch is the image
        that the keys are of, null in both where a row has no further one.
    """
    known = known_links(workspace) if vector_set.has_image else {}
    columns = ["sample_id", *columns_of(vector_set)]
    further = columns_of_images(workspace, split)[1:] if vector_set.has_image else []
    for batch in workspace.batches(split_path(split), [*columns, *further], rows):
        plain = batch.select(columns)
        parts = [(plain, row_keys(vector_set, plain, known))]
        lists: list[list[str] | None] = batch.column(further[0]).to_pylist() if further else []
        for at in range(max((len(row) for row in lists if row), default=0)):
            images = pa.array([row[at] if row and at < len(row) else None for row in lists], pa.string())
            one = plain.set_column(columns.index("image"), "image", images)
            keys = row_keys(vector_set, one, known)
            parts.append((one, pc.if_else(images.is_valid(), keys, pa.scalar(None, keys.type))))
        yield parts


# ---- which fingerprint a name means --------------------------------------------------------------

VECTORS = "vectors"


TUNED = "finetuned:"  # what names of fine-tuned encoders begin with


def publish_spec(workspace: Workspace, spec: EncoderSpec) -> None:
    """Record `spec` in its folder alone: what its name stands for stays as it is."""
    if not workspace.is_sound(f"{spec.folder}/encoder.json"):
        workspace.publish_json(f"{spec.folder}/encoder.json", spec.to_json())


def publish_current(workspace: Workspace, spec: EncoderSpec) -> None:
    """Record `spec` as the one that its name stands for, in its folder and under `vectors/current/`.

    The spec of one fold is recorded in its folder alone: a name stands for all folds together, never for one, whose
    vectors are in-sample for every other.
    """
    publish_spec(workspace, spec)
    if spec.fold is not None:
        return
    record, described = current_file(workspace, spec.name), spec.to_json()
    if not workspace.is_sound(record) or workspace.read_json(record) != described:
        workspace.publish_json(record, described)


def current_spec(workspace: Workspace, encoder: str) -> EncoderSpec:
    """The spec that the last `embed run` used for an encoder, or `embed finetune` made (all folds in one).

    Raises:
        MissingVectorsError: no run has embedded anything with it.
    """
    record = current_file(workspace, encoder)
    if not workspace.exists(record):
        raise MissingVectorsError(f"no vectors of {encoder!r} in {workspace.root}: {how_to_embed(encoder)}")
    return EncoderSpec.from_json(workspace.read_json(record))


def how_to_embed(vector_set: VectorSet | str) -> str:
    """The next step for who lacks these vectors."""
    if str(vector_set).startswith(TUNED):
        return "run 'shelfprice embed finetune' with the encoders it was made of, and let every fold finish"
    return f"run 'shelfprice embed run -e {vector_set}'"


def current_encoders(workspace: Workspace) -> list[str]:
    """Names of every encoder that has embedded something here, sorted."""
    records = workspace.names("vectors/current", suffix=".json")
    return sorted(workspace.read_json(f"vectors/current/{record}")["name"] for record in records)


def current_file(workspace: Workspace, encoder: str) -> str:
    """The record of what an encoder's name stands for.

    Addresses may differ in characters alone that a file's name can't hold: the second gets a digest.
    """
    record = f"vectors/current/{slug(encoder)}.json"
    if not workspace.is_sound(record) or workspace.read_json(record).get("name") == encoder:
        return record
    return f"vectors/current/{slug(encoder)}-{digest(encoder, characters=8)}.json"
