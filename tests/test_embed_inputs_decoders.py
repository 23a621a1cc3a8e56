"""Processes that decode give what `decode_image` gives, outlive a crash, and end with the run."""

import io
import os
import signal

import numpy as np
import pytest
from PIL import Image

from embed.inputs import InputFailure, image_batches
from embed.inputs.batch import BatchLimit, ImageReader, RowWindow
from embed.inputs.decoders import CRASHED, DecoderProcesses
from embed.inputs.image_batches import ImagePreparer
from embed.inputs.images import decode_image

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


def test_a_process_gives_the_pixels_and_the_reasons_that_decoding_here_gives():
    with DecoderProcesses(IMAGE_PREPROCESSING) as decode:
        for content in (photo(0), BROKEN, b"", photo(1)[:200], photo(2)):
            here, there = decode_image(content, IMAGE_PREPROCESSING), decode(content)
            assert type(here) is type(there)
            np.testing.assert_equal(there, here)
        (process,) = decode._all
    assert process._process.returncode == 0


def test_an_image_that_crashes_the_decoder_is_a_failure_and_the_next_one_is_decoded():
    with DecoderProcesses(IMAGE_PREPROCESSING) as decode:
        assert isinstance(decode(photo(0)), np.ndarray)
        os.kill(decode._all[0]._process.pid, signal.SIGSEGV)
        decode._all[0]._process.wait()
        assert decode(photo(0)) == CRASHED
        assert isinstance(decode(photo(0)), np.ndarray)
        os.kill(decode._all[1]._process.pid, signal.SIGINT)  # Ctrl-C reaches them too; the run ends them
        assert isinstance(decode(photo(1)), np.ndarray)


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
    assert [batch.failures for batch in found] == [batch.failures for batch in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.arrays[0], other.arrays[0])
    assert sum(len(batch.failures) for batch in found) == 5
    assert isinstance(found[0].failures[0][1], InputFailure)
    window = RowWindow("items", window.keys, ["gone"] * 23, window.images)
    with pytest.raises(KeyError, match="gone"):  # an error of reading is the run's, whoever decodes
        prepared(True)
