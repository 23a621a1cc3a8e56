"""The package of checks for GPUs, whole, on the CPU with tiny models: every part runs, and its checks can fail."""

import json

import torch
from click.testing import CliRunner

from benchmarks.gpu import checks
from benchmarks.gpu.__main__ import SUBJECTS, Package, main, table
from benchmarks.gpu.models import BERT, TINY, save_model
from benchmarks.gpu.steps import SYSTEMS
from benchmarks.report import Result
from embed.forward import unpadded


def test_every_check_and_figure_for_gpus_runs_on_the_cpu_with_tiny_models(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: compiled.append(how) or module)
    said = []
    results = Package(TINY, ("cpu:0", "cpu:1"), compiles=True).run(tmp_path, said.append)
    assert [line.partition(" s  ")[2] for line in said] == [result.line() for result in results]
    skipped = [result.name for result in results if result.ratio is None]
    assert skipped == ["weights of 8bit", "weights of 4bit"]  # which need a GPU
    timed = [result for result in results if result.name.endswith(": job against its limit")]
    checked = [r for r in results if r not in timed and ("cosine" in r.note or "difference" in r.note)]
    assert [result.name for result in checked if not result.met] == []
    modes = {result.name.partition(", ")[2] for result in checked}
    assert modes >= {"fp32", "bf16", "bf16 channels_last", "bf16 unpadded", "bf16 compiled"}
    assert "bf16 unpadded compiled" in modes
    assert compiled
    assert sum("as it was chosen" in result.name for result in checked) == len(SUBJECTS) - 1
    by_name = {result.name: result for result in results}
    assert by_name["several devices"].figures["devices"] == 2
    halved = by_name["memory that runs out"].figures
    assert halved["units_after"] < halved["units_before"]
    streams = by_name["pinned copies on a stream of their own"].figures
    assert streams["batches"] > 1
    assert streams["distinct_vectors"] == 16 * TINY.check_rows  # rows that were mixed up would show
    for model, tower in SUBJECTS:
        figures = by_name[f"{model} {tower}".strip() + ": job against its limit"].figures
        assert figures["job_rows_per_second"] > 0
        assert ("decoded_per_second_and_core" in figures) == (tower == "image" or "efficientnet" in model)
    steps = [result for result in results if "fine-tuning step" in result.name]
    assert len(steps) == len(SYSTEMS)
    assert len(table(results, "cpu")) == 2 + len(results)


def test_a_mode_that_computes_something_else_and_rows_that_change_places_are_caught(tmp_path, monkeypatch):
    address = save_model(tmp_path / BERT, BERT, TINY)
    monkeypatch.setattr(unpadded, "position_offset", lambda model: 3)
    found = list(checks.check_modes(tmp_path, address, BERT, "cpu", TINY))
    assert {result.name: result.met for result in found} == {
        "bert-base, fp32": True,
        "bert-base, fp16": True,
        "bert-base, bf16": True,
        "bert-base, fp16 unpadded": False,
        "bert-base, bf16 unpadded": False,
    }
    encode = checks.Engine.encode

    def mixed(engine, batches):
        found = list(encode(engine, batches))
        for at, (batch, vectors) in enumerate(found):
            yield batch, vectors[::-1] if at == 1 else vectors  # of the second batch in a row alone

    monkeypatch.setattr(checks.Engine, "encode", mixed)
    assert checks.check_streams(tmp_path, address, "cpu", TINY).met is False


def test_vectors_that_stray_and_parts_that_break_are_shown_and_fail_the_command(tmp_path, monkeypatch):
    def one_part(package, folder):
        yield "strays", 0.0, lambda: [Result.at_least("strays", 0.5, 0.999)]
        yield "breaks", 0.0, lambda: 1 / 0

    monkeypatch.setattr(Package, "_parts", one_part)
    result = CliRunner().invoke(main, ["--device", "cpu", "--tiny", "--to", str(tmp_path)])
    assert result.exit_code == 1
    assert "| strays | 0.5 | ≥ 0.999 | MISSED |" in result.output
    assert "| breaks | | | FAILED | ZeroDivisionError: division by zero |" in result.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [one["met"] for one in found["results"]] == [False, False]
    assert found["machine"]["scale"] == "tiny"
    assert (tmp_path / "gpu.md").read_text().startswith("| cpu ")


def test_what_the_budget_of_minutes_does_not_hold_is_left_out_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(Package, "_parts", lambda package, folder: iter([("long", 61.0, lambda: 1 / 0)]))
    full = Package(checks.Scale("full", *([None] * 10)), ("cuda",), compiles=True, minutes=1.0)
    assert [result.note for result in full.run(tmp_path, lambda line: None)] == [
        "left out, no time left of 1 minutes"
    ]


def test_a_machine_without_cuda_is_told_how_to_try_the_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 1
    assert "there is no CUDA device here: pass --device cpu --tiny" in result.output
