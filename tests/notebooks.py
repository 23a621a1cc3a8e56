"""Executes the notebooks of examples/, at small size for the tests.

`python -m tests.notebooks [NAME…]` executes them as they stand and keeps their outputs and the minutes they took.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.util import run_sync

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def running_kernel() -> Iterator[Any]:
    """A kernel for several notebooks, which imports libraries once."""
    kernel: Any = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3").create_kernel_manager()
    run_sync(kernel.start_kernel)(env=_environment())
    try:
        yield kernel
    finally:
        run_sync(kernel.shutdown_kernel)(now=True)


def execute(
    notebook: Path,
    folder: Path,
    small: Mapping[str, Any] | None = None,
    kernel: Any = None,
) -> nbformat.NotebookNode:
    """The notebook with the outputs of its cells, run in `folder`.

    Args:
        small: values of the cell that is tagged `parameters`; None: those that it states.
        kernel: that runs it, without the names of notebooks before; None: one of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    found = nbformat.read(notebook, as_version=4)
    if small is not None:
        (cell,) = (cell for cell in found.cells if "parameters" in cell.metadata.get("tags", ()))
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in small.items())
    begin = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}")
    found.cells.insert(0, begin)
    client = NotebookClient(
        found, km=kernel, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        record_timing=False, coalesce_streams=True,
    )  # fmt: skip
    client.execute(**({"env": _environment()} if kernel is None else {}))
    found.cells.remove(begin)
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.execution_count -= begin.execution_count
            for output in cell.outputs:
                if output.get("execution_count"):
                    output.execution_count -= begin.execution_count
    return found


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that its cells wrote to stdout."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def main(names: list[str]) -> None:
    """Execute each as it stands and keep what it shows."""
    for notebook in [EXAMPLES / name for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = execute(notebook, Path(folder))
            place = f"{folder}/"
        minutes = max(1, round((time.monotonic() - begun) / 60))
        took = f"took {minutes} minute{'s' if minutes > 1 else ''} on"
        found.cells[0].source = re.sub(r"took .* on", took, found.cells[0].source)
        for cell in found.cells:
            if cell.cell_type == "code":  # no progress of commands, no description of a plot beside the plot
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
                for output in cell.outputs:
                    if "text" in output:
                        output.text = output.text.replace(place, "")
                    if {"image/png", "image/svg+xml"} & set(output.get("data", ())):
                        output.data.pop("text/plain", None)
        found.metadata.pop("language_info", None)
        nbformat.write(found, notebook)
        sys.stdout.write(f"{notebook.name}: {minutes} min\n")


if __name__ == "__main__":
    main(sys.argv[1:])
