"""The facts of a catalogue as text for the terminal."""

import numpy as np

from store.catalog.show.charts import label, priced
from store.catalog.show.facts import Facts, Histogram

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*#@"  # for a terminal that lacks the others


def fact_lines(facts: Facts, blocks: str = BLOCKS) -> list[str]:
    """Everything that the page says, images apart."""
    lines = []
    for split in facts.splits:
        lines.append(
            f"{split.name:<7}{split.rows:>9,} rows, {split.texts:,} distinct texts; {split.with_image:,} with an image, "
            f"{split.n_images:,} distinct"
        )
        if split.with_several:
            lines.append(f"       {split.with_several:>9,} with several images")
        for reason, n in split.missing.items():
            lines.append(f"       {n:>9,} without: {reason} (first: {', '.join(split.missing_ids[reason])})")
    quantiles = ", ".join(
        f"{name} {priced(price, facts.typical_price)}" for name, price in facts.price_quantiles.items()
    )
    lines += [
        "",
        f"price  {quantiles}",
        *_sparks(facts.price, blocks),
        "",
        "characters of text",
        *_sparks(facts.length, blocks),
    ]
    lines += ["", f"{'field':<26}" + "".join(f"{split.name:>9}" for split in facts.splits)]
    for field, shares in facts.coverage.items():
        lines.append(f"{field:<26}" + "".join(f"{share:>9.1%}" for share in shares.values()))
    if facts.against:
        lines += ["", f"{'train against test':<34}{'train':>10}{'test':>10}"]
        lines += [f"{what:<34}{_number(what, a):>10}{_number(what, b):>10}" for what, a, b in facts.against]
    lines.append("")
    if facts.doubts.note:
        lines.append(f"doubtful rows: {facts.doubts.note}")
    for one in facts.doubts.findings:
        groups = f"{one.groups:,} groups, " if one.groups else ""
        lines.append(
            f"{one.name:<17}{groups}{one.train_rows:,} train and {one.test_rows:,} test rows, policy {one.policy}: {one.summary}"
        )
        for example in facts.doubts.examples.get(one.name, [])[:2]:
            first = example.rows[0]
            lines.append(f"    {first.sample_id}: {example.reason}; {' '.join(first.name.split())[:80]}")
    return lines


def _sparks(found: Histogram, blocks: str) -> list[str]:
    ends = f"{label(float(f'{found.edges[0]:.3g}'))} to {label(float(f'{found.edges[-1]:.3g}'))}"
    return [
        f"  {split:<6} {''.join(blocks[i] for i in _heights(counts))}  {ends}, log axis"
        for split, counts in found.counts.items()
    ]


def _heights(counts: np.ndarray) -> list[int]:
    scaled = np.ceil(8 * counts / max(int(counts.max(initial=0)), 1))
    return [int(one) for one in scaled]


def _number(what: str, value: float) -> str:
    return f"{value:.1%}" if what.startswith("share") else f"{value:,.1f}"
