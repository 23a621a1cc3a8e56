"""What steps took before says what they will take."""

from pathlib import Path

import pytest

from store import timings
from store.timings import Timings


def test_a_step_is_estimated_by_what_it_took_and_the_fixed_part_that_two_sizes_say(tmp_path):
    known = Timings(tmp_path / "new")
    assert known.estimate("head ridge", 1000) is None
    known.record("head ridge", 1000, 10.0, 10**9)
    one = known.estimate("head ridge", 2000)
    assert (one.seconds, one.peak_bytes) == (pytest.approx(20.0), 2 * 10**9)
    assert known.estimate("head ridge", 2000, power=2.0).seconds == pytest.approx(40.0)
    known.record("head ridge", 4000, 160.0, None)
    assert known.estimate("head ridge", 8000, power=2.0).seconds == pytest.approx(640.0)
    assert Timings(tmp_path / "new").estimate("head ridge", 1000, power=2.0).seconds == pytest.approx(10.0)
    for n_rows in (1000, 4000):  # 8 s whatever the rows, and 2 s for each thousand
        known.record("head lightgbm", n_rows, 8 + n_rows / 500, 5 * 10**8 + n_rows * 10**5)
    found = known.estimate("head lightgbm", 16000)
    assert found.seconds == pytest.approx(40.0, rel=0.05)
    assert found.peak_bytes == pytest.approx(21 * 10**8, rel=0.05)
    assert known.estimate("head lightgbm", 100).seconds == pytest.approx(8.2, rel=0.05)
    assert known.estimate("head sparse", 1000) is None


def test_records_are_of_one_machine_and_the_newest_of_a_size_counts(tmp_path, monkeypatch):
    known = Timings(tmp_path)
    known.record("blend", 100, 5.0)
    known.record("blend", 100, 7.0)
    assert known.estimate("blend", 100).seconds == pytest.approx(7.0)
    for n_rows in range(1000, 1020):
        known.record("blend", n_rows, 1.0)
    assert known.estimate("blend", 1000).seconds < 1.5
    known.record("head ridge", 1000, 10.0, width=1664)
    assert known.estimate("head ridge", 1000) is None
    assert known.estimate("head ridge", 1000, width=384) is None
    assert known.estimate("head ridge", 1000, width=2048).seconds == pytest.approx(10.0)
    monkeypatch.setattr(timings, "machine", lambda: "another x8")
    assert known.estimate("blend", 100) is None


@pytest.mark.parametrize("content", ["{", "[1]", '[{"step": "blend"}]'])
def test_a_damaged_file_is_as_good_as_none(tmp_path, content):
    (tmp_path / "timings.json").write_text(content)
    known = Timings(tmp_path)
    assert known.estimate("blend", 100) is None
    known.record("blend", 100, 5.0)
    assert known.estimate("blend", 100).seconds == pytest.approx(5.0)


def test_a_folder_that_can_not_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    Timings(tmp_path / "file/below").record("blend", 100, 5.0)


def test_memory_is_that_of_a_step_and_not_of_a_larger_one_before_it(monkeypatch):
    hidden = timings.forget_peak()
    large = bytearray(300_000_000)
    large[::4096] = bytes(len(large[::4096]))
    heavy = timings.peak_since(hidden)
    del large
    hidden = timings.forget_peak()
    light = timings.peak_since(hidden)
    assert heavy > 300_000_000
    assert light is None or light < heavy - 200_000_000
    monkeypatch.setattr(timings, "Path", lambda name: Path("/no/such/place"))  # a system that forgets no peak
    assert timings.peak_since(timings.forget_peak()) is None
