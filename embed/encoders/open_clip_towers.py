"""The two towers of an open_clip model as modules of their own. Imports torch: load it with the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import open_clip.model
import torch
from open_clip.convert import convert_state_dict
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, text_global_pool
from torch import nn

from embed.encoders.base import Encoder, Resolved
from embed.encoders.dimensions import shaped
from embed.encoders.weights import read_state
from embed.inputs.clip_tokenizer import clip_tokenizer
from store.errors import EncoderError
from store.vectors.spec import EncoderSpec

QUICK_GELU = 1.702  # the slope in open_clip.transformer.QuickGELU
# what a checkpoint may hold or lack without changing a vector
BESIDE_TOWERS = (
    "logit_scale",
    "logit_bias",
    "position_ids",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
    "text_decoder.",
)


class NativeText(nn.Module):
    """open_clip's own text transformer, on sequences as short as the batch's longest.

    The library pads to the full length and adds a mask of that length. Under a causal mask no token sees the
    padding behind it, so cutting it off changes nothing but the time.
    """

    attn_mask: torch.Tensor | None

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.token_embedding = source.token_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.positional_embedding = source.positional_embedding
        self.text_projection = source.text_projection
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)
        self._pool = getattr(source, "text_pool_type", None) or source.pool_type
        self._eos_id = getattr(source, "text_eos_id", None) or getattr(source, "eos_id", None)

    @property
    def sees_padding(self) -> bool:
        """Whether padding takes part in the vector, so that every sequence must have full length."""
        return self.attn_mask is None or self._pool not in ("argmax", "eos")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids of shape (n_rows, n_tokens) -> vectors of shape (n_rows, dim)."""
        length = ids.shape[1]
        mask = self.attn_mask[:length, :length] if self.attn_mask is not None else None
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        x = text_global_pool(x, ids, self._pool, eos_token_id=self._eos_id)
        if self.text_projection is None:
            return x
        if isinstance(self.text_projection, nn.Linear):
            return cast(torch.Tensor, self.text_projection(x))
        return x @ self.text_projection


class FirstOutput(nn.Module):
    """A tower that may also return its tokens; only the vectors are kept."""

    def __init__(self, tower: nn.Module, *, sees_padding: bool = False) -> None:
        super().__init__()
        self.tower = tower
        self.sees_padding = sees_padding

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = self.tower(inputs)
        return cast(torch.Tensor, found[0] if isinstance(found, tuple) else found)


def text_tower(model: nn.Module) -> NativeText | FirstOutput:
    """The text half of a model."""
    text: Any = getattr(model, "text", None)
    if text is None:
        return NativeText(model)
    if isinstance(text, HFTextEncoder):
        return FirstOutput(text)
    if text.cls_emb is None and not text.use_pad_mask:
        return NativeText(text)
    return FirstOutput(text, sees_padding=True)


def image_tower(model: nn.Module) -> FirstOutput:
    """The image half of a model."""
    return FirstOutput(cast(Any, model).visual)


def build(model_config: dict[str, Any]) -> nn.Module:
    """A model with random weights, fp32, in eval mode; `model_config` as open_clip writes it."""
    config = dict(model_config)
    hf_text = "hf_model_name" in config["text_cfg"]
    custom = config.pop("custom_text", False) or hf_text
    kind = open_clip.model.CLIP
    if custom:
        kind = open_clip.factory.CoCa if "multimodal_cfg" in config else open_clip.model.CustomTextCLIP
    if hf_text:
        config["text_cfg"] = {**config["text_cfg"], "hf_model_pretrained": False}
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    return cast(nn.Module, kind(**config)).eval()


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Fill a model from safetensors or `torch.load(weights_only=True)`.

    Unlike the library's own loading, position embeddings are never resized to fit: weights made for another
    image size or text length belong to another model.

    Raises:
        EncoderError: the file is damaged, or holds the weights of another model.
    """
    try:
        state = read_state(path)
        state = convert_state_dict(model, state)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = open_clip.model.convert_to_custom_text_state_dict(state)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(f"{name}: {path} is damaged or no checkpoint: {reason}: fetch it again") from error
    own = model.state_dict()
    wrong = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    wrong += [key for key in own.keys() ^ state.keys() if not _beside_towers(key)]
    wrong = sorted(key for key in set(wrong) if not _beside_towers(key))
    if wrong:
        raise EncoderError(
            f"{name}: {path} holds the weights of another model: {len(wrong)} of {len(own)} tensors are missing, "
            f"unknown or of another shape, first {wrong[0]!r}: name the model these weights belong to"
        )
    model.load_state_dict(
        {key: state[key] for key in own.keys() & state.keys() if not _beside_towers(key)}, strict=False
    )


@torch.no_grad()
def fold_quick_gelu(model: nn.Module) -> None:
    """x * sigmoid(a * x) is silu(a * x) / a: both factors go into the weights, three passes over memory become one."""
    for block in model.modules():
        if isinstance(block, ResidualAttentionBlock) and isinstance(block.mlp.gelu, QuickGELU):
            mlp: Any = block.mlp
            mlp.c_fc.weight *= QUICK_GELU
            mlp.c_fc.bias *= QUICK_GELU
            mlp.c_proj.weight /= QUICK_GELU
            mlp.gelu = nn.SiLU()


def _beside_towers(key: str) -> bool:
    return any(key.startswith(prefix) or key.endswith(prefix) for prefix in BESIDE_TOWERS)


# ---- encoders ------------------------------------------------------------------------------------


def load_towers(resolved: Sequence[Resolved], model_config: dict[str, Any]) -> list[Encoder]:
    """One load of a model, and the towers that `resolved` asks for, in that order."""
    first = resolved[0]
    text_config = next((one.files["text_config"] for one in resolved if "text_config" in one.files), None)
    if text_config is not None:
        text = {**model_config["text_cfg"], "hf_model_name": str(Path(text_config).parent)}
        model_config = {**model_config, "text_cfg": text}
    try:
        model = build(model_config)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(
            f"{first.spec.name}: open_clip can't build what its configuration describes: {error}"
        ) from error
    load_weights(model, Path(first.files["weights"]), first.spec.name)
    fold_quick_gelu(model)
    encoders: list[Encoder] = []
    for one in resolved:
        if one.spec.modality == "image":
            encoders.append(OpenClipImageTower(one.spec, image_tower(model)))
        else:
            encoders.append(OpenClipTextTower(one, text_tower(model), model_config["text_cfg"]))
    return encoders


class OpenClipImageTower:
    """The image half of a model behind the `ImageModel` protocol."""

    def __init__(self, spec: EncoderSpec, module: nn.Module) -> None:
        self.spec, self.module = spec, module

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return shaped(self.module(pixels), self.spec)


class OpenClipTextTower:
    """The text half of a model behind the `TextModel` protocol."""

    def __init__(
        self, resolved: Resolved, module: NativeText | FirstOutput, text_config: dict[str, Any]
    ) -> None:
        self.spec = resolved.spec
        self.module: nn.Module = module
        preprocessing = resolved.spec.preprocessing
        full_length = preprocessing["max_tokens"] if module.sees_padding else None
        self.tokenize, self.pad_id = clip_tokenizer(
            resolved.files.get("tokenizer"),
            text_config.get("tokenizer_kwargs") or {},
            preprocessing["max_tokens"],
            preprocessing["long"],
            full_length,
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return shaped(self.module(ids), self.spec)  # open_clip finds the end and the padding by their ids
