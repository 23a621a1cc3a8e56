"""Training rows as a model keeps them: vectors for what compares with them, names, prices and small images to show."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.model.folder import TEST_VECTORS, TRAINING, VECTORS
from heads.features.rows import Rows
from store.catalog.images.blobs import lost_images, read_blob
from store.catalog.images.links import MADE_AGAIN, known_links, row_images
from store.errors import WorkspaceError
from store.schema import KEY_BYTES
from store.vectors.keys import arrow_keys, key_array, key_bytes
from store.vectors.matrix import gather
from store.vectors.sets import VectorSet, current_spec, iter_image_keys
from store.workspace import Workspace

IMAGES = "images"
MOST_IMAGES = 10_000  # that are kept: each is a file that loading checks
THUMBNAIL = 160  # pixels of the longer edge of a training row's image
KEPT_BYTES = 8192  # an image that is no larger is kept as it is


def write_vectors(work: Path, train: Rows) -> None:
    """Vectors of the training rows, float16, set by set."""
    arrays: dict[str, np.ndarray] = {}
    for at, matrix in enumerate(train.matrices):
        arrays |= {f"X{at}": np.asarray(matrix.X, np.float16), f"valid{at}": matrix.valid}
    np.savez(work / VECTORS, **arrays)  # type: ignore[arg-type]


def write_test_vectors(workspace: Workspace, work: Path, sets: Sequence[VectorSet]) -> None:
    """Vectors of the test rows' texts and images by content key, encoder by encoder: these rows are priced by the
    vectors that the submission was made of."""
    arrays: dict[str, np.ndarray] = {}
    for encoder in dict.fromkeys(one.encoder for one in sets):
        spec, parts = current_spec(workspace, encoder), []
        for one in (one for one in sets if one.encoder == encoder):
            for batches in iter_image_keys(workspace, one, "test"):
                parts += [key_array(keys) for _, keys in batches]
        keys = arrow_keys(key_bytes(np.unique(np.concatenate(parts))))
        X, found = gather(workspace, spec, keys, np.float16)
        own = np.frombuffer(b"".join(keys.to_pylist()), np.uint8).reshape(-1, KEY_BYTES)
        arrays |= {f"keys {encoder}": own[found], f"X {encoder}": np.asarray(X)[found]}
    np.savez(work / TEST_VECTORS, **arrays)  # type: ignore[arg-type]


def write_training(
    workspace: Workspace,
    work: Path,
    train: pa.Table,
    group: np.ndarray,
    images: bool,
    log: Callable[[str], None],
) -> None:
    """The table of training rows: `id`, `name`, `price`, `group`, `image` (path of a small JPEG, or null)."""
    names = [
        name or (text or "")[:120]
        for name, text in zip(train["name"].to_pylist(), train["text"].to_pylist(), strict=True)
    ]
    table = pa.table(
        {
            "id": train["sample_id"].combine_chunks(),
            "name": pa.array(names, pa.string()),
            "price": train["price"].combine_chunks(),
            "group": pa.array(group),
            "image": pa.array(
                _thumbnails(workspace, work, train, log) if images else [None] * len(names), pa.string()
            ),
        }
    )
    with pa.OSFile(str(work / TRAINING), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _thumbnails(
    workspace: Workspace, work: Path, train: pa.Table, log: Callable[[str], None]
) -> list[str | None]:
    """Small copies of the rows' images as files; the path of each row's."""
    from concurrent.futures import ThreadPoolExecutor

    from store.catalog.images.open import quiet_pillow

    digests = row_images(train["image"], known_links(workspace)).to_pylist()
    wanted = list(dict.fromkeys(one for one in digests if one is not None))[:MOST_IMAGES]
    (work / IMAGES).mkdir()
    if gone := lost_images(workspace).intersection(wanted):
        log(
            f"note: {len(gone)} of {len(wanted)} images of the training rows are gone, and near products are shown "
            f"without them: {MADE_AGAIN}, then pack again"
        )

    def make(sha256: str) -> tuple[str, str | None]:
        content, name = _thumbnail(workspace, sha256), f"{IMAGES}/{sha256[:20]}.jpg"
        if content is None:
            return sha256, None
        (work / name).write_bytes(content)
        return sha256, name

    with quiet_pillow(), ThreadPoolExecutor() as pool:
        made = dict(pool.map(make, wanted))
    return [None if one is None else made.get(one) for one in digests]


def _thumbnail(workspace: Workspace, sha256: str) -> bytes | None:
    """A small JPEG of an image; None where it can't be read."""
    from PIL import ImageOps

    from store.catalog.images.open import WHITE, UndecodableError, flattened, open_image, room_for

    try:
        content = read_blob(workspace, sha256)
        with open_image(content) as image:
            if len(content) <= KEPT_BYTES and image.format == "JPEG":
                return content
            image.draft("RGB", (THUMBNAIL, THUMBNAIL))
            with room_for(image):
                image.load()
                small: Any = ImageOps.exif_transpose(flattened(image, WHITE)).convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=80)
            return out.getvalue()
    except (UndecodableError, WorkspaceError, OSError):
        return None
