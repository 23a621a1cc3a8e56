"""Models with random weights, of full size or tiny, saved as hubs keep them; JPEG files and texts for them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clip import save_clip

CLIP_L, CLIP_H, B4, BERT, DECODER = "vit-l14", "vit-h14", "efficientnet-b4", "bert-base", "decoder-8b"
B4_STAGES = f"{B4} stages"
ONE_KEY_HEAD = "decoder-of-one-key-head"  # which serves all heads of queries, as Gemma's does
SMALL_CLIP = "small-clip"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
N_WORDS = 5000  # of the texts
BASE_PHOTOS = 32  # distinct in what they show; the others differ from them by a comment in the file


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    name: str
    clip: dict[str, Any]  # model -> architecture of open_clip, or a configuration
    timm: tuple[str, int]  # architecture and edge of its images, pixels
    bert: dict[str, Any]  # of `BertConfig`
    decoder: dict[str, Any]  # of `Qwen3Config`
    photo_edge: int  # of the JPEG files, pixels
    check_rows: int  # of a check
    most_rows: int  # of an end-to-end figure
    seconds: float  # that one figure takes, about
    train_rows: int  # of the catalogue that is fine-tuned on
    batch_rows: int  # of a fine-tuning step


SMALL_CLIP_SIZES: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
FULL = Scale(
    "full",
    {CLIP_L: "ViT-L-14", CLIP_H: "ViT-H-14"},
    ("efficientnet_b4", 380),
    {},
    {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    photo_edge=512,
    check_rows=8,
    most_rows=32768,
    seconds=12.0,
    train_rows=240,
    batch_rows=32,
)
SMALL_DECODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": N_WORDS + len(SPECIAL),
}
TINY = Scale(
    "tiny",
    {CLIP_L: SMALL_CLIP_SIZES, CLIP_H: {**SMALL_CLIP_SIZES, "embed_dim": 24}},
    ("test_efficientnet", 32),
    {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": N_WORDS + len(SPECIAL),
    },
    {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": N_WORDS + len(SPECIAL),
    },
    photo_edge=48,
    check_rows=4,
    most_rows=24,
    seconds=0.02,
    train_rows=24,
    batch_rows=4,
)


def save_model(folder: Path, name: str, scale: Scale, device: str = "cpu") -> str:
    """Save one model into a folder, unless it is there; returns its address, of its towers where it has two.

    Args:
        device: where the weights of large models are drawn.
    """
    if name in (*scale.clip, SMALL_CLIP):
        if not folder.exists():
            save_clip(
                folder, scale.clip.get(name, SMALL_CLIP_SIZES), quick_gelu=name == CLIP_L, device=device
            )
        return f"open_clip:{folder}"
    makers: dict[str, tuple[str, Callable[[Path], None]]] = {
        B4: (f"timm:{folder}", lambda path: _save_timm(path, *scale.timm)),
        B4_STAGES: (f"timm:{folder}?pooling=stages", lambda path: _save_timm(path, *scale.timm)),
        BERT: (f"hf:{folder}?pooling=cls&max_tokens=256", lambda path: _save_bert(path, scale.bert)),
        ONE_KEY_HEAD: (
            f"hf:{folder}?pooling=last&max_tokens=512",
            lambda path: _save_decoder(path, SMALL_DECODER, "cpu", spread=0.15),
        ),
        DECODER: (
            f"hf:{folder}?pooling=last&max_tokens=512",
            lambda path: _save_decoder(path, scale.decoder, device),
        ),
    }
    address, save = makers[name]
    if not folder.exists():
        save(folder)
    return address


def _save_timm(folder: Path, architecture: str, edge: int) -> None:
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    overlay = {"input_size": (3, edge, edge), "crop_pct": 1.0, "num_classes": 10}
    model = timm.create_model(architecture, num_classes=10, pretrained_cfg_overlay=overlay)
    save_for_hf(model, str(folder), safe_serialization=True)


def _save_bert(folder: Path, sizes: dict[str, Any]) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    _save_tokenizer(folder)


def _save_decoder(folder: Path, sizes: dict[str, Any], device: str, spread: float | None = None) -> None:
    """
    Args:
        spread: deviation of the weights; None: as the library draws them.
    """
    import torch
    from transformers import AutoModel, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(**sizes, max_position_embeddings=32768, pad_token_id=0)
    with torch.device(device), torch.no_grad():
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
        for weights in model.parameters() if spread is not None else ():
            weights.normal_(0.0, spread)
        model.save_pretrained(folder)
    _save_tokenizer(folder)


def _save_tokenizer(folder: Path) -> None:
    """A word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [f"w{at}" for at in range(N_WORDS)]
    backend = Tokenizer(
        models.WordLevel({token: at for at, token in enumerate([*SPECIAL, *words])}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def save_photos(folder: Path, n: int, edge: int) -> list[Path]:
    """JPEG files, each with bytes of its own: coarse shapes with some grain."""
    from PIL import Image

    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    bases = []
    for _ in range(min(n, BASE_PHOTOS)):
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = np.asarray(coarse.resize((edge, edge), Image.Resampling.BICUBIC)).astype(np.float32)
        grainy = np.clip(smooth + random.normal(0, 6, (edge, edge, 1)), 0, 255).astype(np.uint8)
        out = BytesIO()
        Image.fromarray(grainy).save(out, "JPEG", quality=87)
        bases.append(out.getvalue())
    paths = []
    for at in range(n):
        comment = json.dumps({"photo": at}).encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        content = bases[at % len(bases)]
        paths.append(folder / f"{at}.jpg")
        if not paths[-1].exists():
            paths[-1].write_bytes(content[:2] + marker + content[2:])
    return paths


def texts(n: int) -> list[str]:
    """Texts of many lengths, the median near that of product descriptions."""
    random = np.random.default_rng(1)
    lengths = np.clip(random.lognormal(4.3, 0.6, n), 2, 600).astype(int)
    return [
        f"{at}: " + " ".join(f"w{word}" for word in random.integers(0, N_WORDS, length))
        for at, length in enumerate(lengths)
    ]
