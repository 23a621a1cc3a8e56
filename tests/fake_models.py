"""Tiny models with random weights, saved to folders as the real ones are."""

import json
from pathlib import Path
from typing import Any

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CLIP_PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
WORDS = ["red", "green", "blue", "cotton", "shirt", "pack", "of", "six", "large", "small", "coffee", "beans"]


def save_tiny_clip(
    folder: Path, seed: int = 0, preprocess: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """An open_clip model as `push_to_hf_hub` lays it out: `open_clip_config.json` and safetensors."""
    import open_clip.factory
    import torch
    from safetensors.torch import save_file

    config = {**TINY_CLIP, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": CLIP_PREPROCESS if preprocess is None else preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(seed)
    model = open_clip.factory.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def save_tiny_tokenizer(folder: Path, **options: Any) -> Path:
    """A WordPiece tokenizer of a few words with BERT's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [c for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for c in (letter, f"##{letter}")]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS, *letters])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)
    )
    PreTrainedTokenizerFast(tokenizer_object=backend, **names, **options).save_pretrained(folder)
    return folder


def save_tiny_bert(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A BERT with its tokenizer, as `save_pretrained` lays it out."""
    import torch
    from transformers import BertConfig, BertModel

    save_tiny_tokenizer(folder)
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    BertModel(BertConfig(**{**sizes, **changes})).save_pretrained(folder)
    return folder


def save_tiny_sentence_model(
    folder: Path,
    seed: int = 0,
    max_tokens: int = 24,
    pooling: str = "mean",
    dense: int | None = None,
    **changes: Any,
) -> Path:
    """A sentence-transformers model: `save_tiny_bert`, pooling, a dense layer to so many numbers, unit length."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    bert = save_tiny_bert(folder.with_name(folder.name + "-bert"), seed, **changes)
    transformer = Transformer(str(bert), max_seq_length=max_tokens)
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, pooling), *([Dense(width, dense)] if dense else []), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def save_tiny_timm(folder: Path, seed: int = 0, architecture: str = "resnet10t", **settings: Any) -> Path:
    """A timm model as `push_to_hf_hub` lays it out, 32 pixels unless `settings` say otherwise."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(seed)
    cfg = {
        "input_size": (3, 32, 32),
        "crop_pct": 0.875,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        **settings,
    }
    model = timm.create_model(architecture, num_classes=7, pretrained_cfg_overlay={**cfg, "num_classes": 7})
    save_for_hf(model, str(folder), safe_serialization=True)
    return folder


def fake_hub_cache(cache: Path, repo: str, files: dict[str, bytes]) -> Path:
    """A repository in a Hugging Face hub cache; returns its snapshot folder."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(snapshot.name)
    for name, content in files.items():
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return snapshot
