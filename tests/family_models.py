"""Tiny random models of the families that people choose, saved as their authors save them, and what their own libraries give."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fake_models import WORDS, save_tiny_bert, save_tiny_clip, save_tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
DECODER: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}
MAX_TOKENS = 24
IMAGE_SPREAD = 0.08  # of weights: beyond, a network of noise makes much of a pixel that was rounded otherwise
Vectors = np.ndarray


def save(model: Any, folder: Path, spread: float = 0.15, **tokenizer: Any) -> Path:
    """A transformers model with random weights of some spread, and a tokenizer where options are given."""
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():  # initial weights are so small that everything looks alike
        torch.nn.init.normal_(parameter, 0.02 if parameter.ndim == 1 else spread)
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() and parameter.ndim == 1 and name.endswith("weight"):
            torch.nn.init.normal_(parameter, 1.0, 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if tokenizer:
        save_tiny_tokenizer(folder, **tokenizer)
    return folder


def as_sentence_model(
    transformer: Path,
    folder: Path,
    pooling: Any = "mean",
    dense: Sequence[int] = (),
    max_tokens: int | None = MAX_TOKENS,
    **settings: Any,
) -> Path:
    """A transformers folder as sentence-transformers saves it; `settings` as `SentenceTransformer` takes them."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    first = Transformer(str(transformer), max_seq_length=max_tokens)
    options = pooling if isinstance(pooling, dict) else {"pooling_mode": pooling}
    text = getattr(first.config, "text_config", first.config)
    width = getattr(text, "embedding_dim", None) or first.get_embedding_dimension()
    modules: list[Any] = [first, Pooling(width, **options)]
    torch.manual_seed(1)
    for out in dense:
        modules.append(Dense(width, out, bias=False, activation_function=torch.nn.Identity()))
        width = out
    SentenceTransformer(modules=[*modules, Normalize()], device="cpu", **settings).save(str(folder))
    return folder


def sentence_vectors(
    folder: Path,
    texts: Sequence[Any],
    pools_prompt: bool = True,
    method: str = "encode_document",
    **options: Any,
) -> Vectors:
    """As sentence-transformers embeds documents."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    if not pools_prompt:
        model.set_pooling_include_prompt(False)
    return np.asarray(getattr(model, method)(list(texts), **options))


def hidden_vectors(
    folder: Path, texts: Sequence[str], pool: Callable[[Any], Any], prompt: str = ""
) -> Vectors:
    """As transformers gives hidden states, one text at a time: no padding at all."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()
    found = []
    for text in texts:
        inputs = tokenizer(prompt + text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            found.append(pool(model(**inputs).last_hidden_state[0]).numpy())
    return np.stack(found)


def set_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    described = json.loads(path.read_text()) if path.is_file() else {}
    described |= changes
    path.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))


# ---- texts ---------------------------------------------------------------------------------------


def bert(folder: Path) -> Path:
    return save_tiny_bert(folder, num_hidden_layers=2)


def decoder(folder: Path, kind: str = "Qwen3", **changes: Any) -> Path:
    """A model that goes on with a text, padded on the left as its authors do."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**DECODER, **changes})
    return save(getattr(transformers, f"{kind}Model")(config), folder, padding_side="left")


def gemma_encoder(folder: Path) -> Path:
    """EmbeddingGemma's kind: a Gemma 3 that attends in both directions."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    config = Gemma3TextConfig(**DECODER, use_bidirectional_attention=True, sliding_window=8)
    return save(Gemma3TextModel(config), folder, padding_side="right")


def modernbert(folder: Path) -> Path:
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        **SIZES, max_position_embeddings=128, pad_token_id=0, cls_token_id=2, sep_token_id=3
    )
    return save(ModernBertModel(config), folder, padding_side="right")


def nomic(folder: Path) -> Path:
    from transformers import NomicBertConfig, NomicBertModel

    config = NomicBertConfig(**SIZES, max_position_embeddings=128, head_dim=16, pad_token_id=0)
    return save(NomicBertModel(config), folder, padding_side="right")


def t5(folder: Path) -> Path:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=200, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return save(T5EncoderModel(config), folder, padding_side="right")


def xlm_roberta(folder: Path) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(**SIZES, max_position_embeddings=130, pad_token_id=0)
    return save(XLMRobertaModel(config), folder, padding_side="right")


def jina_v3(folder: Path) -> Path:
    """The native version of jina-embeddings-v3, with an adapter in a folder of its own for each task."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

    config = JinaEmbeddingsV3Config(**SIZES, max_position_embeddings=130, pad_token_id=0)
    save(JinaEmbeddingsV3Model(config), folder, padding_side="right")
    for seed, task in enumerate(("retrieval_passage", "classification")):
        adapted = get_peft_model(
            AutoModel.from_pretrained(folder), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
        )
        torch.manual_seed(seed)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(str(folder / task))
    return folder


def adapted_vectors(folder: Path, task: str, texts: Sequence[str]) -> Vectors:
    """As transformers' documentation loads a task's adapter."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    model.load_adapter(str(folder / task), adapter_name=task)
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state[0].mean(0).numpy())
    return np.stack(found)


def with_prompts(folder: Path, **described: Any) -> Path:
    """A model that registers these prompts alone, as older versions of the library save them."""
    as_sentence_model(bert(folder.with_name("parts")), folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps(described))
    return folder


def static(folder: Path) -> Path:
    """A static model of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    save_tiny_tokenizer(folder.with_name("tokenizer"))
    backend = Tokenizer.from_file(str(folder.with_name("tokenizer") / "tokenizer.json"))
    rows = np.random.default_rng(0).normal(size=(backend.get_vocab_size(), 16)).astype(np.float32)
    modules: list[Any] = [StaticEmbedding(backend, embedding_weights=rows), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def model2vec(folder: Path, **changes: Any) -> Path:
    """A model of model2vec alone, quantised in its vocabulary."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    save_tiny_tokenizer(folder.with_name("tokenizer"))
    backend = Tokenizer.from_file(str(folder.with_name("tokenizer") / "tokenizer.json"))
    random, n = np.random.default_rng(0), backend.get_vocab_size()
    model = StaticModel(
        random.normal(size=(20, 16)).astype(np.float32),
        backend,
        weights=random.uniform(0.5, 1.5, n).astype(np.float32),
        token_mapping=random.integers(0, 20, n),
        normalize=True,
        max_length=MAX_TOKENS,
    )
    model.save_pretrained(folder)
    set_json(folder / "config.json", model_type="model2vec")
    for name in ("modules.json",):
        (folder / name).unlink(missing_ok=True)
    return folder


def model2vec_vectors(folder: Path, texts: Sequence[str]) -> Vectors:
    from model2vec import StaticModel

    return np.asarray(StaticModel.from_pretrained(folder).encode(list(texts)))


TEXTS = [
    "red cotton shirt",
    "green coffee beans pack of six",
    "blue",
    "small red green blue " * 12,  # truncated
    "Größe 42 — 6 × 330 ml zz",
    " ".join(WORDS),
]


# ---- images --------------------------------------------------------------------------------------


def timm_model(
    folder: Path, architecture: str, tag: str = "", n_classes: int = 0, args: Any = None, **cfg: Any
) -> Path:
    """A timm model as `push_to_hf_hub` lays it out."""
    import timm
    import torch
    from timm.models import save_for_hf

    cfg = {"tag": tag, "num_classes": n_classes, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **cfg}
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=n_classes, pretrained_cfg_overlay=cfg, **(args or {}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.15)
    save_for_hf(model, str(folder), model_args=dict(args or {}), safe_serialization=True)
    return folder


TINY_VIT: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2}


def dinov3_timm(folder: Path) -> Path:
    return timm_model(
        folder, "vit_small_patch16_dinov3", "lvd1689m", args=TINY_VIT, input_size=(3, 64, 64), crop_pct=1.0
    )


def dinov2_timm(folder: Path) -> Path:
    args = {**TINY_VIT, "img_size": 56}
    return timm_model(
        folder, "vit_small_patch14_dinov2", "lvd142m", args=args, input_size=(3, 56, 56), crop_pct=1.0
    )


def siglip_timm(folder: Path) -> Path:
    return timm_model(
        folder,
        "vit_base_patch16_siglip_224",
        "v2_webli",
        args=TINY_VIT,
        input_size=(3, 224, 224),
        crop_pct=0.9,
    )


def pe_timm(folder: Path) -> Path:
    args = {**TINY_VIT, "attn_pool_num_heads": 2, "img_size": 64, "ref_feat_shape": (4, 4)}
    return timm_model(
        folder, "vit_pe_core_tiny_patch16_384", "fb", 24, args, input_size=(3, 64, 64), crop_pct=1.0
    )


def naflex_timm(folder: Path) -> Path:
    return timm_model(
        folder,
        "naflexvit_base_patch16_siglip",
        "v2_webli",
        args=TINY_VIT,
        input_size=(3, 96, 96),
        crop_pct=1.0,
    )


def timm_vectors(
    folder: Path, images: Sequence[Any], transform: Any = None, n_classes: int = 0, **options: Any
) -> Vectors:
    """As timm embeds: its own head, and its own transform unless another is what the weights were trained with."""
    import timm
    import torch

    model: Any = timm.create_model(
        f"local-dir:{folder}", pretrained=True, num_classes=n_classes, **options
    ).eval()
    transform = transform or timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        return np.stack([model(transform(image)[None])[0].numpy() for image in images])


def naflex_vectors(folder: Path, images: Sequence[Any], patches: int) -> Vectors:
    import timm
    import torch
    from timm.data.naflex_dataset import NaFlexCollator

    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform: Any = timm.data.create_transform(
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        naflex=True,
        patch_size=(16, 16),
        max_seq_len=patches,
        patchify=True,
    )
    inputs, _ = NaFlexCollator(max_seq_len=patches)([(transform(image), 0) for image in images])
    with torch.no_grad():
        return np.asarray(model(inputs).numpy())


def squash(size: int, interpolation: str) -> Any:
    """Both sides to one size, the aspect not kept, as SigLIP and PE were trained."""
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    normalize = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
    return transforms.Compose([transforms.Resize((size, size), mode), transforms.ToTensor(), normalize])


def open_clip_as(name: str, tag: str) -> Callable[[Path], Path]:
    """Saves a model of open_clip: its configuration and preprocessing as the library has them, but for the sizes."""

    def save(folder: Path) -> Path:
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg

        config, trained = open_clip.get_model_config(name), get_pretrained_cfg(name, tag)
        vision: dict[str, Any] = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
        if "timm_model_name" in config["vision_cfg"]:
            vision = {**config["vision_cfg"], "timm_model_name": "test_vit"}
        text = {**config["text_cfg"], "width": 32, "heads": 2, "layers": 1}
        if "hf_tokenizer_name" in text:
            save_tiny_tokenizer(folder)
            text["vocab_size"] = 200
        quick = bool(trained.get("quick_gelu") or config.get("quick_gelu"))
        changes = {**config, "embed_dim": 64, "vision_cfg": {**vision, "image_size": 64}, "text_cfg": text}
        preprocess = {key: trained[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        return save_tiny_clip(folder, preprocess=preprocess, **{**changes, "quick_gelu": quick})

    return save


def open_clip_vectors(folder: Path, contents: Sequence[Any], texts: bool = False) -> Vectors:
    """As open_clip embeds: its own transform, or its own tokenizer."""
    import open_clip
    import torch

    made: Any = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model, _, transform = made
    model.eval()
    with torch.no_grad():
        if texts:
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(contents))
            return np.asarray(model.encode_text(tokens).numpy())
        return np.asarray(model.encode_image(torch.stack([transform(one) for one in contents])).numpy())


def processed(folder: Path, kind: str, model: Any, **processor: Any) -> Path:
    """A transformers model of images with its processor."""
    import transformers

    save(model, folder, IMAGE_SPREAD)
    getattr(transformers, f"{kind}ImageProcessor")(**processor).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(**{**VISION, "mlp_ratio": 2, "image_size": 32}))
    sizes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    return processed(folder, "Bit", model, **sizes, image_mean=[0.48] * 3, image_std=[0.22] * 3)


def dinov3(folder: Path) -> Path:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    model = DINOv3ViTModel(DINOv3ViTConfig(**VISION, num_register_tokens=2, image_size=32))
    return processed(folder, "DINOv3ViT", model, size={"height": 32, "width": 32})


def vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    return processed(
        folder, "ViT", ViTModel(ViTConfig(**VISION, image_size=32)), size={"height": 32, "width": 32}
    )


def convnext(folder: Path) -> Path:
    """Its processor crops by a share of its own, so that it prepares the images itself."""
    from transformers import ConvNextV2Config, ConvNextV2Model

    model = ConvNextV2Model(ConvNextV2Config(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1]))
    return processed(folder, "ConvNext", model, size={"shortest_edge": 64}, crop_pct=0.875)


def two_towers(folder: Path, kind: str, processor: str, image: Any, **tokenizer: Any) -> Path:
    """A transformers model with a tower for images and one for texts."""
    import transformers

    text = {**SIZES, "max_position_embeddings": 20, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    more = {"projection_dim": 24} if "CLIP" in kind.upper() else {}
    vision = {**VISION, "image_size": 32} if kind != "Siglip2" else {**VISION, "num_patches": 16}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, **more)
    save(getattr(transformers, f"{kind}Model")(config), folder, IMAGE_SPREAD, **tokenizer)
    getattr(transformers, f"{processor}ImageProcessor")(**image).save_pretrained(folder)
    set_json(folder / "processor_config.json", processor_class=f"{processor}Processor")
    return folder


CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
SQUASHED = {"size": {"height": 32, "width": 32}}


def clip(folder: Path) -> Path:
    return two_towers(folder, "CLIP", "CLIP", CROPPED, padding_side="right")


def metaclip2(folder: Path) -> Path:
    return two_towers(folder, "MetaClip2", "CLIP", CROPPED, padding_side="right")


def siglip(folder: Path) -> Path:
    """Fixed size, as the SigLIP 2 checkpoints are saved too: no mask over the padding."""
    return two_towers(
        folder,
        "Siglip",
        "Siglip",
        SQUASHED,
        padding_side="right",
        model_max_length=20,
        model_input_names=["input_ids"],
    )


def siglip2_naflex(folder: Path) -> Path:
    image = {"patch_size": 8, "max_num_patches": 16}
    return two_towers(
        folder,
        "Siglip2",
        "Siglip2",
        image,
        padding_side="right",
        model_max_length=20,
        model_input_names=["input_ids"],
    )


def tower_vectors(folder: Path, inputs: Sequence[Any], padding: Any = True, **images: Any) -> Vectors:
    """As transformers embeds images, or texts, by processor and model."""
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if isinstance(inputs[0], str):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            made = tokenizer(
                list(inputs), padding=padding, truncation=True, max_length=20, return_tensors="pt"
            )
            made.pop("token_type_ids", None)
            return np.asarray(model.get_text_features(**made).pooler_output)
        processor = AutoImageProcessor.from_pretrained(folder)
        made = processor(images=list(inputs), return_tensors="pt", **images)
        return np.asarray(model.get_image_features(**made).pooler_output)


def pooled_vectors(folder: Path, images: Sequence[Any], pool: Callable[[Any], Any]) -> Vectors:
    """As transformers embeds images by a model of images alone."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        return np.asarray(pool(model(**processor(images=list(images), return_tensors="pt"))))


def sentence_clip(folder: Path, max_tokens: int | None = None) -> Path:
    """A CLIP folder of sentence-transformers, as older versions save one."""
    clip(folder / "0_CLIPModel")
    if max_tokens:
        set_json(folder / "0_CLIPModel" / "sentence_bert_config.json", max_seq_length=max_tokens)
    modules = [
        {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


# ---- messages: images and texts in one vector ----------------------------------------------------

QWEN_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_TEMPLATE = """{%- if messages[0].role != 'system' -%}<|im_start|>system represent this<|im_end|>{%- endif -%}
{%- for message in messages -%}<|im_start|>{{ message.role }} {% for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>{%- endfor -%}"""
GEMMA_MARKS = ("<|image>", "<image|>", "<|image_mark|>", "<|audio_mark|>", "<|audio>", "<audio|>")
GEMMA_TEMPLATE = """{%- for message in messages -%}{% for part in message.content -%}
{%- if part.type == 'image' -%}<|image_mark|>{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endfor -%}"""


def marked_tokenizer(folder: Path, marks: Sequence[str], **options: Any) -> dict[str, int]:
    """A tokenizer that knows some marks; their ids."""
    from transformers import AutoTokenizer

    save_tiny_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    for name, value in options.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}


def qwen_vl(folder: Path, kind: str = "Qwen3VL") -> Path:
    """A chat model that sees, as its authors save one: Qwen3-VL's or Qwen2.5-VL's kind."""
    import transformers

    ids = marked_tokenizer(folder, QWEN_MARKS, model_max_length=128)
    text = {
        **DECODER,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0},
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    vision |= (
        {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        if kind == "Qwen3VL"
        else {"window_size": 32, "fullatt_block_indexes": [1]}
    )
    config = getattr(transformers, f"{kind}Config")(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    save(getattr(transformers, f"{kind}ForConditionalGeneration")(config), folder)
    sizes = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    image = transformers.Qwen2VLImageProcessor(patch_size=8, merge_size=2, size=sizes)
    video = (
        transformers.Qwen2VLVideoProcessor() if kind != "Qwen3VL" else transformers.Qwen3VLVideoProcessor()
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = getattr(transformers, f"{kind}Processor")
    processor(image, tokenizer, video, chat_template=QWEN_TEMPLATE).save_pretrained(folder)
    return folder


def embedding_gemma2(folder: Path) -> Path:
    """EmbeddingGemma 2's kind, without its audio part."""
    import transformers

    ids = marked_tokenizer(folder, GEMMA_MARKS, model_max_length=128)
    names = ("boi_token", "eoi_token", "image_token", "audio_token", "boa_token", "eoa_token")
    set_json(
        folder / "tokenizer_config.json", extra_special_tokens=dict(zip(names, GEMMA_MARKS, strict=True))
    )
    text = {
        **SIZES,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "embedding_dim": 24,
        "sliding_window": 8,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 16,
        "max_position_embeddings": 256,
        "num_global_key_value_heads": 1,
    }
    vision = {
        "model_type": "gemma4_vision",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "patch_size": 8,
        "pooling_kernel_size": 2,
    }
    config = transformers.EmbeddingGemma2Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        image_token_id=ids["<|image_mark|>"],
        audio_token_id=ids["<|audio_mark|>"],
        boi_token_id=ids["<|image>"],
        eoi_token_id=ids["<image|>"],
        video_token_id=199,
    )
    save(transformers.EmbeddingGemma2Model(config), folder)
    image = transformers.Gemma4ImageProcessor(patch_size=8, max_soft_tokens=70, pooling_kernel_size=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.EmbeddingGemma2Processor(
        transformers.Gemma4AudioFeatureExtractor(),
        image,
        tokenizer,
        transformers.EmbeddingGemma2VideoProcessor(),
        chat_template=GEMMA_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def message_vectors(
    folder: Path, rows: Sequence[dict[str, Any]], max_tokens: int | None = None, **options: Any
) -> Vectors:
    """As sentence-transformers embeds documents that are images, texts, or both."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    if max_tokens is not None:
        model.max_seq_length = max_tokens
    return np.asarray(model.encode_document(list(rows), batch_size=3, **options))


def chat_vectors(folder: Path, rows: Sequence[dict[str, Any]]) -> Vectors:
    """The last token of a chat model's messages, as its processor writes them, one row at a time."""
    import torch
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    found = []
    for row in rows:
        content = [{"type": kind, kind: value} for kind, value in row.items()]
        inputs = processor.apply_chat_template(
            [[{"role": "user", "content": content}]], tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state[0, -1].numpy())
    return np.stack(found)
