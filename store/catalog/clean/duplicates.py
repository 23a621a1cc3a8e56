"""Which rows are the same product: the same text, the same image bytes, or nearly the same text."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.read import extra_columns

SHARED_ROWS = 20  # an image after the first that more rows have is not of the product itself
NEAR_JACCARD = 0.8  # of word shingles: from here on two texts are near-duplicates


def group_rows(
    text: pa.Array | pa.ChunkedArray,
    image: pa.Array | pa.ChunkedArray,
    *,
    near: bool,
    further: pa.Array | None = None,
    alike: np.ndarray | None = None,
) -> np.ndarray:
    """Groups of rows that are linked, directly or through others, by one text or one image.

    Args:
        text: catalogue texts, shape (n_rows,); an empty or null text links nothing.
        image: hex SHA-256 of the image bytes, shape (n_rows,); null links nothing.
        further: hex SHA-256 of each row's images after the first, list<string> of shape (n_rows,); an image that is a
            further one of many rows, such as a table of sizes or a shop's sign, links nothing.
        near: link near-duplicate texts as well, see `store.catalog.clean.near`.
        alike: shape (n_rows,), see `column_codes`: rows of another number are never linked. None: they may be.

    Returns:
        int64, shape (n_rows,): groups numbered from 0 by their first row.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    assert not (near and alike is not None), "near-duplicates are found by text alone"
    n_rows = len(text)
    text_code, n_texts = codes(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))
    row, image_code, n_images = _row_images(image, further)
    if alike is not None:
        text_code, n_texts = _split_by(text_code, alike)
        image_code, n_images = _split_by(image_code, alike[row])
    has_text = np.flatnonzero(text_code >= 0)
    starts = [has_text, row]  # rows, then texts, then images are the nodes
    ends = [n_rows + text_code[has_text], n_rows + n_texts + image_code]
    if near and n_texts > 1:
        from store.catalog.clean.near import near_pairs

        first_row = np.full(n_texts, n_rows)
        np.minimum.at(first_row, text_code[has_text], has_text)
        pairs = near_pairs(text.take(pa.array(first_row)), NEAR_JACCARD)
        starts.append(n_rows + pairs[:, 0])
        ends.append(n_rows + pairs[:, 1])
    start, end = np.concatenate(starts), np.concatenate(ends)
    n_nodes = n_rows + n_texts + n_images
    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(n_nodes, n_nodes))
    return first_seen(connected_components(graph, directed=False)[1][:n_rows])


def column_codes(rows: pa.Table) -> np.ndarray:
    """A number for each combination of values in the further columns of the catalogue, int64, shape (n_rows,)."""
    numeric, categorical = extra_columns(rows.schema)
    combined = np.zeros(len(rows), np.int64)
    for name in (*numeric, *categorical):
        code, n_values = codes(rows[name])
        combined = np.unique(combined * (n_values + 1) + code + 1, return_inverse=True)[1]
    return combined


def joined(group: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Groups of rows that are linked by either partition, both of shape (n_rows,); -1 in `other` links nothing."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    linked = np.flatnonzero(other >= 0)
    n_groups, n_others = int(group.max(initial=-1)) + 1, int(other.max(initial=-1)) + 1
    edges = (np.ones(len(linked), bool), (group[linked], n_groups + other[linked]))
    graph = coo_array(edges, shape=(n_groups + n_others, n_groups + n_others))
    return first_seen(connected_components(graph, directed=False)[1][group])


def _split_by(code: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of the pairs of both, -1 where `code` is, and how many there are."""
    pairs, inverse = np.unique(code * (alike.max(initial=0) + 1) + alike, return_inverse=True)
    return np.where(code < 0, -1, inverse), len(pairs)


def _row_images(
    image: pa.Array | pa.ChunkedArray, further: pa.Array | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Which row has which image that may link it, both of shape (n_pairs,), and how many images there are."""
    row = np.arange(len(image))
    values = image.combine_chunks() if isinstance(image, pa.ChunkedArray) else image
    if further is not None:
        row = np.concatenate([row, pc.list_parent_indices(further).to_numpy()])
        values = pa.concat_arrays([values, pc.list_flatten(further)])
    code, n_images = codes(values)
    there = code >= 0
    is_further = np.arange(len(code)) >= len(image)
    n_rows_of = np.bincount(code[there & is_further], minlength=n_images + 1)  # and one for code -1
    kept = np.flatnonzero(there & ~(is_further & (n_rows_of[code] > SHARED_ROWS)))
    return row[kept], code[kept], n_images


def first_seen(labels: np.ndarray) -> np.ndarray:
    """The same partition, numbered from 0 in the order in which labels turn up; int64, shape (n_rows,)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def codes(values: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """A number per distinct value, -1 for null, shape (n_rows,), and how many there are."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy().astype(np.int64), len(encoded.dictionary)
