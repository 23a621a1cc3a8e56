"""Every family of encoders that people will choose: what is cached is what the model's own library gives, a line a family."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image

from embed.encoders.base import Sources
from embed.encoders.registry import library_of
from embed.encoders.resolve import resolve
from embed.forward.devices import DeviceSettings
from embed.forward.engine import Engine
from embed.forward.precision import worst_cosine
from embed.inputs.batch import ImageReader, RowWindow
from store.workspace import Workspace
from tests import family_models as of
from tests.fake_images import encoded, photo
from tests.family_models import TEXTS

CLOSE = 0.9999
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


@dataclass(frozen=True)
class TextFamily:
    """How a model is saved, by which address it is named, and what its own library gives for `TEXTS`."""

    name: str
    save: Callable[[Path], Path]  # into a folder of that very name
    address: str  # with the folder in place of {}
    theirs: Callable[[Path], np.ndarray]
    prompt: str = ""


def st(transformer: Callable[[Path], Path], *more, **settings) -> Callable[[Path], Path]:
    return lambda folder: of.as_sentence_model(
        transformer(folder.with_name(f"{folder.name}-parts")), folder, *more, **settings
    )


def documents(**options) -> Callable[[Path], np.ndarray]:
    return lambda folder: of.sentence_vectors(folder, TEXTS, **options)


def hidden(pool: Callable, **options) -> Callable[[Path], np.ndarray]:
    return lambda folder: of.hidden_vectors(folder, TEXTS, pool, **options)


def first(states):
    return states[0]


def mean(states):
    return states.mean(0)


def last(states):
    return states[-1]


def cut(folder):
    """Whose own files say that vectors are cut."""
    of.set_json(folder / "config_sentence_transformers.json", truncate_dim=8)
    return folder


PASSAGE, GEMMA, SEARCH = "passage: ", "title: none | text: ", "search_document: "
PROMPTS = {"query": "task: search result | query: ", "document": GEMMA}
INSTRUCT = "Represent the document for retrieval: "
TEXT_FAMILIES = [
    TextFamily("minilm", st(of.bert), "st:{}", documents()),
    TextFamily("bge-small-en-v1.5", st(of.bert, "cls"), "st:{}", documents()),
    TextFamily("bge-m3", st(of.xlm_roberta, "cls"), "st:{}", documents()),
    TextFamily("e5-base-v2", st(of.bert), "st:{}", documents(prompt=PASSAGE), PASSAGE),
    TextFamily("multilingual-e5-large", st(of.xlm_roberta), "st:{}", documents(prompt=PASSAGE), PASSAGE),
    TextFamily("multilingual-e5-large-instruct", st(of.xlm_roberta), "st:{}", documents()),
    TextFamily("e5-small", of.bert, "hf:{}?max_tokens=24", hidden(mean, prompt=PASSAGE), PASSAGE),
    TextFamily("nomic-embed-text-v1.5", st(of.nomic), "st:{}", documents(prompt=SEARCH), SEARCH),
    TextFamily("modernbert-embed-base", st(of.modernbert), "st:{}", documents(prompt=SEARCH), SEARCH),
    TextFamily(
        "embeddinggemma-300m",
        st(of.gemma_encoder, "mean", (48, 32), prompts=PROMPTS),
        "st:{}",
        documents(),
        GEMMA,
    ),
    TextFamily("embeddinggemma-300m-copy", st(of.gemma_encoder), "st:{}", documents(prompt=GEMMA), GEMMA),
    TextFamily(
        "registers-a-default",
        lambda folder: of.with_prompts(folder, prompts={"any": "about: "}, default_prompt_name="any"),
        "st:{}",
        documents(method="encode"),
        "about: ",
    ),
    TextFamily(
        "nomic-embed-text-v2-moe",
        lambda folder: of.with_prompts(folder, prompts={"query": "q: ", "passage": "p: "}),
        "st:{}",
        documents(prompt_name="passage"),
        "p: ",
    ),
    TextFamily(
        "instructor-base",
        st(of.t5, max_tokens=64),
        "st:{}",
        documents(prompt=INSTRUCT, pools_prompt=False),
        INSTRUCT,
    ),
    TextFamily(
        "leaves-prompts-out",
        st(of.t5, {"pooling_mode": "mean", "include_prompt": False}),
        "st:{}?prompt=about: ",
        documents(prompt="about: "),
        "about: ",
    ),
    TextFamily(
        "qwen3-embedding", st(of.decoder, "lasttoken", prompts={"query": "Instruct: "}), "st:{}", documents()
    ),
    TextFamily(
        "jina-embeddings-v5-text-small-retrieval",
        st(of.decoder, "lasttoken", prompts={"query": "Query: ", "document": "Document: "}),
        "st:{}",
        documents(),
        "Document: ",
    ),
    TextFamily("qwen3-embedding-hf", of.decoder, "hf:{}?max_tokens=24", hidden(last)),
    TextFamily(
        "e5-mistral", lambda folder: of.decoder(folder, "Mistral"), "hf:{}?max_tokens=24", hidden(last)
    ),
    TextFamily(
        "gte-qwen2",
        st(lambda folder: of.decoder(folder, "Qwen2", is_causal=False), "lasttoken"),
        "st:{}",
        documents(),
    ),
    TextFamily("bert-by-cls", of.bert, "hf:{}?pooling=cls&max_tokens=24", hidden(first)),
    TextFamily("t5", st(of.t5), "st:{}", documents()),
    TextFamily(
        "jina-embeddings-v3-hf",
        of.jina_v3,
        "hf:{}?task=retrieval_passage&max_tokens=24",
        lambda folder: of.adapted_vectors(folder, "retrieval_passage", TEXTS),
    ),
    TextFamily("static-retrieval", of.static, "st:{}", documents()),
    TextFamily("static-cut", lambda folder: cut(of.static(folder)), "st:{}", documents()),
    TextFamily("potion-alone", of.model2vec, "st:{}", lambda folder: of.model2vec_vectors(folder, TEXTS)),
]

# One of each architecture runs in the mode that is measured to be the fastest, converted where that is; the others
# differ from it in prompt and pooling and run as a few rows do, without measuring.
MEASURED = ("minilm", "bge-m3", "qwen3-embedding", "gte-qwen2", "t5", "jina-embeddings-v3-hf", "potion-alone")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def resolved_of(workspace, address):
    (one,) = resolve(workspace, address, Sources(offline=True), "fp32")
    return one


def our_vectors(workspace, resolved, contents, images=None, budget=64, **settings):
    """As the job makes them: sorted, padded, several batches of mixed lengths."""
    (encoder,) = library_of(resolved.address).load([resolved])
    device = DeviceSettings((DEVICE,), batch_tokens=budget, batch_images=2, **settings)
    engine = Engine(workspace, encoder.spec, lambda: encoder, DEVICE, device)
    keys = [bytes([at]) * 16 for at in range(len(contents))]
    window = RowWindow("tested", keys, contents, images)
    engine.begin(window, len(keys))
    found = {}
    for batch, vectors in engine.encode(engine.batches(iter([window]))):
        assert not batch.failures, batch.failures
        found.update(zip(batch.keys, vectors, strict=True))
    return np.stack([found[key] for key in keys])


@pytest.mark.parametrize("family", TEXT_FAMILIES, ids=lambda family: family.name)
def test_texts_get_the_vectors_of_the_models_own_library(family, workspace, tmp_path):
    folder = family.save(tmp_path / family.name)
    resolved = resolved_of(workspace, family.address.format(folder))
    ours = our_vectors(workspace, resolved, TEXTS, always_measured=family.name in MEASURED)
    assert worst_cosine(ours, family.theirs(folder)) >= CLOSE
    assert resolved.spec.preprocessing["prompt"] == family.prompt
    assert ours.shape[1] == resolved.spec.dim


@pytest.mark.parametrize("save", [of.static, of.model2vec])
def test_texts_without_any_token_get_zeros_whatever_texts_are_beside_them(save, workspace, tmp_path):
    resolved = resolved_of(workspace, f"st:{save(tmp_path / 'model')}")
    assert not our_vectors(workspace, resolved, ["", "  "]).any()
    beside = our_vectors(workspace, resolved, ["", "red"])
    assert (beside.any(axis=1) == [False, True]).all()


# ---- images --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageFamily:
    """How a model is saved, by which address it is named, and what its own library gives for some images."""

    name: str
    save: Callable[[Path], Path]
    address: str
    theirs: Callable[[Path, list[Image.Image]], np.ndarray]
    texts: Callable[[Path], np.ndarray] | None = None  # of its other tower


def towers(**options):
    return lambda folder, images: of.tower_vectors(folder, images, **options)


def token(found):
    return found.last_hidden_state[:, 0]


def patches(found):
    return found.last_hidden_state[:, 3:].mean(1)  # after the class token and two registers


def pooled(found):
    return found.pooler_output.flatten(1)


def of_clip_module(folder):
    return folder / "0_CLIPModel"


def of_open_clip(name: str, architecture: str, tag: str) -> ImageFamily:
    return ImageFamily(
        name,
        of.open_clip_as(architecture, tag),
        "open_clip:{}",
        of.open_clip_vectors,
        lambda folder: of.open_clip_vectors(folder, TEXTS, texts=True),
    )


IMAGE_FAMILIES = [
    of_open_clip("clip-vit-l14", "ViT-L-14", "openai"),
    of_open_clip("clip-vit-h14", "ViT-H-14", "laion2b_s32b_b79k"),
    of_open_clip("dfn5b", "ViT-H-14-378-quickgelu", "dfn5b"),
    of_open_clip("siglip2-open-clip", "ViT-SO400M-16-SigLIP2-384", "webli"),
    of_open_clip("marqo-ecommerce", "ViT-B-16-SigLIP", "webli"),
    of_open_clip("pe-core-open-clip", "PE-Core-L-14-336", "meta"),
    of_open_clip("metaclip2-worldwide", "ViT-H-14-worldwide-378", "metaclip2_worldwide"),
    of_open_clip("eva02", "EVA02-L-14-336", "merged2b_s6b_b61k"),
    of_open_clip("mobileclip2", "MobileCLIP2-S0", "dfndr2b"),
    ImageFamily(
        "dinov3-timm", of.dinov3_timm, "timm:{}", lambda f, i: of.timm_vectors(f, i, global_pool="token")
    ),
    ImageFamily("dinov3-timm-avg", of.dinov3_timm, "timm:{}?pooling=avg", lambda f, i: of.timm_vectors(f, i)),
    ImageFamily("dinov2-timm", of.dinov2_timm, "timm:{}", lambda f, i: of.timm_vectors(f, i)),
    ImageFamily(
        "siglip-timm",
        of.siglip_timm,
        "timm:{}",
        lambda f, i: of.timm_vectors(f, i, of.squash(224, "bicubic")),
    ),
    ImageFamily(
        "siglip-timm-center",
        of.siglip_timm,
        "timm:{}?crop_mode=center&crop_pct=0.9",
        lambda f, i: of.timm_vectors(f, i),
    ),
    ImageFamily(
        "pe-core-timm",
        of.pe_timm,
        "timm:{}",
        lambda f, i: of.timm_vectors(f, i, of.squash(64, "bilinear"), 24),
    ),
    ImageFamily("naflex-timm", of.naflex_timm, "timm:{}", lambda f, i: of.naflex_vectors(f, i, 36)),
    ImageFamily(
        "naflex-timm-64", of.naflex_timm, "timm:{}?max_patches=64", lambda f, i: of.naflex_vectors(f, i, 64)
    ),
    ImageFamily("dinov2", of.dinov2, "hf:{}", lambda f, i: of.pooled_vectors(f, i, token)),
    ImageFamily("dinov3", of.dinov3, "hf:{}", lambda f, i: of.pooled_vectors(f, i, token)),
    ImageFamily("dinov3-avg", of.dinov3, "hf:{}?pooling=avg", lambda f, i: of.pooled_vectors(f, i, patches)),
    ImageFamily("vit", of.vit, "hf:{}", lambda f, i: of.pooled_vectors(f, i, token)),
    ImageFamily("convnextv2", of.convnext, "hf:{}", lambda f, i: of.pooled_vectors(f, i, pooled)),
    ImageFamily("clip", of.clip, "hf:{}", towers(), lambda f: of.tower_vectors(f, TEXTS)),
    ImageFamily("metaclip2", of.metaclip2, "hf:{}", towers(), lambda f: of.tower_vectors(f, TEXTS)),
    ImageFamily("siglip2", of.siglip, "hf:{}", towers(), lambda f: of.tower_vectors(f, TEXTS, "max_length")),
    ImageFamily(
        "siglip2-naflex",
        of.siglip2_naflex,
        "hf:{}",
        towers(),
        lambda f: of.tower_vectors(f, TEXTS, "max_length"),
    ),
    ImageFamily("siglip2-naflex-9", of.siglip2_naflex, "hf:{}?max_patches=9", towers(max_num_patches=9)),
    ImageFamily(
        "clip-ViT-B-32",
        of.sentence_clip,
        "st:{}",
        lambda f, i: of.tower_vectors(of_clip_module(f), i),
        lambda f: of.tower_vectors(of_clip_module(f), TEXTS),
    ),
    ImageFamily(
        "clip-cut",
        lambda folder: cut(of.sentence_clip(folder, max_tokens=12)),
        "st:{}?normalize=no",
        of.sentence_vectors,
        documents(),
    ),
]


def synthetic_images():
    sizes = ((160, 160), (240, 160), (130, 190), (233, 247), (300, 200))
    return [encoded(photo(*size, seed), "PNG") for seed, size in enumerate(sizes)]


@cache
def photos():
    """Two photos that scikit-learn ships, and parts of them as JPEGs, so small that they are decoded in full."""
    china, flower = (Image.open(PHOTOS / name) for name in ("china.jpg", "flower.jpg"))
    boxes = ((0, 0, 180, 180), (300, 120, 480, 280), (60, 200, 240, 350))
    parts = [photo.crop(box) for photo, box in zip((china, flower, china), boxes, strict=True)]
    return [encoded(china, "PNG"), encoded(flower, "PNG"), *(encoded(part, quality=90) for part in parts)]


def check_images(family, workspace, folder, contents, close=CLOSE, **settings):
    found = resolve(workspace, family.address.format(folder), Sources(offline=True), "fp32")
    reader = ImageReader(lambda at: contents[int(at)])
    names = [str(at) for at in range(len(contents))]
    ours = our_vectors(workspace, found[0], names, reader, budget=80, **settings)
    images = [Image.open(BytesIO(content)).convert("RGB") for content in contents]
    theirs = family.theirs(folder, images)
    assert worst_cosine(ours, theirs) >= close
    mean = theirs.mean(
        axis=0
    )  # a network of noise gives all images much in common: what they do not is as close
    assert worst_cosine(ours - mean, theirs - mean) >= 0.99
    assert ours.shape[1] == found[0].spec.dim
    return found


@pytest.mark.parametrize("family", IMAGE_FAMILIES, ids=lambda family: family.name)
def test_images_and_their_texts_get_the_vectors_of_the_models_own_library(family, workspace, tmp_path):
    folder = family.save(tmp_path / family.name)
    found = check_images(family, workspace, folder, synthetic_images())
    assert len(found) == 1 + (family.texts is not None or "naflex-9" in family.name)
    if family.texts is not None:
        ours = our_vectors(workspace, found[1], TEXTS)
        assert worst_cosine(ours, family.texts(folder)) >= CLOSE


# Their preprocessing is, but for sizes, that of another family of the list.
PREPARED_AS_OTHERS = ("clip-vit-h14", "dfn5b", "marqo-ecommerce", "metaclip2-worldwide", "eva02")
PHOTO_FAMILIES = [family for family in IMAGE_FAMILIES if family.name not in PREPARED_AS_OTHERS]


@pytest.mark.parametrize("family", PHOTO_FAMILIES, ids=lambda family: family.name)
def test_photos_are_prepared_as_the_models_own_library_prepares_them(family, workspace, tmp_path):
    folder = family.save(tmp_path / family.name)
    check_images(family, workspace, folder, photos(), always_measured=False)


# ---- images and texts in one vector --------------------------------------------------------------


@dataclass(frozen=True)
class JointFamily:
    """How a model is saved, by which address it is named, and what its own library gives for some rows."""

    name: str
    save: Callable[[Path], Path]
    address: str
    theirs: Callable[[Path, list[dict]], np.ndarray]


def seeing(transformer: Callable[[Path], Path], pooling: str, **settings) -> Callable[[Path], Path]:
    return lambda folder: of.as_sentence_model(
        transformer(folder.with_name("parts")), folder, pooling, max_tokens=None, **settings
    )


def qwen25(folder):
    return of.qwen_vl(folder, "Qwen2_5_VL")


def flat_qwen25(folder):
    """As older versions save it: what concerns texts stands beside the configuration of the images."""
    qwen25(folder)
    config = json.loads((folder / "config.json").read_text())
    text = {key: value for key, value in config.pop("text_config").items() if key not in config}
    of.set_json(folder / "config.json", text_config=None, **text)
    return folder


ASKED = {"document": "represent this product"}
JOINT_FAMILIES = [
    JointFamily("qwen3-vl-embedding", seeing(of.qwen_vl, "lasttoken"), "st:{}", of.message_vectors),
    JointFamily(
        "qwen3-vl-instructed", seeing(of.qwen_vl, "lasttoken", prompts=ASKED), "st:{}", of.message_vectors
    ),
    JointFamily(
        "qwen3-vl-own-prompt",
        seeing(of.qwen_vl, "lasttoken"),
        "st:{}?prompt=red of",
        lambda f, r: of.message_vectors(f, r, prompt="red of"),
    ),
    JointFamily(
        "qwen3-vl-truncated",
        seeing(of.qwen_vl, "lasttoken"),
        "st:{}?max_tokens=50",
        lambda f, r: of.message_vectors(f, r, 50),
    ),
    JointFamily("embeddinggemma-2", seeing(of.embedding_gemma2, "mean"), "st:{}", of.message_vectors),
    JointFamily("qwen2.5-vl", qwen25, "hf:{}", of.chat_vectors),
    JointFamily("qwen2.5-vl-flat", flat_qwen25, "hf:{}", of.chat_vectors),
    JointFamily("qwen3-vl", of.qwen_vl, "hf:{}", of.chat_vectors),
]


def joint_rows():
    """Rows with both, with one of the two, of many lengths: as the job hands them over, and as libraries take them."""
    images = [photo(40, 60, 0), photo(64, 64, 1), photo(90, 50, 2)]
    texts = ["red cotton shirt", "small red green blue " * 9, "x"]
    both = [
        (images[0], texts[0]),
        (images[1], texts[1]),
        (images[2], None),
        (None, texts[1]),
        (None, texts[2]),
    ]
    contents = [f"{images.index(image) if image else ''}\n{text or ''}" for image, text in both]
    given = [{"image": image, "text": text} for image, text in both]
    rows = [{key: value for key, value in row.items() if value is not None} for row in given]
    return contents, ImageReader(lambda at: encoded(images[int(at)], "PNG")), rows


@pytest.mark.parametrize("family", JOINT_FAMILIES, ids=lambda family: family.name)
def test_images_with_texts_get_the_vectors_of_the_models_own_library(family, workspace, tmp_path):
    folder = family.save(tmp_path / family.name)
    resolved = resolved_of(workspace, family.address.format(folder))
    contents, reader, rows = joint_rows()
    ours = our_vectors(workspace, resolved, contents, reader, budget=150)
    assert worst_cosine(ours, family.theirs(folder, rows)) >= CLOSE
    alone = our_vectors(workspace, resolved, [row["text"] for row in rows if "text" in row])
    assert worst_cosine(alone[-2:], ours[-2:]) >= CLOSE  # a row without an image is its text alone
    assert resolved.spec.modality == "joint"
