"""Processes that decode give what `decode_image` gives, are replaced after a crash, and end with the run."""

import hashlib
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from embed.inputs import decoder_process, decoders, image_batches
from embed.inputs.batch import BatchLimit, ImageReader, RowWindow
from embed.inputs.decoders import DecoderProcesses
from embed.inputs.image_batches import ImagePreparer, OneByOne

IMAGE_PREPROCESSING = {
    "size": [24, 24],
    "resize": "shortest",
    "resize_to": [24, 24],
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "background": [255, 255, 255],
    "fill": [0, 0, 0],
}
BROKEN = b"<html>no photo</html>"


def photo(at):
    pixels = np.random.default_rng(at).integers(0, 256, (40 + at, 50, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def reader_of(contents, folder=None):
    """By position; where a folder is given, of files there."""
    if folder is None:
        return ImageReader(lambda at: contents[int(at)])
    for at, content in enumerate(contents):
        (folder / f"{at}").write_bytes(content)
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return ImageReader(
        lambda at: (folder / at).read_bytes(), file=lambda at: (str(folder / at), digests[int(at)])
    )


@pytest.mark.parametrize("of_files", [False, True])
def test_a_process_gives_the_pixels_and_the_reasons_that_decoding_here_gives(of_files, tmp_path):
    contents = [photo(0), BROKEN, b"", photo(1)[:200], photo(2), photo(3)[:-2]]
    images = reader_of(contents, tmp_path if of_files else None)
    if of_files:
        (tmp_path / "4").unlink()  # a file that is gone is told by the run itself
    asked = [str(at) for at in range(len(contents))]
    here = OneByOne(IMAGE_PREPROCESSING)(images, asked)
    with DecoderProcesses(IMAGE_PREPROCESSING) as decode:
        there = decode(images, asked)
        (process,) = decode._all
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert len(here.pixels) == 3 - of_files
    assert there.failures == here.failures
    assert (there.n_cut, here.n_cut) == (1, 1)
    assert not of_files or "No such file" in there.failures[4].reason
    assert process._process.returncode == 0


def test_a_process_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for name in ("json", "numpy", "PIL"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    images = reader_of([photo(0)])
    with DecoderProcesses(IMAGE_PREPROCESSING) as decode:
        there = decode(images, ["0"])
    np.testing.assert_array_equal(there.pixels, OneByOne(IMAGE_PREPROCESSING)(images, ["0"]).pixels)
    assert not (tmp_path / "ran").exists()


def test_an_image_that_crashes_the_decoder_is_a_failure_and_the_others_are_decoded(monkeypatch):
    images = reader_of([photo(0), b"crash", photo(1)])
    decode_one = decoders._DecoderProcess.decode

    def crashing(process, asked):
        if b"crash" in asked:
            os.kill(process._process.pid, signal.SIGSEGV)
            process._process.wait()
        return decode_one(process, asked)

    with DecoderProcesses(IMAGE_PREPROCESSING) as decode:
        os.kill(
            decode(images, ["0"]) and decode._all[0]._process.pid, signal.SIGINT
        )  # Ctrl-C: the run ends them
        monkeypatch.setattr(decoders._DecoderProcess, "decode", crashing)
        found = decode(images, ["0", "1", "2"])
    assert found.failures == [None, decoders.CRASHED, None]
    assert len(found.pixels) == 2
    assert [process._process.returncode for process in decode._all] == [-11, -11, 0]


def test_a_large_run_is_decoded_in_processes_with_the_same_batches_and_a_small_one_is_not(monkeypatch):
    contents = {str(at): photo(at) if at % 5 else BROKEN for at in range(23)}
    window = RowWindow(
        "items", [bytes([at]) * 16 for at in range(23)], list(contents), ImageReader(contents.__getitem__)
    )
    used = []

    class Counted(DecoderProcesses):
        def __init__(self, preprocessing):
            super().__init__(preprocessing)
            used.append(self)

    monkeypatch.setattr(image_batches, "DecoderProcesses", Counted)

    def prepared(processes):
        preparer = ImagePreparer(IMAGE_PREPROCESSING, BatchLimit(8), 2, processes)
        return list(preparer.batches(iter([window])))

    expected = prepared(False)
    prepared(True)
    assert not used  # 23 rows are not worth them
    monkeypatch.setattr(image_batches, "WORTH_PROCESSES", 20)
    found = prepared(True)
    assert len(used[0]._all) == 2
    assert {process._process.returncode for process in used[0]._all} == {0}
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    failed = [[failure for batch in batches for failure in batch.failures] for batches in (found, expected)]
    assert failed[0] == failed[1]
    assert len(failed[0]) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.arrays[0], other.arrays[0])
    window = RowWindow("items", window.keys, ["gone"] * 23, window.images)
    with pytest.raises(KeyError, match="gone"):  # an error of reading is the run's, whoever decodes
        prepared(True)


def test_a_process_begins_without_the_libraries_that_the_run_needs():
    code = f"import sys, {decoder_process.__name__}; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "torch", "pandas", "store.config"} & set(found.stdout.split())
