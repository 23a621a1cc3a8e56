"""Tables and JSON records below one root, each read through the contract of its path and checked by its digest."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from store.contracts import contract_of, null_problem, parse_json, shape_problem, table_problem
from store.digests import (
    digest_problem,
    opened_record,
    own_metadata,
    sealed_metadata,
    sealed_record,
    table_metadata,
)
from store.errors import CorruptFileError
from store.files import Files

ROW_GROUP_ROWS = 8192


class Workspace(Files):
    """A root folder (local path or fsspec URL) and relative POSIX paths below it.

    It makes nothing until something is published.

    >>> Workspace("run").exists("shelfprice.toml")
    False
    """

    @classmethod
    def of(cls, root: "Workspace | str | os.PathLike[str]") -> "Workspace":
        """A workspace as it is, or the one at a path or URL."""
        return root if isinstance(root, Workspace) else cls(root)

    def __repr__(self) -> str:
        return f"Workspace({self.root!r})"

    # ---- reading ---------------------------------------------------------------------------------

    def read_json(self, relative: str) -> Any:
        """A record that `publish_json` wrote.

        Raises:
            CorruptFileError: it is damaged, or is not what `store/contracts.py` says of this path.
            WorkspaceError: there is no such file, or it can't be read.
        """
        content = self.read_bytes(relative)
        try:
            value = parse_json(content)
        except ValueError as error:
            raise self.not_ours(relative, f"it is not JSON: {error}") from error
        problem = None
        if isinstance(value, dict):
            value, problem = opened_record(value, relative)
        problem = problem or shape_problem(value, contract_of(relative).shape)
        if problem:
            raise self.not_ours(relative, problem)
        return value

    @contextmanager
    def parquet(
        self, relative: str, *, memory_map: bool = True, whole: bool = False
    ) -> Iterator[pq.ParquetFile]:
        """An open Parquet file whose page checksums are verified as it is read.

        Args:
            memory_map: map a local file; what was read of it counts as this process's memory until it is closed.
            whole: all of it will be read: an object store is asked once.

        Raises:
            CorruptFileError: it is damaged, or is not what `store/contracts.py` says of this path.
            WorkspaceError: there is no such file, or it can't be read.
        """
        source: Any = self.path(relative)
        if self.is_local:
            self.open(relative).close()  # says why it can't be opened, if it can't
        else:
            source = pa.BufferReader(self.read_bytes(relative)) if whole else self.open(relative)
        try:
            with pq.ParquetFile(
                source, memory_map=self.is_local and memory_map, page_checksum_verification=True
            ) as file:
                self._check(relative, file)
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
            if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EACCES, errno.EPERM):
                raise self._unreadable(relative, error) from error
            raise self.not_ours(relative, str(error)) from error

    def _check(self, relative: str, file: pq.ParquetFile) -> None:
        """Raises CorruptFileError where columns, number of rows or metadata are not those that were written."""
        contract = contract_of(relative)
        problem = (
            digest_problem(file, relative)
            or table_problem(file.schema_arrow, contract)
            or shape_problem(table_metadata(file), contract.shape)
        )
        if problem:
            raise self.not_ours(relative, problem)

    def read_table(self, relative: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self.parquet(relative, whole=columns is None) as file:
            table = file.read(columns=list(columns) if columns is not None else None)
            if table.num_rows != file.metadata.num_rows:
                raise self.not_ours(relative, "it does not have the rows that it states")
            table = table.replace_schema_metadata(own_metadata(file) or None)
        problem = null_problem(table, contract_of(relative))
        if problem:
            raise self.not_ours(relative, problem)
        return table

    def batches(
        self, relative: str, columns: Sequence[str] | None = None, rows: int = ROW_GROUP_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream a Parquet file; memory holds one batch."""
        with self.parquet(relative, memory_map=False) as file:
            yield from file.iter_batches(
                batch_size=rows, columns=list(columns) if columns is not None else None
            )

    def is_sound(self, relative: str, pages: bool = True) -> bool:
        """Whether a file is there and reads as what was written; asked of what can be made again.

        Args:
            pages: read all of a table; else what it says of itself alone, which is quick however long it is.
        """
        if not self.exists(relative):
            return False
        try:
            if relative.endswith(".json"):
                self.read_json(relative)
            elif pages:
                self.read_table(relative)
            else:
                self.read_metadata(relative)
        except CorruptFileError:
            return False
        return True

    def read_metadata(self, relative: str) -> dict[str, Any]:
        """The JSON that `publish_table` stored beside the columns; empty where there is none."""
        with self.parquet(relative) as file:
            return table_metadata(file)

    def not_ours(self, relative: str, problem: str) -> CorruptFileError:
        """The error for a file that holds something else than was written; its message says what makes it again."""
        reason = " ".join(problem.split())[:200]
        return CorruptFileError(
            f"{self.path(relative)} is damaged or not what shelfprice wrote ({reason}): {contract_of(relative).made_by}"
        )

    # ---- publishing ------------------------------------------------------------------------------

    def publish_json(self, relative: str, value: Any) -> None:
        """Publish plain data; a record (an object) carries its own digest, which `read_json` checks."""
        if isinstance(value, dict):
            value = sealed_record(value, relative)
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.publish_bytes(relative, (text + "\n").encode())

    def publish_table(
        self,
        relative: str,
        table: pa.Table,
        metadata: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Publish a table as Parquet with page checksums; `metadata` is stored as JSON in its schema."""
        table = table.replace_schema_metadata(sealed_metadata(table, metadata, relative))
        settings = {"compression": "zstd", "row_group_size": ROW_GROUP_ROWS, **options}

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, write_page_checksum=True, **settings)

        self.publish(relative, write)
