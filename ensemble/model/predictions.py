"""A file of new products -> a table of prices."""

import csv
import difflib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ensemble.model.price_model import PriceModel
from ensemble.model.tables import read_products
from ensemble.submission import no_formula
from store.catalog.download.addresses import split_links
from store.catalog.download.rows import known_references
from store.catalog.images.blobs import read_blob
from store.catalog.images.folder import NO_ID, list_folder
from store.catalog.images.links import known_links
from store.catalog.ingest.source import TableSource
from store.catalog.read import image_references, present_splits, read_split
from store.errors import StoreError, WorkspaceError
from store.workspace import Workspace

Reader = Callable[[], bytes]
RESULTS = ("price", "low", "high", "flags", "reason")  # columns beside the id
Row = tuple[str, ...]  # id, price, low, high, flags, reason: as written


@dataclass(frozen=True)
class PricedFile:
    """Prices of a file, as they are written."""

    header: tuple[str, ...]
    rows: list[Row]
    fingerprint: str  # of the model
    notes: tuple[str, ...] = ()  # for people

    def csv(self, for_spreadsheet: bool = False) -> str:
        """The table as CSV.

        Args:
            for_spreadsheet: with an apostrophe before an id that a spreadsheet would run as a formula.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.header)
        first = no_formula if for_spreadsheet else str
        writer.writerows((first(one), *others) for one, *others in self.rows)
        return out.getvalue()


def price_file(
    model: PriceModel,
    file: str,
    images: str | None = None,
    id_column: str | None = None,
    interval: float = 0.9,
    workspace: Workspace | None = None,
) -> PricedFile:
    """Price every row of a file; a line that is no row of it is refused with its reason.

    Args:
        images: folder of images.
        id_column: None: the training file's, or lines where the file has none such.
        workspace: whose images are taken for links that it knows.

    Raises:
        CatalogError: the file can't be read, or lacks the column of ids that was asked for.
    """
    source = read_products(file)
    name = id_column or next((one for one in model.id_columns if one in source.columns), None)
    if id_column is not None:
        source.require(id_column, "--id-column")
    ids = [None] * source.n_rows if name is None else source.columns[name].to_pylist()
    cells = _images(model, source, ids, images, workspace)
    by_line = dict(zip(source.lines.tolist(), ids, strict=True))
    rows = [
        (
            str(line) if name is None else _text(by_line.get(line)),
            *("" if value is None else repr(value) for value in (one.price, one.low, one.high)),
            "; ".join(one.flags),
            one.reason or "",
        )
        for line, one in model.price_lines(source, interval, cells)
    ]
    return PricedFile((name or "line", *RESULTS), rows, model.fingerprint, _notes(model, source, cells))


def _notes(model: PriceModel, source: TableSource, images: list[Any]) -> tuple[str, ...]:
    """One for each column that the model reads and the file lacks, with the name that is most like it."""
    inputs, there = model.inputs, list(source.columns)
    read = [*inputs.text, *inputs.numeric, *inputs.categorical]
    if inputs.image is not None and all(one is None for one in images):
        read.append(inputs.image)
    known = {one for name in read for one in (name, name.partition(".")[0])}  # a part of a struct
    others = {name.casefold(): name for name in there if name not in known}
    notes = []
    for name in read:
        if name in there or name.partition(".")[0] in there:
            continue
        like = difflib.get_close_matches(name.casefold(), others, 1)
        hint = f", did you mean {others[like[0]]!r}?" if like else ""
        notes.append(f"the file has no column {name!r}, which the model reads: missing in every row{hint}")
    return tuple(notes)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _images(
    model: PriceModel, source: TableSource, ids: list[Any], images: str | None, workspace: Workspace | None
) -> list[Any]:
    """The image of each row: of the folder, else of the workspace, else what its cell names."""
    column, policy = model.inputs.image, model.images_per_row
    cells = source.columns[column].to_pylist() if column in source.columns else [None] * source.n_rows
    found: list[Any] = list(cells)
    if workspace is not None:
        of_links, of_rows = _workspace_images(workspace)
        for at, (one, cell) in enumerate(zip(ids, cells, strict=True)):
            link, own = of_rows.get(str(one), (None, []))
            text = _link_text(cell)
            named = known_references(text, of_links, policy) if text else []
            # With another link it is another product that has the id of a test row.
            is_that_row = cell is None or (text is not None and text in ("", link))
            found[at] = (own if is_that_row else []) or [of_links[link] for link in named] or cell
    if images is not None:
        folder, trained = list_folder(images), model.training_ids
        for at, (one, cell) in enumerate(zip(ids, cells, strict=True)):
            link = cell if isinstance(cell, str) and cell.strip() else None
            names = split_links(link) or [] if link else []
            match = folder.find("test", NO_ID if one is None else one, link, is_shared=str(one) in trained)
            others = [folder.find("test", NO_ID, name) for name in names]
            if paths := [Path(folder.path) / file.name for file in (match, *others) if file is not None]:
                found[at] = list(dict.fromkeys(paths))
    return found


def _link_text(cell: Any) -> str | None:
    """Links of a row as the catalogue writes them; None: the cell holds something else."""
    if isinstance(cell, list) and all(isinstance(one, str) for one in cell):
        return json.dumps(cell, ensure_ascii=False)
    return cell.strip() if isinstance(cell, str) else None


def _workspace_images(
    workspace: Workspace,
) -> tuple[dict[str, Reader], dict[str, tuple[str | None, list[Reader]]]]:
    """Functions that read an image, by link; by id of the test rows the link of each and the readers of its images."""
    known = known_links(workspace)
    by_link: dict[str, Reader] = {
        link: partial(_blob, workspace, sha256) for link, sha256 in known.items() if sha256 is not None
    }
    if "test" not in present_splits(workspace):
        return by_link, {}
    test = read_split(workspace, "test")
    columns = (test["sample_id"].to_pylist(), test["image_link"].to_pylist(), image_references(test))
    return by_link, {
        str(one): (cell, [by_link[link] for link in links if link in by_link])
        for one, cell, links in zip(*columns, strict=True)
    }


def _blob(workspace: Workspace, sha256_hex: str) -> bytes:
    """An image of the workspace; one that is missing or damaged is one that can't be read."""
    try:
        return read_blob(workspace, sha256_hex)
    except StoreError:
        raise
    except WorkspaceError as error:
        raise OSError(str(error)) from error
