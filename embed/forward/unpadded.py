"""Texts without padding: the tokens of a batch in one row, and attention within each text alone.

For models of transformers whose attention can be exchanged. On a GPU attention is torch's own for sequences of many
lengths; elsewhere attention is computed text by text, which the GPU's is compared with.
"""

import inspect
import itertools
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from embed.encoders.base import PREPARED_BY, Encoder

NAME = "shelfprice_unpadded"  # in transformers' registry; having no mask of its own, a model makes none
# What some models add to attention and the kernel has no place for.
REFUSED = ("position_bias", "softcap", "s_aux")


class Unpadded:
    """Switches a text model between padded batches and their tokens alone.

    Args:
        model: of transformers, from `text_model`.
    """

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, attention)
        self._model = model
        self._plain = model.config._attn_implementation
        self._forward = model.forward
        self._own = "forward" in vars(model)  # replaced already, by whoever placed the weights
        self._offset = position_offset(model)
        self._tokens: _Tokens | None = None  # of the next pass
        self.is_on = False

    def switch(self, on: bool) -> None:
        """Compute without padding, or as the model does by itself."""
        if on == self.is_on:
            return
        self._model.set_attn_implementation(NAME if on else self._plain)
        if on:
            self._model.forward = self._unpadded_forward
        elif self._own:
            self._model.forward = self._forward
        else:
            del self._model.forward
        self.is_on = on

    def find_tokens(self, mask: torch.Tensor, n_tokens: int | None = None) -> None:
        """Where in the batch of the next pass tokens are.

        Args:
            mask: shape (n_rows, longest), padded on the right.
            n_tokens: of all rows, where that is known: a GPU would first finish what it has to do before it can tell.
        """
        n_rows, longest = mask.shape
        lengths = mask.sum(dim=1)
        ends = lengths.cumsum(dim=0)
        rows = torch.arange(n_rows, device=mask.device).repeat_interleave(lengths, output_size=n_tokens)
        positions = torch.arange(len(rows), device=mask.device) - (ends - lengths)[rows]
        ends = nn.functional.pad(ends, (1, 0)).to(torch.int32)
        self._tokens = _Tokens(rows * longest + positions, positions + self._offset, ends)

    def _unpadded_forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Any:
        """As the model's own, on ids and mask of shape (n_rows, longest); padding gets zeros for hidden states."""
        assert self._tokens is not None
        at, positions, ends = self._tokens
        n_rows, longest = input_ids.shape
        options.pop("token_type_ids", None)  # of one kind, as where none are given
        found = self._forward(
            input_ids=input_ids.flatten()[at][None],
            position_ids=positions[None],
            cu_seq_lens_q=ends,
            max_length_q=longest,
            **options,
        )
        hidden = found.last_hidden_state
        padded = hidden.new_zeros(n_rows * longest, hidden.shape[-1]).index_copy(0, at, hidden[0])
        found.last_hidden_state = padded.view(n_rows, longest, -1)
        return found


class _Tokens(NamedTuple):
    """The tokens of a batch without their padding."""

    at: torch.Tensor  # (n_tokens,): in the flattened batch
    positions: torch.Tensor  # (n_tokens,): as the model counts them
    ends: torch.Tensor  # (n_rows + 1,) int32: where each row begins among them, and the last ends


def text_model(encoder: Encoder) -> Any:
    """The model of transformers inside an encoder of texts that may run without padding; None where there is none.

    Which families do is known by trying: the cosine to padded batches is measured before this is chosen.
    """
    if encoder.spec.modality != "text" or PREPARED_BY in encoder.spec.preprocessing:
        return None
    if find_spec("torch.nn.attention.varlen") is None:
        return None
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:  # which an encoder of its models has imported
        return None
    model = next((m for m in encoder.module.modules() if isinstance(m, library.PreTrainedModel)), None)
    if model is None or not model.is_backend_compatible() or model.config.is_encoder_decoder:
        return None
    max_tokens = encoder.spec.preprocessing.get("max_tokens")
    if max_tokens is None or any(2 * max_tokens > window for window in _windows(model.config)):
        return None
    return model


def _windows(config: Any) -> Iterator[int]:
    """Most tokens that some layer looks at; a text of half as many is seen whole from every token."""
    for name in ("sliding_window", "local_attention"):
        window = getattr(config, name, None)
        if window is not None:
            yield int(window)


def position_offset(model: nn.Module) -> int:
    """The first token's position: after the padding's in learned positions of RoBERTa's kind, else 0."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(
            getattr(module, "position_embeddings", None), nn.Embedding
        ):
            return padding + 1
    return 0


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text, as transformers' registry wants it.

    Args:
        query: shape (1, n_heads, n_tokens, head_dim); key and value may have fewer heads.
        cu_seq_lens_q: where each text begins and the last one ends, shape (n_texts + 1,) int32.
        max_length_q: tokens of the longest text.

    Returns:
        Shape (1, n_tokens, n_heads, head_dim), and no weights.

    Raises:
        NotImplementedError: the model asks for more.
    """
    asked = [name for name in REFUSED if options.get(name) is not None]
    if cu_seq_lens_q is None or attention_mask is not None or asked:
        what = ", ".join(asked) or "a mask, or does not pass on where texts begin"
        raise NotImplementedError(
            f"attention without padding is not for {type(module).__name__}: it has {what}"
        )
    if is_causal is None:
        config = getattr(module, "config", None)
        is_causal = (
            bool(getattr(module, "is_causal", True)) and getattr(config, "is_causal", True) is not False
        )
    if has_kernel(query):
        return _by_kernel(query, key, value, scaling, is_causal, cu_seq_lens_q, max_length_q)[None], None
    ends = cu_seq_lens_q.tolist()
    parts = [
        nn.functional.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=is_causal,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, stop in itertools.pairwise(ends)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def has_kernel(query: torch.Tensor) -> bool:
    """Whether torch's attention for sequences of many lengths runs where this is: on NVIDIA's GPUs."""
    return query.is_cuda


def _by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    is_causal: bool,
    ends: torch.Tensor,
    longest: int,
) -> torch.Tensor:
    """Shape (n_tokens, n_heads, head_dim)."""
    from torch.nn.attention import varlen

    device = query.device.type
    # The kernel is for half types and not on autocast's list; rotary positions have made queries fp32 again.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    options: dict[str, Any] = {}
    grouped = query.shape[1] != key.shape[1]
    if grouped and "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters:
        options["enable_gqa"] = True
    elif grouped:  # an older torch
        key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
    queries, keys, values = (one[0].transpose(0, 1).to(dtype) for one in (query, key, value))
    found = varlen.varlen_attn(
        queries,
        keys,
        values,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0) if is_causal else (-1, -1),
        **options,
    )
    return cast(torch.Tensor, found)
