"""The model card: what a model was fitted on, how far off it is, what it can't do."""

from typing import Any

from ensemble.model.training_rows import MOST_IMAGES


def card_of(manifest: dict[str, Any]) -> str:
    """Markdown, with the header that model hubs read."""
    data, scores, inputs = manifest["data"], manifest["scores"], manifest["rows"]["readings"]
    low, high = scores["nested_interval"]
    coverage = manifest["coverage"]
    currency = inputs["currency"] or "that of the training file, which names none"
    further = ", ".join(f"`{name}`" for name in inputs["columns"]) or "none"
    weights = {head["name"]: manifest["blend"]["weights"][head["name"]] for head in manifest["heads"]}
    image = f", image `{inputs['image']}`" if inputs["image"] else ""
    lines = [
        "---",
        "library_name: shelfprice",
        "tags: [tabular-regression, price-prediction]",
        "---",
        "",
        "# Price model",
        "",
        f"Prices of catalogue rows in {currency}: a blend of {len(weights)} heads over embeddings, made by shelfprice "
        f"{manifest['versions'].get('shelfprice', '')}.",
        "",
        "```python",
        "from ensemble import PriceModel",
        'PriceModel.load(".").price([{' + f'"{inputs["text"][0]}": "…"' + "}])",
        "```",
        "",
        "## Data",
        "",
        f"- {data['n_rows']:,} priced rows in {data['n_groups']:,} groups of alike rows, {data['with_image']:,} with an image",
        f"- columns read: text {', '.join(f'`{name}`' for name in inputs['text'])}{image}; further columns {further}",
        "- prices: least {:,.6g}, quarters at {:,.6g}, {:,.6g} and {:,.6g}, most {:,.6g}".format(
            *data["price"]
        ),
        f"- digest of the catalogue `{data['catalog_digest']}`, of the folds `{data['folds_hash']}`",
        "",
        "## Score",
        "",
        f"SMAPE (0 to 200) of rows that took no part in any choice: **{scores['nested']:.2f}**, "
        f"{low:.2f} to {high:.2f} with {scores['interval_level']:.0%} probability. "
        f"Intervals that state {coverage['coverage']:.0%} held {coverage['measured_coverage']:.1%} of such rows; "
        f"half of them reach at most from price / {coverage['median_factor']:.2f} to price x {coverage['median_factor']:.2f}.",
        "",
        "| price from | to | rows | SMAPE |",
        "|---|---|---|---|",
        *(
            f"| {s['from']:,.6g} | {s['to']:,.6g} | {s['n_rows']:,} | {s['smape']:.2f} |"
            for s in manifest["slices"]
        ),
        "",
        "| head | weight | its own SMAPE |",
        "|---|---|---|",
        *(f"| {name} | {weight:.2f} | {scores['heads'][name]:.2f} |" for name, weight in weights.items()),
        "",
        "## Limits",
        "",
        "- One market and one currency; nothing is converted.",
        "- The score holds for rows that are like the training rows; the least like them are flagged `unlike training`.",
        "- A row that lacks its text or image is flagged, and its interval is as much wider as that moved other prices.",
        "- The folder holds names, prices and vectors of the training rows, and small copies of their images, "
        f"{MOST_IMAGES:,} at most, unless it was packed without: share it with those alone who may see them.",
        "",
        "## Licences of weights",
        "",
        *(f"- {name}: {licence}" for name, licence in manifest["licences"].items()),
        "",
    ]
    return "\n".join(lines)
