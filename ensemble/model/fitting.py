"""Rows with prices -> a packed model, the whole way in one workspace: ingest, embed, heads, blend, pack."""

import hashlib
import os
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ensemble.model.folder import FITS, IN_USE, MODEL_LOCK, ModelFolder
from ensemble.model.rows import image_items, is_link
from store.catalog.images.blobs import read_blob, stored_digests
from store.catalog.ingest.cells import as_text
from store.catalog.ingest.source import read_source
from store.catalog.parse.levels import in_known_spelling
from store.config import Config, save_config
from store.errors import CatalogError, WorkspaceError
from store.workspace import Workspace

FITTED_ROWS = f"{FITS}/rows.parquet"  # what the last model was fitted on and its score, for more rows later
# Images of each row: as ingest reads them, and as they are kept.
CELLS = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
KEPT_CELLS = pa.list_(pa.struct([("sha256", pa.string()), *CELLS.value_type]))


def fit_rows(
    workspace: Workspace,
    rows: pa.Table,
    image: str | None,
    config: Config,
    malformed: Sequence[tuple[int, str]] = (),
) -> ModelFolder:
    """Train and pack a model in a workspace, whose configuration becomes `config`.

    Args:
        rows: columns of the catalogue; of images as `image_column` gives it.
        image: name of that column; None: there is none.
        malformed: line and reason of what is no row of the user's table; it counts as rejected.

    Returns:
        The model, in a folder of its own that is removed with it.
    """
    from embed.catalogue import embed_catalogue
    from ensemble.model.pack import pack
    from ensemble.score import make_blend
    from heads.run import train_heads
    from store.catalog.ingest.run import ingest

    save_config(workspace, config)
    ingest(workspace, replace(read_source(rows), malformed=tuple(malformed)), columns=config.columns)
    embed_catalogue(workspace)
    train_heads(workspace)
    make_blend(workspace)
    with ExitStack() as place:
        model = pack(workspace, _own_folder(workspace, place))
        weakref.finalize(model, place.pop_all().close)
    score = {"smape": model.manifest["scores"]["nested"]}
    # Last: a fit that was interrupted has added no rows.
    workspace.publish_table(FITTED_ROWS, _kept(workspace, rows, image), score)
    return model


def _own_folder(workspace: Workspace, place: ExitStack) -> Path:
    """Where a model can lie as long as `place` is open: in the workspace, where that is local."""
    if not workspace.is_local:
        return Path(place.enter_context(tempfile.TemporaryDirectory(prefix="shelfprice-"))) / "model"
    parent = Path(workspace.path(FITS))
    parent.mkdir(exist_ok=True)
    made = Path(place.enter_context(tempfile.TemporaryDirectory(prefix=IN_USE, dir=parent)))
    place.enter_context(workspace.lock(f"{FITS}/{made.name}/{MODEL_LOCK}"))
    return made / "model"


def score_before(workspace: Workspace) -> float | None:
    """Honest SMAPE of the model that was last fitted here; None: there is none, or its version did not record it."""
    if not workspace.exists(FITTED_ROWS):
        return None
    smape: float | None = workspace.read_metadata(FITTED_ROWS).get("smape")
    return smape


def rows_before(workspace: Workspace, image: str | None) -> pa.Table:
    """The rows that `fit_rows` was given before.

    Raises:
        WorkspaceError: there are none.
    """
    if not workspace.exists(FITTED_ROWS):
        raise WorkspaceError(
            f"fit(warm=True): {workspace.root} holds no rows of a fit before: fit without it"
        )
    table = workspace.read_table(FITTED_ROWS).replace_schema_metadata(None)
    if image is None or image not in table.column_names:
        return table
    cells = [[_read(workspace, one) for one in images or ()] for images in table[image].to_pylist()]
    return table.set_column(table.column_names.index(image), image, pa.array(cells, CELLS))


def together(before: pa.Table, further: pa.Table) -> pa.Table:
    """Both tables as one; a column that is of one kind here and of another there (a CSV and a frame) as text, which is read
    by its values.
    """
    for at, name in enumerate(before.column_names):
        if name in further.column_names and not _can_be_one(before[name].type, further[name].type):
            texts = as_text(before[name], name).combine_chunks()
            others = in_known_spelling(as_text(further[name], name).combine_chunks(), set(texts.to_pylist()))
            before = before.set_column(at, name, texts)
            further = further.set_column(further.column_names.index(name), name, others)
    return pa.concat_tables([before, further], promote_options="permissive")


def _can_be_one(kind: pa.DataType, other: pa.DataType) -> bool:
    fields = [pa.schema([pa.field("column", one)]) for one in (kind, other)]
    try:
        pa.unify_schemas(fields, promote_options="permissive")
    except pa.ArrowTypeError:
        return False
    return True


def image_column(cells: Sequence[Any]) -> pa.Array:
    """Images of each row as ingest reads them: bytes of what can be read here, and links, which the workspace may know.

    Args:
        cells: of each row a path, a link, bytes, a Pillow image, or a list of these; None: no image.

    Raises:
        CatalogError: an image is none that can be read; names its row.
    """
    return pa.array([_images(cell, row) for row, cell in enumerate(cells, 1)], CELLS)


def _images(cell: Any, row: int) -> list[dict[str, Any]]:
    from embed.job.items import image_bytes

    found: list[dict[str, Any]] = []
    for one in image_items(cell):
        try:
            content = None if is_link(one) else image_bytes(one)
        except (OSError, TypeError, ValueError, AttributeError) as error:
            if not isinstance(one, str | os.PathLike):
                raise CatalogError(f"the image of row {row} can't be read: {error}") from error
            content = None  # as ingest tells of a file that is not there
        found.append({"bytes": content, "path": None if content is not None else os.fspath(one)})
    return found


def _kept(workspace: Workspace, rows: pa.Table, image: str | None) -> pa.Table:
    """The rows with digests in place of images that the workspace has; it has none of rows that ingest refused."""
    if image is None:
        return rows
    stored = stored_digests(workspace)
    kept = [[_digested(one, stored) for one in images or ()] for images in rows[image].to_pylist()]
    return rows.set_column(rows.column_names.index(image), image, pa.array(kept, KEPT_CELLS))


def _digested(one: dict[str, Any], stored: set[str]) -> dict[str, Any]:
    sha256 = hashlib.sha256(one["bytes"]).hexdigest() if one["bytes"] is not None else None
    return {"sha256": sha256, "bytes": None} if sha256 in stored else one


def _read(workspace: Workspace, one: dict[str, Any]) -> dict[str, Any]:
    content = one["bytes"] if one["sha256"] is None else read_blob(workspace, one["sha256"])
    return {"bytes": content, "path": one["path"]}
