"""What decides a vector is found, shown, overridden and refused as documented."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from click.testing import CliRunner

from embed.encoders.base import Address, Sources
from embed.encoders.hub import licence
from embed.encoders.prompts import document_prompt
from embed.encoders.registry import library_of, parse_address
from embed.encoders.resolve import resolve
from embed.encoders.show import show, show_lines
from embed.forward.precision import worst_cosine
from store.cli import main
from store.errors import EncoderError
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, current_spec, publish_current
from store.workspace import Workspace
from tests import family_models as of
from tests.fake_models import fake_hub_cache, save_tiny_bert, save_tiny_sentence_model, save_tiny_timm
from tests.fakes import catalog_table, publish_catalog

SIZES = {"model.safetensors": 75, "pytorch_model.bin": 76, "tf_model.h5": 99}  # bytes of a repository's files
OPEN_CLIP_SIZES = {
    "open_clip_model.safetensors": 170,
    "open_clip_pytorch_model.bin": 171,
    "model.safetensors": 9,
}
OLD_SIZES = {"open_clip_pytorch_model.bin": 390, "pytorch_model.bin": 9}
SHARD_SIZES = {f"model-0000{part}-of-00002.safetensors": 30 for part in (1, 2)} | {
    "consolidated.safetensors": 9
}
OFFLINE = Sources(offline=True)
TRUSTING = Sources(offline=True, trust_remote_code=True)


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path / "workspace")
    publish_catalog(
        made, catalog_table([{"sample_id": i, "name": f"red shirt {i}", "price": 1.0} for i in range(6)])
    )
    return made


@pytest.fixture(scope="module")
def e5(tmp_path_factory):
    return save_tiny_sentence_model(tmp_path_factory.mktemp("models") / "e5-small-v2")


def spec_of(workspace, address, sources=OFFLINE):
    return resolve(workspace, str(address), sources)[0].spec


def told(workspace, *command):
    result = CliRunner().invoke(main, [*command, "-w", workspace.root], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# ---- prompts -------------------------------------------------------------------------------------


def test_a_prompt_that_is_given_keeps_its_last_blank_and_an_empty_one_switches_prompts_off(workspace, e5):
    prompts = {
        address: spec_of(workspace, f"{e5}{address}").preprocessing["prompt"]
        for address in ("", "?prompt=query: ", "?prompt=query:+", "?prompt=")
    }
    assert list(prompts.values()) == ["passage: ", "query: ", "query: ", ""]


def test_no_prompt_is_the_recipe_that_vectors_had_before_prompts_were_known(workspace, e5, tmp_path):
    plain = shutil.copytree(e5, tmp_path / "plain")
    assert spec_of(workspace, f"{e5}?prompt=").fingerprint == spec_of(workspace, plain).fingerprint
    assert spec_of(workspace, e5).fingerprint != spec_of(workspace, plain).fingerprint


def test_a_registered_prompt_is_chosen_by_its_name(workspace, tmp_path):
    folder = of.with_prompts(tmp_path / "named", prompts={"query": "q: ", "clustering": "c: "})
    assert spec_of(workspace, folder).preprocessing["prompt"] == ""
    assert spec_of(workspace, f"{folder}?prompt_name=clustering").preprocessing["prompt"] == "c: "
    with pytest.raises(EncoderError, match="no prompt 'passage' is registered, one of clustering, query"):
        spec_of(workspace, f"{folder}?prompt_name=passage")
    with pytest.raises(EncoderError, match="give prompt or prompt_name, not both"):
        spec_of(workspace, f"{folder}?prompt_name=query&prompt=x")


@pytest.mark.parametrize(
    "model, prompt",
    [
        ("intfloat/e5-large", "passage: "),
        ("intfloat/multilingual-e5-small", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", ""),
        ("intfloat/e5-mistral-7b-instruct", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_document: "),
        ("nomic-ai/nomic-embed-vision-v1.5", ""),
        ("nomic-ai/modernbert-embed-base", "search_document: "),
        ("google/embeddinggemma-300m", "title: none | text: "),
        ("hkunlp/instructor-xl", "Represent the document for retrieval: "),
        ("BAAI/bge-small-en-v1.5", ""),
        ("Qwen/Qwen3-Embedding-0.6B", ""),
    ],
)
def test_the_declared_families_are_known_by_the_names_of_their_models(tmp_path, model, prompt):
    assert document_prompt(Address("x", "st", model), tmp_path, {}).text == prompt
    assert document_prompt(Address("x", "st", "copy"), tmp_path, {"_name_or_path": model}).text == prompt


def test_every_chunk_of_a_long_text_begins_with_the_prompt(workspace, e5):
    resolved = resolve(workspace, f"{e5}?long=chunks", OFFLINE)[0]
    (encoder,) = library_of(resolved.address).load([resolved])
    text = "small red green blue " * 12
    tokens = encoder.tokenize([text, "blue"])
    prompt = encoder.tokenize([""]).sequences[0][:-1]
    assert tokens.owner.tolist().count(0) > 2
    for sequence in tokens.sequences:
        assert sequence[: len(prompt)].tolist() == prompt.tolist()
        assert len(sequence) <= resolved.spec.preprocessing["max_tokens"]
    words = sum(len(sequence) - len(prompt) - 1 for sequence in tokens.sequences[:-1])
    assert words == 48


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(workspace, e5):
    resolved = resolve(workspace, f"{e5}?max_tokens=8", OFFLINE)[0]
    with pytest.raises(EncoderError, match=r"the prompt 'passage: ' alone takes \d+ of 8 tokens"):
        library_of(resolved.address).load([resolved])


def test_the_class_token_goes_by_either_name(workspace, tmp_path):
    folder = of.dinov3(tmp_path / "dinov3")
    by_name = {name: spec_of(workspace, f"{folder}?pooling={name}") for name in ("cls", "token", "avg")}
    assert by_name["token"].fingerprint == by_name["cls"].fingerprint != by_name["avg"].fingerprint


# ---- length and scale of vectors -----------------------------------------------------------------


def test_vectors_are_cut_where_the_model_was_trained_for_it_and_scaled_afterwards(workspace, tmp_path):
    folder = save_tiny_bert(tmp_path / "bert")
    of.set_json(folder / "config.json", matryoshka_dimensions=[8, 16])
    spec = spec_of(workspace, f"{folder}?dim=8")
    assert (spec.dim, spec.normalize) == (8, True)
    found = {}
    for address in (f"{folder}?dim=8", f"{folder}"):
        resolved = resolve(workspace, address, OFFLINE)[0]
        import torch

        (encoder,) = library_of(resolved.address).load([resolved])
        ids = torch.tensor([[2, 5, 6, 3]])
        with torch.no_grad():
            found[address] = encoder.forward(ids, torch.ones_like(ids))[0].numpy()
    cut, whole = found.values()
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)


@pytest.mark.parametrize(
    "query, message",
    [
        ("dim=12", "the model was not trained for dim=12: choose one of 8, 16"),
        ("dim=33", "dim must be a whole number from 1 to 32, got '33'"),
        ("dim=x", "dim must be a whole number from 1 to 32, got 'x'"),
        ("normalize=perhaps", "normalize must be yes or no, got 'perhaps'"),
    ],
)
def test_a_dimension_that_the_model_was_not_trained_for_is_refused(workspace, tmp_path, query, message):
    folder = save_tiny_bert(tmp_path / "bert")
    of.set_json(folder / "config.json", matryoshka_dimensions=[8, 16])
    with pytest.raises(EncoderError, match=message):
        spec_of(workspace, f"{folder}?{query}")


def test_the_model_card_may_say_that_vectors_can_be_cut(workspace, tmp_path):
    folder = save_tiny_bert(tmp_path / "bert")
    with pytest.raises(EncoderError, match="neither the model's files nor its card say"):
        spec_of(workspace, f"{folder}?dim=8")
    (folder / "README.md").write_text("---\ntags:\n- loss:MatryoshkaLoss\n---\n")
    assert spec_of(workspace, f"{folder}?dim=8").dim == 8


def test_what_a_models_own_files_cut_vectors_to_is_kept(workspace, tmp_path):
    folder = save_tiny_sentence_model(tmp_path / "cut")
    of.set_json(folder / "config_sentence_transformers.json", truncate_dim=8)
    assert (spec_of(workspace, folder).dim, spec_of(workspace, folder).normalize) == (8, True)


def test_the_scaling_that_a_model_ends_with_can_be_left_out(workspace, e5):
    assert spec_of(workspace, e5).normalize
    resolved = resolve(workspace, f"{e5}?normalize=no", OFFLINE)[0]
    (encoder,) = library_of(resolved.address).load([resolved])
    assert [type(module).__name__ for module in encoder.module] == ["Transformer", "Pooling"]
    assert not resolved.spec.normalize


# ---- what can't be done right is refused ---------------------------------------------------------


def refused(workspace, address, match, sources=OFFLINE):
    with pytest.raises(EncoderError, match=match):
        spec_of(workspace, address, sources)


def brings_code(folder: Path, class_name="OwnModel", where="", kind="own_kind"):
    save_tiny_bert(folder)
    (folder / "modeling_own.py").write_text("raise SystemExit('run')\n")
    mapped = {
        "AutoConfig": f"{where}modeling_own.OwnConfig",
        "AutoModel": f"{where}modeling_own.{class_name}",
    }
    of.set_json(folder / "config.json", auto_map=mapped, model_type=kind)
    return folder


def test_code_that_comes_with_a_model_is_run_only_where_that_is_asked_for(workspace, tmp_path):
    folder = brings_code(tmp_path / "own")
    refused(
        workspace,
        folder,
        r"does not know this model, which brings its own code \(modeling_own.OwnModel\): read it",
    )
    with_code = spec_of(workspace, folder, TRUSTING)
    refused(workspace, folder, "read it, then pass --trust-remote-code")  # though the answer was given before
    (folder / "modeling_own.py").write_text("changed = True\n")
    assert spec_of(workspace, folder, TRUSTING).fingerprint != with_code.fingerprint


OWN_CODE = """
from transformers import BertConfig, BertModel


class OwnConfig(BertConfig):
    model_type = "own_kind"


class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *inputs, **options):
        found = super().forward(*inputs, **options)
        found.last_hidden_state = found.last_hidden_state.roll(1, dims=-1)
        return found
"""


def test_code_that_is_trusted_on_the_command_line_makes_the_vectors(workspace, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = brings_code(tmp_path / "own")
    (folder / "modeling_own.py").write_text(OWN_CODE)
    command = ["embed", "run", "--offline", "--devices", "cpu", "-e", f"{folder}@name"]
    refusal = CliRunner().invoke(main, [*command, "-w", workspace.root])
    assert refusal.exit_code == 1
    assert "read it, then pass --trust-remote-code to run it" in refusal.output
    told(workspace, *command, "--trust-remote-code")
    ours = load_matrix(workspace, VectorSet.parse(f"{folder}@name", "text"), "train").X
    model, tokenizer = AutoModel.from_pretrained(folder, trust_remote_code=True).eval(), AutoTokenizer
    inputs = tokenizer.from_pretrained(folder)([f"red shirt {i}" for i in range(6)], return_tensors="pt")
    with torch.no_grad():  # all of one length
        theirs = model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state.mean(dim=1).numpy()
    assert worst_cosine(ours, theirs) >= 0.9999


def test_an_answer_that_came_with_a_workspace_never_makes_code_run(workspace, tmp_path):
    folder = save_tiny_bert(tmp_path / "plain")
    spec_of(workspace, folder)
    (record,) = Path(workspace.path("vectors/resolved")).glob("*.json")
    memory = json.loads(record.read_text())
    memory["answer"][0]["spec"]["extra"]["remote_code"] = "0" * 64
    record.write_text(json.dumps(memory))
    assert "remote_code" not in spec_of(workspace, folder).extra


def test_a_model_that_the_library_knows_by_now_needs_no_code_of_its_own(workspace, tmp_path):
    folder = brings_code(tmp_path / "known", "BertModel", kind="bert")
    assert "remote_code" not in spec_of(workspace, folder).extra


def test_code_of_another_repository_is_never_run(workspace, tmp_path):
    folder = brings_code(tmp_path / "own", where="somebody/else--")
    refused(workspace, folder, r"its code lies in another repository \(somebody/else\)", TRUSTING)


def with_own_module(folder, where=""):
    """The first module of a sentence-transformers folder is one of its own, beside the others."""
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = f"{where}custom_st.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "custom_st.py").write_text("")
    return folder


def test_a_module_of_someone_elses_is_code_too(workspace, tmp_path):
    folder = with_own_module(save_tiny_sentence_model(tmp_path / "own"))
    refused(workspace, folder, r"brings its own code \(custom_st.Transformer\)")
    assert "remote_code" in spec_of(workspace, folder, TRUSTING).extra
    mapped = {"AutoModel": "somebody/else--modeling_own.OwnModel"}
    of.set_json(folder / "config.json", auto_map=mapped, model_type="own_kind")
    refused(workspace, folder, r"its code lies in another repository \(somebody/else\)", TRUSTING)
    of.set_json(folder / "config.json", auto_map=None, model_type="bert")
    with_own_module(folder, "somebody/else--")
    refused(workspace, folder, r"its code lies in another repository \(somebody/else\)", TRUSTING)


def test_a_model_that_the_library_knows_in_part_needs_its_own_code(workspace, tmp_path):
    for where, why in (("", "read it, then pass"), ("somebody/else--", "its code lies in another")):
        folder = brings_code(tmp_path / f"nomic{len(where)}", "NomicBertModel", where, "nomic_bert")
        of.set_json(folder / "config.json", moe_every_n_layers=0)
        assert "remote_code" not in spec_of(workspace, folder).extra
        of.set_json(folder / "config.json", moe_every_n_layers=2, num_experts=8)
        refused(workspace, folder, why)


def test_what_towers_of_a_sentence_model_would_lose_is_refused(workspace, tmp_path):
    folder = of.sentence_clip(tmp_path / "clip")
    modules = json.loads((folder / "modules.json").read_text())
    more = {"idx": 1, "name": "1", "path": "1_LayerNorm", "type": "sentence_transformers.models.LayerNorm"}
    (folder / "modules.json").write_text(json.dumps([*modules, more]))
    save_tiny_bert(folder / "1_LayerNorm")  # a configuration and weights
    refused(workspace, folder, "modules after the towers are not supported, got LayerNorm")
    (folder / "modules.json").write_text(json.dumps(modules))
    of.set_json(folder / "config_sentence_transformers.json", prompts={"document": "a photo of "})
    refused(workspace, folder, "register the prompt 'a photo of ' for texts, which is not supported")
    assert spec_of(workspace, f"{folder}.image").modality == "image"


def test_adapters_per_task_are_named_or_refused(workspace, tmp_path):
    folder = save_tiny_bert(tmp_path / "tasks")
    (folder / "retrieval_passage").mkdir()
    (folder / "retrieval_passage/adapter_config.json").write_text("{}")
    refused(workspace, folder, r"an adapter for each task, .*: write task=retrieval_passage, or task=none")
    refused(
        workspace, f"{folder}?task=retrieval", "no adapter for task 'retrieval', one of retrieval_passage"
    )
    assert "task" not in spec_of(workspace, f"{folder}?task=none").extra
    sentences = save_tiny_sentence_model(tmp_path / "jina-embeddings-v3")
    of.set_json(sentences / "config.json", lora_adaptations=["retrieval.query", "text-matching"])
    why = (
        r"an adapter for each task \(retrieval.query, text-matching\). Only the model's own code applies them"
    )
    refused(workspace, sentences, why)
    with_own_module(sentences)  # as jina-v3 is laid out: to trust its code chooses no adapter
    for sources in (OFFLINE, TRUSTING):
        refused(workspace, sentences, why, sources)


def test_an_adapter_over_the_weights_is_refused_not_forgotten(workspace, tmp_path):
    for folder in (save_tiny_bert(tmp_path / "hf"), save_tiny_sentence_model(tmp_path / "st")):
        (folder / "adapter_config.json").write_text("{}")
        refused(
            workspace,
            folder,
            "adapter_config.json in .* decides which adapter is laid over the weights",
        )


def test_a_chat_template_is_never_passed_over_without_a_word(workspace, tmp_path):
    folder = save_tiny_bert(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    refused(
        workspace, folder, "has a chat template, and none of its files says .*: write chat=no for plain text"
    )
    assert spec_of(workspace, f"{folder}?chat=no").modality == "text"
    with_template = spec_of(workspace, f"{folder}?chat=yes")
    assert "messages_sha256" in with_template.preprocessing
    (folder / "chat_template.jinja").write_text("{{ messages[0] }}")
    assert spec_of(workspace, f"{folder}?chat=yes").fingerprint != with_template.fingerprint


def test_a_model_of_images_and_texts_without_its_template_is_incomplete(workspace, tmp_path):
    folder = of.qwen_vl(tmp_path / "vl")
    refused(workspace, f"{folder}?chat=no", "takes both as messages: leave out chat=no")
    (folder / "chat_template.jinja").unlink()
    refused(workspace, folder, "lacks chat_template.jinja, by which messages are written")


def test_attention_that_an_older_library_would_change_is_refused(workspace, tmp_path, monkeypatch):
    folder = of.decoder(tmp_path / "gte-qwen2", "Qwen2", is_causal=False)
    assert spec_of(workspace, folder).pooling == "mean"
    monkeypatch.setattr("embed.encoders.audit.version", lambda name: "5.1.0")
    with pytest.raises(EncoderError, match=r"transformers 5.1.0 ignores: pip install 'transformers>=5.2.0'"):
        library_of(parse_address(str(folder))).resolve(parse_address(str(folder)), OFFLINE, lambda path: "")


def test_queries_and_documents_of_different_modules_are_refused(workspace, tmp_path):
    folder = save_tiny_sentence_model(tmp_path / "router")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Router"
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(workspace, folder, "sends queries and documents through different modules")


def test_a_tokenizer_that_cuts_otherwise_than_the_librarys_is_refused(workspace, tmp_path, monkeypatch):
    from transformers import PreTrainedTokenizerFast

    folder = save_tiny_bert(tmp_path / "bert")
    resolved = resolve(workspace, str(folder), OFFLINE)[0]
    own = PreTrainedTokenizerFast.__call__

    def lowered(self, text, **options):
        return own(self, text.upper(), **options) | {"input_ids": [2, 5, 3]}

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", lowered)
    with pytest.raises(
        EncoderError, match="its fast tokenizer cuts 'Red cotton shirt, pack of 6' otherwise than"
    ):
        library_of(resolved.address).load([resolved])


@pytest.mark.parametrize(
    "name, match",
    [
        ("~nobody-of-that-name/model", "can't be the path of a model"),
        ("st:~nobody-of-that-name/model", "can't be the path of a model"),
        ("x" * 5000, r"\(5000 characters\)' can't be the path of a model: File name too long"),
        ("hf:" + "x" * 5000, r"\(5000 characters\)' can't be the path of a model: File name too long"),
        ("timm:resnet10t?weights=~nobody-of-that-name/x.pt", "can't be the path of a model"),
    ],
    ids=["no user", "no user of a library", "too long", "too long of a library", "no user of weights"],
)
def test_a_name_that_can_be_no_path_is_one_clear_line(workspace, name, match):
    refused(workspace, name, match)


def test_a_long_prompt_is_no_path(workspace, e5):
    assert len(spec_of(workspace, f"{e5}?prompt={'x' * 4000}").preprocessing["prompt"]) == 4000


# ---- a cache of the hub that another program filled ----------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of repositories in folders, its cache, and what is asked of it."""

    class Hub:
        def __init__(self):
            self.repositories, self.downloads = {}, []

        def model_info(self, name, revision=None, **options):
            files = {p.relative_to(self.repositories[name]).as_posix(): p for p in self.files(name)}
            sizes = {n: p.stat().st_size for n, p in files.items()}
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in sizes.items()])

        def files(self, name):
            return [path for path in self.repositories[name].rglob("*") if path.is_file()]

        def snapshot_download(self, name, *, allow_patterns, revision=None, local_files_only=False):
            found = real(name, allow_patterns=allow_patterns, revision=revision, local_files_only=True)
            if not local_files_only:
                assert Path(found).name == revision
                for path in self.files(name):
                    relative = path.relative_to(self.repositories[name])
                    if relative.as_posix() in allow_patterns:
                        self.downloads.append(relative.as_posix())
                        (Path(found) / relative).parent.mkdir(exist_ok=True)
                        shutil.copyfile(path, Path(found) / relative)
            return found

    real, made = huggingface_hub.snapshot_download, Hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *a, **o: made.model_info(*a, **o))
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    return made


def test_what_another_program_left_out_of_the_cache_is_fetched_where_vectors_depend_on_it(
    workspace, tmp_path, hub
):
    model, folder = "BAAI/bge-small-en-v1.5", save_tiny_sentence_model(tmp_path / "bge", pooling="cls")
    hub.repositories[model] = folder
    (folder / "pytorch_model.bin").write_bytes(b"weights in another format")
    (folder / "vocab.txt").write_text("red")  # which tokenizer.json holds as well
    (folder / "model.safetensors.index.json").write_text("{}")
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    cached = {
        name: (folder / name).read_bytes() for name in names
    }  # as `AutoModel.from_pretrained` leaves it
    fake_hub_cache(tmp_path / "cache", model, cached)
    (offline,) = resolve(workspace, f"hf:{model}", OFFLINE)
    assert offline.spec.pooling == "mean"
    assert "1_Pooling/config.json is not in the hub's cache: if the model has one, run" in offline.notes[-1]
    (online,) = resolve(workspace, f"hf:{model}", Sources())
    assert online.spec.pooling == "cls"
    assert online.spec.weights_sha256 == offline.spec.weights_sha256
    assert online.spec.preprocessing == offline.spec.preprocessing
    assert "1_Pooling/config.json" in hub.downloads
    (sentences,) = resolve(workspace, f"st:{model}", Sources())  # which reads other files of the folder
    assert sentences.spec.preprocessing["max_tokens"] == 24
    assert not {"pytorch_model.bin", "model.safetensors.index.json", "vocab.txt"} & set(hub.downloads)
    n_downloads = len(hub.downloads)
    assert resolve(workspace, f"hf:{model}?pooling=cls", Sources())[0].spec.pooling == "cls"
    assert len(hub.downloads) == n_downloads


# ---- shown before weights are fetched ------------------------------------------------------------


def test_an_encoder_is_shown_without_a_byte_of_its_weights(tmp_path, monkeypatch, e5):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = {
        path.relative_to(e5).as_posix(): path.read_bytes()
        for path in e5.rglob("*")
        if path.is_file() and path.suffix != ".safetensors"
    }
    files["README.md"] = b"---\nlicense: mit\ntags:\n- x\n---\n# E5\n"
    fake_hub_cache(tmp_path, "intfloat/e5-small-v2", files)
    (shown,) = show(["st:intfloat/e5-small-v2?max_tokens=20"], OFFLINE)
    assert (shown.licence, shown.weights_bytes) == ("mit", 0)
    assert shown.recipe["prompt"] == "'passage: '"
    assert shown.recipe["text"] == "at most 20 tokens, longer texts are cut"
    assert shown.recipe["vector"] == "32 numbers, of unit length"
    text = "\n".join(show_lines(shown))
    assert "licence mit, weights not counted" in text
    assert "why: prompt declared for E5, which registers none" in text


def test_the_size_told_is_that_of_the_weights_that_would_be_fetched(tmp_path, hub, e5):
    timm = {"architecture": "efficientnet_b4", "pretrained_cfg": {"input_size": [3, 320, 320]}}
    configs = {path.relative_to(e5).as_posix(): path.read_bytes() for path in e5.rglob("*.json")}
    found = {}
    for name, repository, described, sizes in (
        ("clip-vit-l14.image", "timm/vit_large_patch14_clip_224.openai", {}, OPEN_CLIP_SIZES),
        ("open_clip:ViT-H-14/laion2b_s32b_b79k.text", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", {}, OLD_SIZES),
        (
            "efficientnet-b4",
            "timm/efficientnet_b4.ra2_in1k",
            {"config.json": json.dumps(timm).encode()},
            SIZES,
        ),
        ("st:somebody/dense", "somebody/dense", configs, SIZES | {"2_Dense/model.safetensors": 20}),
        ("hf:somebody/shards", "somebody/shards", configs, SHARD_SIZES),
    ):
        hub.repositories[repository] = folder = tmp_path / repository
        for file, size in sizes.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(b"w" * size)
        card = {"README.md": b"---\nlicense: mit\n---\n"}
        fake_hub_cache(tmp_path / "cache", repository, {**described, **card})
        (shown,) = show([name], Sources())
        found[name] = shown.weights_bytes
        assert shown.licence == "mit"
    assert list(found.values()) == [170, 390, 75, 95, 60]
    assert hub.downloads == []


def test_the_command_shows_models_with_towers_and_their_size(tmp_path):
    clip = of.clip(tmp_path / "clip")
    timm = save_tiny_timm(tmp_path / "timm")
    result = CliRunner().invoke(main, ["embed", "show", str(clip), str(timm), "--offline", "--json"])
    assert result.exit_code == 0, result.output
    image, text, timm_shown = json.loads(result.stdout)["encoders"]
    assert (image["encoder"], text["encoder"]) == (f"{clip}.image", f"{clip}.text")
    assert image["weights_bytes"] == (clip / "model.safetensors").stat().st_size
    assert image["memory_bytes"] > 0
    assert "shortest edge to 36" in image["recipe"]["image"]
    assert timm_shown["recipe"]["pooling"] == "avg"


def test_a_licence_of_its_own_goes_by_its_name(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\n")
    assert licence(tmp_path) == "dinov3-license"


# ---- vectors that were made by another recipe ----------------------------------------------------


def test_vectors_of_another_recipe_stay_readable_and_plan_and_status_say_why(workspace, e5):
    old = f"{e5}?prompt="
    told(workspace, "embed", "run", "--offline", "--devices", "cpu", "-e", f"{old}@name")
    from dataclasses import replace

    before = replace(current_spec(workspace, old), name=str(e5))  # as a version without prompts left it
    publish_current(workspace, before)
    line = "were made by another recipe than the address stands for now: prompt none -> 'passage: '"
    why = "prompt declared for E5, which registers none"
    plan = ("embed", "plan", "--offline", "-e", f"{e5}@name")
    for command in (("status",), plan, ("status",)):  # before the address was resolved here, and after
        said = told(workspace, *command)
        assert line in said
        assert why in said
        assert before.fingerprint in said
    assert current_spec(workspace, str(e5)).fingerprint == before.fingerprint
    told(workspace, "embed", "run", "--offline", "--devices", "cpu", "-e", f"{e5}@name")
    assert current_spec(workspace, str(e5)).preprocessing["prompt"] == "passage: "
    assert line not in told(workspace, "status")
    assert workspace.exists(f"{before.folder}/encoder.json")


def test_plan_tells_the_prompt_and_the_memory_of_large_weights(workspace, e5, monkeypatch):
    said = told(workspace, "embed", "plan", "--offline", "-e", f"{e5}@name")
    assert "prompt 'passage: ', pooling mean" in said
    monkeypatch.setattr("embed.job.report.TOLD_MEMORY", 1e4)
    said = told(workspace, "embed", "plan", "--offline", "-e", f"{e5}@name")
    assert "GB of memory (fp32), besides what a batch takes" in said


def test_addresses_that_differ_in_a_blank_alone_are_two_encoders(workspace, e5):
    for prompt in ("query:", "query: "):
        told(workspace, "embed", "run", "--offline", "--devices", "cpu", "-e", f"{e5}?prompt={prompt}@name")
    for prompt in ("query:", "query: "):
        assert current_spec(workspace, f"{e5}?prompt={prompt}").preprocessing["prompt"] == prompt
