"""Near-duplicate texts: candidates by MinHash and banding, each proved by its true Jaccard similarity."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

SHINGLE_WORDS = 3
# A pair of Jaccard 0.8 meets in at least one band of 6 with probability 1 - (1 - 0.8**6)**21 = 0.998.
BANDS, BAND_HASHES = 21, 6
WINDOW = 8  # texts of one bucket are compared with so many next to them: links join through neighbours
_PAIRS_AT_ONCE = 50_000
_SEED = 1


def shingle_matrix(texts: pa.Array | pa.ChunkedArray) -> csr_array:
    """Which text holds which run of `SHINGLE_WORDS` words, shape (n_texts, n_shingles), 1 or absent.

    Words are runs of letters and digits in lower case; a text of fewer words is one shingle.
    """
    row, ids, dictionary = word_ids(texts)
    vocabulary, ids = len(dictionary), ids.astype(np.uint64)
    length = np.bincount(row, minlength=len(texts))
    start = np.concatenate([[0], np.cumsum(length)])[:-1]
    place = np.arange(len(ids)) - start[row]
    last = np.maximum(length[row] - SHINGLE_WORDS, 0)
    begins = np.flatnonzero(place <= last)
    shingle = np.zeros(len(begins), np.uint64)
    for step in range(SHINGLE_WORDS):
        inside = begins + step < (start + length)[row[begins]]
        word = np.where(inside, ids[np.minimum(begins + step, len(ids) - 1)] + np.uint64(1), np.uint64(0))
        shingle = shingle * np.uint64(vocabulary + 1) + word  # wraps for huge vocabularies: then it is a hash
    _, column = np.unique(shingle, return_inverse=True)
    shape = (len(texts), int(column.max(initial=-1)) + 1)
    matrix = coo_array((np.ones(len(begins), np.int32), (row[begins], column)), shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class NearIndex:
    """Which text has which shingle, to hold new texts against: plain arrays, whatever words the new texts have.

    A shingle is 32 bits of a hash: a collision changes a similarity by one shingle in hundreds.
    """

    shingles: np.ndarray  # (n,) uint32, sorted; one for each text that has it
    texts: np.ndarray  # (n,) of the smallest unsigned type, as the shingles
    sizes: np.ndarray  # (n_texts,) int32: distinct shingles of each text

    @classmethod
    def of(cls, texts: pa.Array | pa.ChunkedArray) -> "NearIndex":
        """Of distinct texts, shape (n_texts,)."""
        row, shingle = hashed_shingles(texts)
        order, sizes = np.argsort(shingle, kind="stable"), np.bincount(row, minlength=len(texts))
        smallest = np.min_scalar_type(len(texts))
        return cls(shingle[order], row[order].astype(smallest), sizes.astype(np.int32))

    def has_near(self, texts: pa.Array | pa.ChunkedArray, threshold: float) -> np.ndarray:
        """Which new texts have at least this Jaccard similarity with one of the index, shape (n_new,) bool."""
        row, shingle = hashed_shingles(texts)
        starts = np.searchsorted(row, np.arange(len(texts) + 1))
        first = np.searchsorted(self.shingles, shingle, "left")
        count = np.searchsorted(self.shingles, shingle, "right") - first
        found = np.zeros(len(texts), bool)
        for at in range(len(texts)):
            own = slice(starts[at], starts[at + 1])
            size = own.stop - own.start
            least = int(np.ceil(threshold * size - 1e-9))
            rarest = np.sort(count[own])[: size - least + 1]  # a near text has one of these
            if size == 0 or not rarest.any():
                continue
            pieces = [
                self.texts[a : a + n] for a, n in zip(first[own].tolist(), count[own].tolist(), strict=True)
            ]
            common = np.bincount(np.concatenate(pieces))
            near = np.flatnonzero(common >= least)  # the union is no smaller than the new text
            common = common[near]
            found[at] = bool((common >= threshold * (size + self.sizes[near] - common) - 1e-9).any())
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as `from_arrays` takes them."""
        steps = np.diff(self.shingles, prepend=np.uint32(0))  # small, which compresses
        return {"steps": steps, "texts": self.texts, "sizes": self.sizes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NearIndex":
        """What `arrays` gave."""
        return cls(np.cumsum(arrays["steps"], dtype=np.uint32), arrays["texts"], arrays["sizes"])


def hashed_shingles(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct shingles of each text, as `shingle_matrix` has them but by a hash that no other text decides.

    Returns:
        The text each is of, int64, and its hash, uint32, both of shape (n_shingles,); in order of the texts.
    """
    row, ids, dictionary = word_ids(texts)
    hashes = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in dictionary.to_pylist()]
    words = np.frombuffer(b"".join(hashes), np.uint64)[ids]
    length = np.bincount(row, minlength=len(texts))
    end = np.cumsum(length)[row]
    place = np.arange(len(ids)) - (end - length[row])
    begins = np.flatnonzero(place <= np.maximum(length[row] - SHINGLE_WORDS, 0))
    shingle = np.zeros(len(begins), np.uint64)
    for step in range(SHINGLE_WORDS):
        inside = begins + step < end[begins]
        word = np.where(inside, words[np.minimum(begins + step, len(ids) - 1)], np.uint64(0))
        shingle = (shingle ^ (shingle >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + word
    mixed = (shingle ^ (shingle >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    both = np.unique(row[begins].astype(np.uint64) << np.uint64(32) | mixed >> np.uint64(32))
    return (both >> np.uint64(32)).astype(np.int64), both.astype(np.uint32)


def word_ids(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Every word (a run of letters and digits, in lower case) of every text, in order.

    Returns:
        The text each is of, int64, shape (n_words,); which word it is, int64, shape (n_words,); the words.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    words = pc.split_pattern_regex(pc.utf8_lower(texts), pattern=r"[^\pL\pN]+")
    offsets = words.offsets.to_numpy().astype(np.int64)
    code = pc.dictionary_encode(words.flatten())
    ids = code.indices.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(texts)), np.diff(offsets))
    kept = ids != _code_of(code.dictionary, "")
    return row[kept], ids[kept], code.dictionary


def _code_of(dictionary: pa.Array, word: str) -> int:
    return int(pc.index(dictionary, word).as_py())


def signatures(shingles: csr_array) -> np.ndarray:
    """MinHash of each row, uint32, shape (n_texts, BANDS * BAND_HASHES)."""
    from datasketch import MinHash

    rows = (part.tolist() for part in np.split(shingles.indices, shingles.indptr[1:-1]))
    hashes = MinHash.generator(rows, num_perm=BANDS * BAND_HASHES, seed=_SEED, hashfunc=_as_is)
    return np.stack([one.hashvalues for one in hashes]).astype(np.uint32)


def _as_is(value: int) -> int:
    return value


def near_pairs(texts: pa.Array | pa.ChunkedArray, threshold: float) -> np.ndarray:
    """Pairs of texts whose shingles have at least this Jaccard similarity: enough of them to link all such texts.

    Args:
        texts: distinct texts, shape (n_texts,).

    Returns:
        Positions, shape (n_pairs, 2). A pair already linked through others may be left out.
    """
    shingles = shingle_matrix(texts)
    signature = signatures(shingles)
    n_texts = len(texts)
    linked = np.arange(n_texts)
    found = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(signature):
        fresh = pairs[linked[pairs[:, 0]] != linked[pairs[:, 1]]]
        proved = fresh[_jaccard(shingles, fresh) >= threshold]
        if len(proved):
            found.append(proved)
            edges = np.concatenate(found)
            graph = coo_array(
                (np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n_texts, n_texts)
            )
            linked = connected_components(graph, directed=False)[1]
    return np.concatenate(found)


def _candidates(signature: np.ndarray) -> Iterator[np.ndarray]:
    """For each band, pairs of texts that agree in it, shape (n_pairs, 2)."""
    bands = signature.reshape(len(signature), BANDS, BAND_HASHES)
    for band in range(BANDS):
        here, after = bands[:, band], bands[:, (band + 1) % BANDS]
        order = np.lexsort(
            [*after.T, *here.T]
        )  # sorted by signature inside a bucket, so that similar texts are next to each other
        ordered = here[order]
        pairs = []
        for apart in range(1, WINDOW + 1):
            same = np.flatnonzero((ordered[apart:] == ordered[:-apart]).all(axis=1))
            pairs.append(np.stack([order[same], order[same + apart]], axis=1))
        yield np.concatenate(pairs)


def _jaccard(shingles: csr_array, pairs: np.ndarray) -> np.ndarray:
    """True Jaccard similarity of each pair, shape (n_pairs,)."""
    size = np.diff(shingles.indptr)
    parts = [np.empty(0)]
    for at in range(0, len(pairs), _PAIRS_AT_ONCE):
        left, right = pairs[at : at + _PAIRS_AT_ONCE].T
        common = (shingles[left] * shingles[right]).sum(axis=1)
        parts.append(common / np.maximum(size[left] + size[right] - common, 1))
    return np.concatenate(parts)
