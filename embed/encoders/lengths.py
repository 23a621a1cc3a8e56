"""How many tokens of a text enter a transformer."""

from typing import Any

from embed.encoders.base import Address
from store.errors import EncoderError

COUNTS_FROM_PADDING = (
    *("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"),
    *("data2vec-text", "roberta-prelayernorm", "xmod", "ibert", "luke"),
)
BY_OTHER_NAME = {
    "gpt2": "n_positions",
    "openai-gpt": "n_positions",
}  # kind -> what its config calls its positions
# Kinds whose vectors change with the padding that longer texts of a batch bring, whatever the attention mask.
SEE_PADDING = ("canine", "convbert", "fnet", "funnel", "nystromformer")
SPARSE_ABOVE = {"big_bird": 704}  # kind -> tokens, beyond which attention is by blocks of the padded length
LONGEST = 512  # where neither the address nor the model's files say
NO_LIMIT = 10**6  # tokenizers write a number beyond this, or -1, where there is no limit


def max_tokens(address: Address, config: dict[str, Any], own: Any) -> int:
    """Longest sequence, special tokens included.

    Args:
        address: its option `max_tokens`, if any, is what the user wants.
        config: the transformer's `config.json`.
        own: what the model's other files say, or None.

    Raises:
        EncoderError: what the user wants is no number, or more than the model has positions for; or the model sees
            padding.
    """
    kind = config.get("model_type", "")
    positions = config.get(BY_OTHER_NAME.get(kind, "max_position_embeddings"))
    if positions and kind in COUNTS_FROM_PADDING:
        padding = config.get("pad_token_id")
        positions -= (1 if padding is None else padding) + 1
    limits = [int(limit) for limit in (own, positions) if limit and 0 < limit < NO_LIMIT]
    asked = address.options.get("max_tokens")
    if asked is not None and (not asked.isdecimal() or not 2 < int(asked) <= (positions or NO_LIMIT)):
        raise EncoderError(
            f"{address.name}: max_tokens must be a whole number from 3 to {positions or 'any'}, got {asked!r}"
        )
    longest = min(limits, default=LONGEST) if asked is None else int(asked)
    _check_padding(address, kind, longest)
    return longest


def _check_padding(address: Address, kind: str, longest: int) -> None:
    said = (
        f"a vector of models of kind {kind!r} depends on the other texts of its batch, which can't be cached"
    )
    if kind in SEE_PADDING:
        raise EncoderError(f"{address.name}: {said}: choose another model")
    most = SPARSE_ABOVE.get(kind, longest)
    if longest > most:
        raise EncoderError(f"{address.name}: beyond {most} tokens {said}: write max_tokens={most}")
