"""Pictures that look alike: a perceptual hash of each, remembered by content, compared by Hamming distance.

The hash is the usual one: grey, 32 x 32, the 16 x 16 lowest frequencies of the cosine transform, a bit for each that
is above their median. A JPEG is decoded no finer than that needs.
Source: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from store.catalog.images import blob_path
from store.schema import PERCEPTUAL_BYTES, PERCEPTUAL_HASHES
from store.workspace import Workspace

HASHES_FILE = "images/hashes.parquet"
HASHES_LOCK = "images/.hashes.lock"
SIDE, FREQUENCIES = 32, 16
NEAR_BITS = 12  # of 256: pictures that differ in so many or fewer look alike
LEAST_CONTRAST = 4.0  # standard deviation in grey levels below which a picture shows nothing
MOST_PIXELS = 100_000_000
_BATCH = 512


def alike_pairs(workspace: Workspace, digests: Sequence[str], threads: int = 2) -> np.ndarray:
    """Pairs of pictures that look alike, positions in `digests`, shape (n_pairs, 2).

    A picture that can't be decoded, or shows nothing, is like no other.
    """
    known = perceptual_hashes(workspace, digests, threads)
    at = np.array([i for i, digest in enumerate(digests) if known.get(digest) is not None], np.int64)
    if len(at) < 2:
        return np.empty((0, 2), np.int64)
    hashes = np.frombuffer(b"".join(known[digests[i]] or b"" for i in at.tolist()), np.uint8)
    return at[close_pairs(hashes.reshape(-1, PERCEPTUAL_BYTES), NEAR_BITS)]


def close_pairs(hashes: np.ndarray, most_bits: int) -> np.ndarray:
    """Every pair within a Hamming distance.

    Args:
        hashes: uint8, shape (n_hashes, PERCEPTUAL_BYTES).

    Returns:
        Positions, the lower first, shape (n_pairs, 2).
    """
    import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(hashes))
    parts = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), 4096):
        limits, _, found = index.range_search(hashes[start : start + 4096], most_bits + 1)  # below, not at
        counts = np.diff(limits.astype(np.int64)).astype(np.int64)
        left = start + np.repeat(np.arange(len(counts)), counts)
        parts.append(np.stack([left, found], axis=1)[left < found])
    return np.concatenate(parts)


def perceptual_hashes(
    workspace: Workspace, digests: Sequence[str], threads: int = 2
) -> dict[str, bytes | None]:
    """The hash of each picture, None where there is none; computed once for each content and remembered."""
    table = (
        workspace.read_table(HASHES_FILE)
        if workspace.exists(HASHES_FILE)
        else PERCEPTUAL_HASHES.empty_table()
    )
    known = dict(zip(table["sha256"].to_pylist(), table["hash"].to_pylist(), strict=True))
    missing = [digest for digest in dict.fromkeys(digests) if digest not in known]
    if missing:
        fresh = list(_compute(workspace, missing, threads))
        known |= {digest: value for digest, value, _ in fresh}
        columns = [
            pa.array(list(c), f.type)
            for c, f in zip(zip(*fresh, strict=True), PERCEPTUAL_HASHES, strict=True)
        ]
        _remember(workspace, pa.table(columns, schema=PERCEPTUAL_HASHES))
    return {digest: known[digest] for digest in digests}


def _remember(workspace: Workspace, fresh: pa.Table) -> None:
    with workspace.lock(HASHES_LOCK):
        parts = [fresh]
        if workspace.exists(HASHES_FILE):
            old = workspace.read_table(HASHES_FILE)
            parts.insert(0, old.filter(pc.invert(pc.is_in(old["sha256"], fresh["sha256"]))))
        workspace.publish_table(HASHES_FILE, pa.concat_tables(parts).combine_chunks())


def _compute(
    workspace: Workspace, digests: list[str], threads: int
) -> Iterator[tuple[str, bytes | None, str | None]]:
    def shrink(digest: str) -> np.ndarray | str:
        try:
            return shrunk(workspace.read_bytes(blob_path(digest)))
        except Exception as error:  # noqa: BLE001 - decoders raise anything on broken bytes
            return f"{type(error).__name__}: {error}"[:200]

    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(digests), desc="picture hashes", unit="picture", disable=None) as bar,
    ):
        for start in range(0, len(digests), _BATCH):
            here = digests[start : start + _BATCH]
            small = list(pool.map(shrink, here, chunksize=16))
            seen = [i for i, one in enumerate(small) if isinstance(one, np.ndarray)]
            grey = np.stack([small[i] for i in seen]) if seen else np.empty((0, SIDE, SIDE), np.float32)
            hashed = dict(zip(seen, hash_greys(grey), strict=True))
            for i, digest in enumerate(here):
                value, reason = hashed.get(i), small[i] if isinstance(small[i], str) else None
                yield digest, value, str(reason) if reason else None if value else "shows nothing"
            bar.update(len(here))


def shrunk(content: bytes) -> np.ndarray:
    """A picture as grey levels, float32, shape (SIDE, SIDE)."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels are more than {MOST_PIXELS}")
        picture.draft("L", (SIDE, SIDE))  # JPEG: decoded at an eighth of its size where that suffices
        if "A" in picture.getbands() or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            grey = Image.alpha_composite(white, layer).convert("L")
        else:
            grey = picture.convert("L")
        return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def hash_greys(grey: np.ndarray) -> list[bytes | None]:
    """The hash of each picture, None for one that shows nothing; float32, shape (n_pictures, SIDE, SIDE)."""
    from scipy.fft import dctn

    low = dctn(grey, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES].reshape(len(grey), -1)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    shows = grey.std(axis=(1, 2)) >= LEAST_CONTRAST
    return [bits[i].tobytes() if shows[i] else None for i in range(len(grey))]
