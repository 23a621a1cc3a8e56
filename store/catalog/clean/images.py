"""Images that look alike: a perceptual hash of each, remembered by content, compared by Hamming distance.

The hash of the shape is the usual one: grey, 32 x 32, the 16 x 16 lowest frequencies of the cosine transform, a bit for
each that is above their median. Shops show one article in many colours by one image recoloured, which grey can't tell
apart: so the mean Y, Cb and Cr of 8 x 8 fields are kept beside it, and must agree as well. A JPEG is decoded no finer
than that needs.
Source: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from tqdm import tqdm

from store.catalog.images.blobs import read_blob
from store.catalog.images.open import UndecodableError, flattened, open_image, quiet_pillow, room_for
from store.errors import CatalogError, CorruptFileError, StoreError, WorkspaceError
from store.schema import PERCEPTUAL_BYTES, PERCEPTUAL_HASHES
from store.workspace import Workspace

HASHES_FILE = "images/hashes.parquet"
HASHES_VERSION = 2  # raised when the same bytes yield another hash: those remembered are then computed again
HASHES_LOCK = "images/.hashes.lock"
SIDE, FREQUENCIES = 32, 16
SHAPE_BYTES = FREQUENCIES * FREQUENCIES // 8
FIELDS = 8  # a side, whose mean colours are kept
NEAR_BITS = 16  # of 256: images that differ in so many or fewer look alike
NEAR_LEVELS = 4  # of 256: by which no field's colour may differ
UNREAD = "unread: "  # the beginning of reasons that do not depend on the image
LEAST_CONTRAST = 4.0  # standard deviation in grey levels below which an image shows nothing
LEAST_EACH = 1_000  # images: a process for fewer takes longer to start than it saves
_BATCH = 512
Hashed = tuple[str, bytes | None, str | None]  # digest, hash, why there is none


def alike_pairs(workspace: Workspace, digests: Sequence[str], processes: int = 2) -> np.ndarray:
    """Pairs of images that look alike, positions in `digests`, shape (n_pairs, 2).

    An image that can't be decoded, or shows nothing, is like no other.
    """
    known = perceptual_hashes(workspace, digests, processes)
    at = np.array([i for i, digest in enumerate(digests) if known.get(digest) is not None], np.int64)
    if len(at) < 2:
        return np.empty((0, 2), np.int64)
    hashes = np.frombuffer(b"".join(known[digests[i]] or b"" for i in at.tolist()), np.uint8)
    both = hashes.reshape(-1, PERCEPTUAL_BYTES)
    pairs = close_pairs(both[:, :SHAPE_BYTES], NEAR_BITS)
    color = both[:, SHAPE_BYTES:].astype(np.int16)
    apart = np.abs(color[pairs[:, 0]] - color[pairs[:, 1]]).max(axis=1, initial=0)
    return at[pairs[apart <= NEAR_LEVELS]]


def close_pairs(hashes: np.ndarray, most_bits: int) -> np.ndarray:
    """Every pair within a Hamming distance.

    Args:
        hashes: uint8, shape (n_hashes, n_bytes).

    Returns:
        Positions, the lower first, shape (n_pairs, 2).
    """
    import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(hashes))
    parts = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), 4096):
        limits, _, found = index.range_search(
            hashes[start : start + 4096], most_bits + 1
        )  # faiss returns distances below the limit
        counts = np.diff(limits.astype(np.int64)).astype(np.int64)
        left = start + np.repeat(np.arange(len(counts)), counts)
        parts.append(np.stack([left, found], axis=1)[left < found])
    return np.concatenate(parts)


def perceptual_hashes(
    workspace: Workspace,
    digests: Sequence[str],
    processes: int = 2,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, bytes | None]:
    """The hash of each image, None where there is none; computed once for each content and remembered."""
    table = _remembered(workspace)
    known = dict(zip(table["sha256"].to_pylist(), table["hash"].to_pylist(), strict=True))
    missing = [digest for digest in dict.fromkeys(digests) if digest not in known]
    if missing:
        fresh = hashes_in_processes(workspace, missing, processes if workspace.is_local else 1)
        known |= {digest: value for digest, value, _ in fresh}
        unread = [reason for _, _, reason in fresh if reason is not None and reason.startswith(UNREAD)]
        if unread:
            log(f"{len(unread)} images count as none: {unread[0].removeprefix(UNREAD)}")
        read = [one for one in fresh if not (one[2] or "").startswith(UNREAD)]
        _remember(
            workspace,
            pa.Table.from_pylist(
                [dict(zip(PERCEPTUAL_HASHES.names, one, strict=True)) for one in read], PERCEPTUAL_HASHES
            ),
        )
    return {digest: known[digest] for digest in digests}


def _remembered(workspace: Workspace) -> pa.Table:
    try:
        if workspace.exists(HASHES_FILE) and workspace.read_metadata(HASHES_FILE) == {
            "version": HASHES_VERSION
        }:
            return workspace.read_table(HASHES_FILE).cast(PERCEPTUAL_HASHES)
    except (CorruptFileError, pa.ArrowInvalid, ValueError):
        pass  # all of it is computed again
    return PERCEPTUAL_HASHES.empty_table()


def _remember(workspace: Workspace, fresh: pa.Table) -> None:
    with workspace.lock(HASHES_LOCK):
        old = _remembered(workspace)
        kept = old.filter(pc.invert(pc.is_in(old["sha256"], value_set=fresh["sha256"].combine_chunks())))
        merged = pa.concat_tables([kept, fresh]).combine_chunks()
        workspace.publish_table(HASHES_FILE, merged, metadata={"version": HASHES_VERSION})


def hashes_in_processes(workspace: Workspace, digests: list[str], processes: int) -> list[Hashed]:
    """Shape and colour of each image, in the order given; in processes, since threads would wait for each other.

    Raises:
        CatalogError: a process died of it.
    """
    n = max(1, min(processes, len(digests) // LEAST_EACH))
    batches = [digests[start : start + _BATCH] for start in range(0, len(digests), _BATCH)]
    found: list[Hashed] = []
    with (
        tqdm(total=len(digests), desc="image hashes", unit="image", disable=None) as bar,
        ExitStack() as stack,
    ):
        parts: Iterator[list[Hashed]]
        if n == 1:
            parts = map(partial(hashes_of, workspace.root), batches)
        else:
            with _own_imports_alone():
                context = multiprocessing.get_context("spawn")
                pool = stack.enter_context(ProcessPoolExecutor(n, context, initializer=_begin_worker))
                parts = pool.map(partial(_hash_quietly, workspace.root), batches)
        try:
            for part in parts:
                found += part
                bar.update(len(part))
        except BrokenProcessPool as error:
            raise CatalogError(
                f"a process that hashes images ended after {len(found)} of {len(digests)}, killed or out of memory: "
                "run 'shelfprice catalog clean --processes 1'"
            ) from error
    return found


@contextmanager
def _own_imports_alone() -> Iterator[None]:
    """Python processes started meanwhile do not import modules from the current folder, which others may control."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _begin_worker() -> None:
    """Ignore Ctrl-C, since the run ends its workers; end when the run was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _hash_quietly(root: str, digests: list[str]) -> list[Hashed]:
    with quiet_pillow():
        return hashes_of(root, digests)


def hashes_of(root: str, digests: list[str]) -> list[Hashed]:
    """Read, decode and hash each image, in the order given."""
    workspace = Workspace(root)
    pixels: list[np.ndarray] = []
    reasons: list[str | None] = []
    for digest in digests:
        try:
            pixels.append(shrunk(read_blob(workspace, digest)))
            reasons.append(None)
        except StoreError:
            raise
        except UndecodableError as error:
            reasons.append(error.reason[:200])
        except (WorkspaceError, OSError) as error:
            reasons.append(f"{UNREAD}{error}")
    hashes = iter(hash_images(np.stack(pixels)) if pixels else [])
    found: list[Hashed] = []
    for digest, reason in zip(digests, reasons, strict=True):
        value = None if reason else next(hashes)
        found.append((digest, value, reason or (None if value else "shows nothing")))
    return found


def shrunk(content: bytes) -> np.ndarray:
    """An image as Y, Cb, Cr, uint8, shape (SIDE, SIDE, 3).

    Raises:
        UndecodableError: it can't be decoded.
    """
    with open_image(content) as image:
        image.draft(
            "YCbCr", (2 * SIDE, 2 * SIDE)
        )  # JPEG: decoded at an eighth of its size where that suffices
        with room_for(image):
            image.load()
            flat = image if image.mode == "YCbCr" else flattened(image).convert("YCbCr")
            return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hash_images(pixels: np.ndarray) -> list[bytes | None]:
    """Shape and colour of each image, None for one that shows nothing; uint8, shape (n_images, SIDE, SIDE, 3)."""
    from scipy.fft import dctn

    grey, n = pixels[..., 0].astype(np.float32), len(pixels)
    low = dctn(grey, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES].reshape(n, -1)
    shape = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    width = SIDE // FIELDS
    fields = pixels.reshape(n, FIELDS, width, FIELDS, width, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    both = np.concatenate([shape, fields.reshape(n, 3 * FIELDS * FIELDS)], axis=1)
    shows = grey.std(axis=(1, 2)) >= LEAST_CONTRAST
    return [both[i].tobytes() if shows[i] else None for i in range(n)]
