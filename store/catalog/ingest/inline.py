"""Images that stand in the table itself: bytes in a column, such as that of Hugging Face's `Image`, and `data:` URIs."""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.download.addresses import split_links
from store.catalog.images.folder import EXTENSIONS
from store.catalog.images.links import DATA_PREFIX
from store.catalog.ingest.cells import as_text, is_missing

_LOOKED_AT, _NEARLY_ALL = 200, 0.9  # cells of a column, and the share of them that must be images
_FIRST_ROWS = 10_000  # among which they are looked for
_IMAGE_NAME = re.compile(r"image|img|photo|picture|thumb|bild|foto", re.IGNORECASE)
_URI = re.compile(r"data:([^,]*),(.*)", re.IGNORECASE | re.DOTALL)


@dataclass
class LinkColumn:
    """The link column, image content taken out of it."""

    links: list[str | None]  # (n_rows,) as given, `data:<sha256>` in place of content; None: nothing
    images: list[list[str]] = field(default_factory=list)  # (n_rows,) references to content
    content: dict[str, Any] = field(
        default_factory=dict
    )  # reference -> bytes, or an Arrow buffer of them; None: they can't be read


def read_link_column(column: pa.ChunkedArray, name: str) -> LinkColumn:
    """Links, paths and lists of them as text; bytes and `data:` URIs as references to their content.

    Args:
        column: strings, bytes, structs of `bytes` and `path`, or lists of any of these.

    Raises:
        CatalogError: it holds something else.
    """
    if holds_images(column):
        return _taken_out(column)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        cells: list[str | None] = [
            json.dumps(cell, ensure_ascii=False, default=str) if cell else None for cell in column.to_pylist()
        ]
    else:
        cells = as_text(column, name).to_pylist()
    cells = [None if cell is None or is_missing(cell) else cell.strip() for cell in cells]
    if not any("data:" in cell[:2048].lower() for cell in cells if cell):
        return LinkColumn(cells, [[] for _ in cells])
    return _taken_out(cell if cell is None else split_links(cell) or cell for cell in cells)


def is_image_type(kind: pa.DataType) -> bool:
    """Whether a column is Hugging Face's `Image`, a struct of bytes and a path, or a list of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_image_type(kind.value_type)
    fields = (
        {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        if pa.types.is_struct(kind)
        else {}
    )
    return fields.keys() == {"bytes", "path"} and _is_binary(fields["bytes"])


def holds_images(column: pa.ChunkedArray) -> bool:
    """Whether a column is of such a type, or holds bytes that are no text."""
    kind = column.type
    if is_image_type(kind):
        return True
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column, kind = pc.list_flatten(column), kind.value_type
    if not _is_binary(kind):
        return False
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return True
    return False


def looks_like_images(name: str, cells: Iterable[str | None]) -> bool:
    """Whether the texts of a column are nearly all links to images, or names of image files.

    A link without an image's extension counts where the column is called after images.
    """
    first = list(islice((cell for cell in cells if cell is not None and not is_missing(cell)), _LOOKED_AT))
    is_named = _IMAGE_NAME.search(name) is not None
    found = [cell for cell in first if _is_image(cell.strip(), is_named)]
    return bool(first) and len(found) >= _NEARLY_ALL * len(first)


def may_be_images(name: str, column: pa.ChunkedArray) -> bool:
    """Whether a column, under this name, holds images, links to images, names of image files, or lists of them."""
    if holds_images(column):
        return True
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pc.list_flatten(column)
    return pa.types.is_string(column.type) and looks_like_images(name, column[:_FIRST_ROWS].to_pylist())


def _is_image(cell: str, is_named: bool) -> bool:
    one = next(iter(split_links(cell) or [cell]))
    if one[:11].lower() == "data:image/" or names_file(one):
        return True
    if not one.lower().startswith(("http://", "https://")):
        return False
    return is_named or one.split("?")[0].lower().endswith(EXTENSIONS)


def names_file(cell: str) -> bool:
    """Whether a cell of the link column names an image file instead of an address."""
    first = (split_links(cell) or [cell])[0].removeprefix("file://")
    return "://" not in first and os.path.splitext(first)[1].lower() in EXTENSIONS


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _taken_out(cells: Iterable[Any]) -> LinkColumn:
    found = LinkColumn([])
    for cell in cells:
        names: dict[str, None] = {}
        references: dict[str, None] = {}
        for item in _items(cell):
            if isinstance(item, str) and not item.lower().startswith("data:"):
                names.setdefault(item)
                continue
            content = _decoded(item) if isinstance(item, str) else item
            told = content or str(item).encode()
            reference = DATA_PREFIX + hashlib.sha256(told).hexdigest()
            found.content[reference] = content
            names.setdefault(reference)
            references.setdefault(reference)
        found.links.append(
            json.dumps(list(names), ensure_ascii=False) if len(names) > 1 else next(iter(names), None)
        )
        found.images.append(list(references))
    return found


def _items(cell: Any) -> Iterator[str | pa.Buffer]:
    """What a cell holds: texts that are links or paths, and bytes, which are not copied."""
    if isinstance(cell, pa.StructScalar):
        found = list(_items(cell["bytes"]))
        yield from found or _items(cell["path"])
    elif isinstance(cell, list | pa.ListScalar | pa.LargeListScalar):
        for one in cell if isinstance(cell, list) else cell.values or ():
            yield from _items(one)
    elif isinstance(cell, str | pa.StringScalar | pa.LargeStringScalar):
        text = cell if isinstance(cell, str) else cell.as_py()
        if text is not None and not is_missing(text):
            yield text.strip()
    elif isinstance(cell, pa.Scalar) and cell.is_valid and len(cell.as_buffer()):
        yield cell.as_buffer()


def _decoded(uri: str) -> bytes | None:
    """The content of a `data:` URI; None where it is none that can be read."""
    parts = _URI.fullmatch(uri)
    if parts is None:
        return None
    kind, content = parts[1], unquote_to_bytes(parts[2])
    if not kind.lower().rstrip().endswith(";base64"):
        return content or None
    try:
        packed = b"".join(content.split())
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True) or None
    except binascii.Error:
        return None
