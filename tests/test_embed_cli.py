import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from embed.encoders.base import Sources
from embed.job.request import find_requests
from store.catalog.images.blobs import blob_path
from store.catalog.images.links import LINKS_FILE
from store.catalog.read import read_split
from store.cli import main
from store.config import Config, EmbedConfig, HeadConfig, load_config, save_config
from store.errors import ConfigError, CorruptFileError
from store.folds.assign import ensure_folds
from store.vectors.matrix import load_matrix
from store.vectors.sets import VectorSet, current_encoders
from store.vectors.shard import read_failures, shard_names
from store.workspace import Workspace
from tests.fake_images import broken_images, encoded, photo, publish_images
from tests.fake_models import WORDS, save_tiny_clip, save_tiny_sentence_model, save_tiny_timm
from tests.fakes import catalog_table, image_digests, publish_catalog

NO_TORCH = """
import sys
from store.cli import main
try:
    main(sys.argv[1:], standalone_mode=True)
except SystemExit as exit:
    assert not exit.code, exit.code
assert 'torch' not in sys.modules, 'torch was imported'
assert 'transformers' not in sys.modules, 'transformers was imported'
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_sentence_model(folder / "text", max_tokens=8)
    save_tiny_timm(folder / "image")
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def text_of(i):
    return " ".join(WORDS[j] for j in range(len(WORDS)) if i >> j & 1) or "x"


def publish_texts(workspace, n):
    publish_catalog(
        workspace, catalog_table([{"sample_id": i, "name": text_of(i), "price": 1.0} for i in range(n)])
    )


def shelfprice(workspace, *arguments, code=0):
    result = CliRunner().invoke(main, ["embed", *arguments, "-w", workspace.root])
    assert result.exit_code == code, result.output
    return result


def embed(workspace, *arguments, code=0):
    return shelfprice(workspace, "run", "--offline", "--devices", "cpu", *arguments, code=code)


def test_a_run_with_nothing_to_do_and_a_plan_import_no_torch(workspace, models):
    publish_texts(workspace, 20)
    encoder = f"{models / 'text'}@name"
    assert "20 embedded" in embed(workspace, "-e", encoder).output
    for command in ("plan", "run"):
        arguments = ["embed", command, "--offline", "-e", encoder, "-w", workspace.root]
        done = subprocess.run([sys.executable, "-c", NO_TORCH, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "20 with a vector, 0 missing" in done.stdout


def test_plan_tells_hits_misses_bytes_and_after_a_first_run_the_time(workspace, models):
    publish_texts(workspace, 8)
    asked = ("--json", "-e", f"{models / 'text'}@name")
    first = json.loads(shelfprice(workspace, "plan", *asked).stdout)["encoders"][0]
    assert (first["hits"], first["missing"], first["bytes_to_write"], first["seconds"]) == (
        0,
        8,
        8 * 80,
        None,
    )
    embed(workspace, *asked)
    publish_texts(workspace, 20)
    second = json.loads(shelfprice(workspace, "plan", *asked).stdout)["encoders"][0]
    assert (second["hits"], second["missing"]) == (8, 12)
    assert second["seconds"] > 0


def test_run_reports_the_share_of_truncated_texts(workspace, models):
    publish_texts(workspace, 4096)  # max_tokens 8 leaves room for 6 words of 12
    record = json.loads(embed(workspace, "--json", "-e", f"{models / 'text'}@name").stdout)["encoders"][0]
    too_long = sum(bin(i).count("1") > 6 for i in range(4096))
    assert record["truncated"] == {f"{models / 'text'}@name": pytest.approx(too_long / 4096)}


def test_an_encoder_alone_stands_for_its_configured_sets(workspace, models):
    publish_texts(workspace, 4)
    encoder = str(models / "text")
    workspace.publish_bytes(
        "shelfprice.toml", f'[embed]\nvectors = ["{encoder}@name", "{encoder}@full"]\n'.encode()
    )
    (request,) = find_requests(workspace, [encoder], Sources(offline=True))
    assert [str(s) for s in request.source.vector_sets] == [f"{encoder}@name", f"{encoder}@full"]
    (request,) = find_requests(workspace, [f"{encoder}@structured"], Sources(offline=True))
    assert [str(s) for s in request.source.vector_sets] == [f"{encoder}@structured"]


def test_a_run_names_a_configured_encoder_that_no_head_reads(workspace, models):
    publish_texts(workspace, 4)
    encoder = str(models / "text")
    for read, is_named in (("minilm@structured", True), (f"{encoder}@full", False)):
        config = Config(embed=EmbedConfig(vectors=(f"{encoder}@name",)), heads=HeadConfig(vectors=(read,)))
        save_config(workspace, config)
        said = f"no head reads vectors of {encoder}: name it in [heads] vectors"
        assert (said in embed(workspace).output) is is_named


def test_a_model_with_two_towers_makes_two_encoders_and_the_composition_is_the_text_s(workspace, tmp_path):
    folder = save_tiny_clip(tmp_path / "clip")
    publish_texts(workspace, 1)
    image, text = find_requests(workspace, [f"{folder}@name"], Sources(offline=True))
    assert [str(s) for s in image.source.vector_sets] == [f"{folder}.image"]
    assert [str(s) for s in text.source.vector_sets] == [f"{folder}.text@name"]
    with pytest.raises(ConfigError, match="embeds images and takes no composition"):
        find_requests(workspace, [f"{folder}.image@name"], Sources(offline=True))


def test_both_towers_come_out_of_one_run(workspace, tmp_path):
    folder = save_tiny_clip(tmp_path / "clip")
    publish_texts(workspace, 5)
    output = embed(workspace, "-e", f"{folder}@name").output
    assert f"{folder}.text: 5 embedded" in output
    assert f"{folder}.image: skipped, the catalogue has no image at all" in output
    assert f"{folder}.text" in current_encoders(workspace)


def test_broken_images_are_recorded_failures_and_stop_nothing(workspace, models):
    broken = broken_images()
    publish_images(workspace, {**{f"good {i}": encoded(photo(50, 40, seed=i)) for i in range(6)}, **broken})
    encoder = str(models / "image")
    record = json.loads(embed(workspace, "--json", "--max-failures", "0.9", "-e", encoder).stdout)[
        "encoders"
    ][0]
    assert (record["embedded"], record["newly_failed"]) == (6, len(broken))
    assert record["sets"][0]["splits"]["train"] == {
        "rows": 7 + len(broken),
        "empty": 1,
        "failed": len(broken),
    }
    matrix = load_matrix(workspace, VectorSet(encoder), "train")
    assert matrix.valid.tolist() == [True] * 6 + [False] * (len(broken) + 1)
    assert np.isfinite(matrix.X).all()
    assert set(read_failures(workspace, record["folder"])["stage"].to_pylist()) == {"decode"}
    result = embed(workspace, "-e", encoder, code=1)
    assert "more than --max-failures 0.01" in result.output
    assert "--retry-failed" in result.output


def test_without_a_catalogue_nothing_is_run_planned_or_written(workspace, models):
    for command in ("run", "plan"):
        result = shelfprice(workspace, command, "-e", str(models / "text"), code=1)
        assert "run 'shelfprice catalog ingest --train FILE" in result.output
    assert not Path(workspace.root).exists()


def test_verify_never_calls_whole_what_is_not_there(workspace, models):
    publish_texts(workspace, 4)
    assert "holds no vectors: run 'shelfprice embed run'" in shelfprice(workspace, "verify", code=1).output
    embed(workspace, "-e", f"{models / 'text'}@name")
    assert "4 vectors: whole" in shelfprice(workspace, "verify", "-e", str(models / "text")).output
    assert "holds no vectors of 'minilm'" in shelfprice(workspace, "verify", "-e", "minilm", code=1).output


def test_an_image_that_vanished_is_a_failure_of_reading(workspace, models):
    publish_images(workspace, {f"good {i}": encoded(photo(50, 40, seed=i)) for i in range(4)})
    blobs = sorted(Path(workspace.path("images/blobs")).rglob("*"))
    next(path for path in blobs if path.is_file()).unlink()
    record = json.loads(
        embed(workspace, "--json", "--max-failures", "0.9", "-e", str(models / "image")).stdout
    )
    assert record["encoders"][0]["newly_failed"] == 1
    assert read_failures(workspace, record["encoders"][0]["folder"])["stage"].to_pylist() == ["read"]


def test_an_image_that_lacks_its_last_bytes_is_embedded_and_counted_also_where_it_failed_before(
    workspace, models
):
    from store.vectors.shard import publish_failures

    whole = encoded(photo(320, 240, seed=1))
    publish_images(workspace, {"whole": whole, "cut": whole[:-3], "half": whole[: len(whole) // 2]})
    asked = ("--max-failures", "0.9", "-e", str(models / "image"))
    record = json.loads(embed(workspace, "--json", *asked).stdout)["encoders"][0]
    assert (record["embedded"], record["newly_failed"]) == (2, 1)
    assert list(record["truncated"].values()) == [0.5]
    folder = record["folder"]
    for shard in shard_names(workspace, folder):
        workspace.remove(f"{folder}/{shard}")
    digests = image_digests(workspace)
    keys = [bytes.fromhex(digests[f"file:{name}"])[:16] for name in ("cut", "half")]
    publish_failures(workspace, folder, [(key, "decode", "damaged: truncated") for key in keys])
    assert json.loads(embed(workspace, "--json", *asked).stdout)["encoders"][0]["embedded"] == 1
    said = embed(workspace, "--retry-failed", *asked).output
    assert "1 embedded" in said
    assert "100.0% of the images lack the end of their file: they were embedded as far as it goes" in said


def flip_a_byte(workspace, digest):
    path = Path(workspace.path(blob_path(digest)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_corrupted_or_swapped_image_never_yields_a_vector_and_the_command_it_names_heals_it(
    workspace, models, tmp_path
):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes(encoded(photo(50, 40, seed=i)))
    (tmp_path / "train.csv").write_text(
        "sample_id,catalog_content,price\n" + "".join(f"{i},x,5\n" for i in range(8))
    )
    taken = ["catalog", "ingest", "--train", str(tmp_path / "train.csv"), "--images", str(folder)]
    assert CliRunner().invoke(main, [*taken, "-w", workspace.root]).exit_code == 0
    digests = image_digests(workspace)
    flip_a_byte(workspace, digests["file:1.jpg"])
    swapped = Path(workspace.path(blob_path(digests["file:2.jpg"])))
    swapped.write_bytes(Path(workspace.path(blob_path(digests["file:3.jpg"]))).read_bytes())
    asked = ("--json", "--max-failures", "0.9", "-e", str(models / "image"))
    record = json.loads(embed(workspace, *asked).stdout)["encoders"][0]
    assert (record["embedded"], record["newly_failed"]) == (6, 2)
    failures = read_failures(workspace, record["folder"]).to_pylist()
    assert [failure["stage"] for failure in failures] == ["read", "read"]
    for reference in ("file:1.jpg", "file:2.jpg"):
        reason = next(one["reason"] for one in failures if digests[reference] in one["reason"])
        assert f"image {blob_path(digests[reference])} is damaged" in reason
        assert "run 'shelfprice catalog ingest' with --images again" in reason
        assert "then 'shelfprice embed run --retry-failed'" in reason
    assert CliRunner().invoke(main, [*taken, "-w", workspace.root]).exit_code == 0
    record = json.loads(embed(workspace, *asked, "--retry-failed").stdout)["encoders"][0]
    assert (record["embedded"], record["failed"]) == (2, 0)
    fresh = Workspace(tmp_path / "fresh")
    CliRunner().invoke(main, [*taken, "-w", fresh.root])
    embed(fresh, *asked)
    name = VectorSet(current_encoders(workspace)[0])
    healed, right = (load_matrix(one, name, "train") for one in (workspace, fresh))
    np.testing.assert_allclose(healed.X, right.X, atol=2e-3)


def test_verify_names_corrupted_images_and_puts_them_aside(workspace, models):
    contents = {f"{i}.jpg": encoded(photo(50, 40, seed=i)) for i in range(5)}
    publish_images(workspace, contents)
    embed(workspace, "-e", str(models / "image"))
    assert "images: 5: whole" in shelfprice(workspace, "verify").output
    digest = image_digests(workspace)["file:3.jpg"]
    flip_a_byte(workspace, digest)
    result = shelfprice(workspace, "verify", code=1)
    assert "images: 5: 1 damaged or gone" in result.output
    assert f"1 of 5 images can't be used: image {blob_path(digest)} is damaged" in result.output
    assert not workspace.exists(blob_path(digest))
    assert "1 of 5 images can't be used" in shelfprice(workspace, "verify", code=1).output
    workspace.publish_bytes(blob_path(digest), contents["3.jpg"])
    assert "images: 5: whole" in shelfprice(workspace, "verify").output


@pytest.mark.parametrize("loss", ["gone", "emptied", "halved", "nulls"])
def test_images_that_links_parquet_has_lost_are_an_error_and_not_left_out(workspace, models, loss):
    publish_images(workspace, {f"{i}.jpg": encoded(photo(50, 40, seed=i)) for i in range(6)})
    embed(workspace, "-e", str(models / "image"))
    links = workspace.read_table(LINKS_FILE)
    if loss == "gone":
        workspace.remove(LINKS_FILE)
    elif loss == "nulls":
        nulls = pa.array([None, None, *links["sha256"].to_pylist()[2:]], pa.string())
        workspace.publish_table(LINKS_FILE, links.set_column(1, "sha256", nulls))
    else:
        workspace.publish_table(LINKS_FILE, links.slice(0, 0 if loss == "emptied" else 3))
    lost = r"images/links.parquet lacks \d images that the catalogue's 7 rows name \(first: file:\d.jpg\)"
    message = f"{lost}: run 'shelfprice catalog ingest' with --images again"
    assert re.search(message, embed(workspace, "-e", str(models / "image"), code=1).output)
    with pytest.raises(CorruptFileError, match=message):
        load_matrix(workspace, VectorSet(current_encoders(workspace)[0]), "train")
    with pytest.raises(CorruptFileError, match=message):
        ensure_folds(workspace, load_config(workspace))
    status = CliRunner().invoke(main, ["status", "--json", "-w", workspace.root])
    assert json.loads(status.stdout)["next"]["command"].startswith("shelfprice catalog ingest --train FILE")
    assert re.match(message, json.loads(status.stdout)["next"]["why"])


def test_verify_names_a_damaged_shard_and_the_next_run_recomputes_just_what_it_held(workspace, models):
    publish_texts(workspace, 40)
    encoder = f"{models / 'text'}@name"
    asked = ("-e", encoder, "--batch-tokens", "40", "--publish-every", "0")
    embed(workspace, *asked)
    folder = find_requests(workspace, [encoder], Sources(offline=True))[0].resolved.spec.folder
    assert "40 vectors: whole" in shelfprice(workspace, "verify").output
    shards = shard_names(workspace, folder)
    assert len(shards) > 2
    path = Path(workspace.path(f"{folder}/{shards[1]}"))
    path.write_bytes(path.read_bytes()[:-50])
    result = shelfprice(workspace, "verify", code=1)
    assert shards[1] in result.output
    assert "run 'shelfprice embed run' to compute their vectors again" in result.output
    record = json.loads(embed(workspace, "--json", *asked).stdout)["encoders"][0]
    assert 0 < record["embedded"] < 20
    assert "40 vectors: whole" in shelfprice(workspace, "verify").output


def test_a_run_with_a_real_model_killed_at_work_resumes_complete(workspace, models):
    n = 3000
    publish_texts(workspace, n)
    encoder = f"{models / 'text'}@name"
    asked = ["--offline", "-e", encoder, "--devices", "cpu", "--precision", "fp32", "--batch-tokens", "16"]
    command = [sys.executable, "-m", "store.cli", "embed", "run", *asked, "--publish-every", "0.05"]
    folder = find_requests(workspace, [encoder], Sources(offline=True), "fp32")[0].resolved.spec.folder
    child = subprocess.Popen(
        [*command, "-w", workspace.root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while child.poll() is None and not shard_names(workspace, folder):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL, "it must be killed before it is done"
    record = json.loads(shelfprice(workspace, "run", *asked[:-1], "4096", "--json").stdout)["encoders"][0]
    assert 0 < record["embedded"] < n
    assert (record["hits"], record["damaged"]) == (n, [])
    whole = Workspace(workspace.root + "-uninterrupted")
    publish_texts(whole, n)
    shelfprice(whole, "run", *asked[:-1], "4096")
    matrices = [
        load_matrix(w, VectorSet(str(models / "text"), "name"), "train").X for w in (workspace, whole)
    ]
    np.testing.assert_allclose(*matrices, atol=1e-3)


def test_an_unknown_encoder_is_one_line_with_the_nearest_name(workspace):
    publish_texts(workspace, 3)
    result = embed(workspace, "-e", "minilmm", code=1)
    assert result.stderr.count("\n") == 1
    assert "did you mean minilm?" in result.stderr


def test_images_are_left_out_in_one_step_where_the_test_rows_have_none(workspace, models, tmp_path):
    publish_images(workspace, {f"{i}.jpg": encoded(photo(50, 40, seed=i)) for i in range(4)})
    train = read_split(workspace, "train").slice(0, 4)
    train = train.set_column(
        train.column_names.index("name"), "name", pa.array([text_of(i) for i in range(4)])
    )
    test = catalog_table([{"sample_id": "t", "name": text_of(9)}], priced=False)
    publish_catalog(workspace, train, test)
    text, image, clip = str(models / "text"), str(models / "image"), save_tiny_clip(tmp_path / "clip")
    params = {"ridge": {"vectors": [f"{text}@name", image]}}
    heads = HeadConfig(vectors=(f"{text}@name", image), params=params)
    vectors = (f"{text}@name", image, f"{clip}@name")
    save_config(workspace, Config(embed=EmbedConfig(vectors=vectors), heads=heads))
    result = embed(workspace, code=1)
    assert "leave images out with --no-images, or pass --max-coverage-gap 1" in result.output
    output = embed(workspace, "--no-images").output
    assert f"left out from now on: {image}, {clip}@name" in output
    config = load_config(workspace)
    assert config.embed.vectors == (f"{text}@name", f"{clip}.text@name")
    assert config.heads.vectors == (f"{text}@name",)
    assert config.heads.params["ridge"]["vectors"] == [f"{text}@name"]
    assert embed(workspace).output.count("embedded") == 2
