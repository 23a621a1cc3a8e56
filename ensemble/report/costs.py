"""What the workspace cost so far: disk by kind, seconds by encoder and head."""

from collections.abc import Iterator
from typing import Any

from ensemble.report.rows import ReportRows
from store.config import Config
from store.errors import ShelfpriceError
from store.rooms import find_rooms
from store.vectors.sets import current_encoders, current_spec
from store.vectors.shard import shard_names
from store.workspace import Workspace

MOST_SHARDS = 200  # of an encoder that are asked for their seconds


def costs(workspace: Workspace, config: Config, rows: ReportRows) -> dict[str, Any]:
    """`disk`, kind -> bytes; `seconds`, step -> seconds of its last full run, None where not recorded."""
    disk = {kind: n for room in find_rooms() for kind, n in room.disk(workspace).items() if n}
    seconds = dict(_embedding(workspace))
    for head, folder in rows.record["inputs"]["heads"].items():
        report = workspace.read_json(f"{folder}/head.json")["report"]
        seconds[f"head {head}"] = report.get("seconds")
    seconds["blend"] = rows.record.get("seconds")
    return {"disk": disk, "seconds": {step: value for step, value in seconds.items() if value is not None}}


def _embedding(workspace: Workspace) -> Iterator[tuple[str, float | None]]:
    for encoder in current_encoders(workspace):
        spec = current_spec(workspace, encoder)
        total = 0.0
        names = shard_names(workspace, spec.folder)
        for name in names[:MOST_SHARDS]:
            try:
                metadata = workspace.read_metadata(f"{spec.folder}/{name}")
            except ShelfpriceError:
                continue
            total += float(metadata.get("provenance", {}).get("seconds", 0.0))
        if total:
            yield f"encoder {encoder}", total * len(names) / min(len(names), MOST_SHARDS)
