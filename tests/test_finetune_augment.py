"""Augmentation fit for products: quantity never changes, what stands elsewhere stays."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embed.finetune.augment import augment_bullets, augment_image, augment_rows, augment_text, larger
from embed.finetune.feed import Prepared, TowerInput, epoch_batches, part_of
from store.catalog.parse.compose import compose

AT_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BULLETS = st.lists(
    st.text("abcdefg 0123456789", min_size=1, max_size=12).map(str.strip).filter(bool), max_size=6
)


@AT_ANY_SPEED
@given(BULLETS, st.integers(0, 2**16))
def test_bullets_are_dropped_or_shuffled_and_those_with_numbers_never_dropped(bullets, seed):
    changed = augment_bullets(bullets, np.random.default_rng(seed))
    left = list(bullets)
    for one in changed:
        left.remove(one)
    assert not any(letter.isdigit() for one in left for letter in one)
    assert len(changed) > 0 or not bullets


@pytest.mark.parametrize("bullet", ["Pack of six", "Twin pack", "By the dozen", "A SET OF two", "0.5 kg"])
def test_a_bullet_that_states_a_quantity_in_words_is_never_dropped(bullet):
    bullets = [bullet, *(f"{letter} tasty" for letter in "abcdef")]
    changed = [augment_bullets(bullets, np.random.default_rng(seed)) for seed in range(30)]
    assert all(bullet in one for one in changed)
    assert any(len(one) < len(bullets) for one in changed)


@AT_ANY_SPEED
@given(BULLETS, st.integers(0, 2**16))
def test_a_text_as_given_keeps_everything_but_its_bullets(bullets, seed):
    bullets = [f"{at}x{one}" for at, one in enumerate(bullets)]
    text = "Item Name: a\n" + "".join(f"Bullet: <{one}>\n" for one in bullets) + "Value: 12\nUnit: ounce\n"
    changed = augment_text(text, bullets, np.random.default_rng(seed))
    assert changed.startswith("Item Name: a\n")
    assert changed.endswith("Value: 12\nUnit: ounce\n")
    assert sorted(changed) == sorted(text)  # every bullet holds a digit, so none is dropped


def test_quantity_and_name_of_structured_texts_never_change():
    columns = ["value", "unit", "pack_count", "name", "bullets", "description"]
    values = [[12.0], ["ounce"], [6.0], ["Soup"], [["organic", "no salt", "tasty"]], ["warm"]]
    rows = pa.table(dict(zip(columns, values, strict=True)))
    texts = set()
    for seed in range(40):
        (text,) = compose("structured", augment_rows(rows, [np.random.default_rng(seed)])).to_pylist()
        assert text.startswith("12 ounce. pack of 6. Soup. ")
        assert text.endswith(". warm")
        texts.add(text)
    assert len(texts) > 5


def test_images_change_and_keep_size_and_type():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    one = augment_image(pixels, (32, 32), np.random.default_rng(1), (127, 127, 127))
    same = augment_image(pixels, (32, 32), np.random.default_rng(1), (127, 127, 127))
    other = augment_image(pixels, (32, 32), np.random.default_rng(2), (127, 127, 127))
    assert one.shape == (32, 32, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_crops_are_taken_from_the_whole_image():
    assert larger({"size": [224, 224], "resize_to": [256, 256], "resize": "shortest"})["size"] == [256, 256]


@AT_ANY_SPEED
@given(st.integers(8, 200), st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_holds_no_row_twice_and_only_full_batches(n_rows, batch_rows, epoch):
    rows = np.arange(n_rows) + 5
    lengths = np.random.default_rng(n_rows).integers(1, 99, n_rows + 5)
    batches = epoch_batches(rows, lengths, batch_rows, 1, epoch)
    assert {len(batch) for batch in batches} == {batch_rows}
    everything = np.concatenate(batches)
    assert len(set(everything.tolist())) == len(everything) > n_rows - batch_rows
    again = epoch_batches(rows, lengths, batch_rows, 1, epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_a_part_of_a_batch_holds_its_rows_inputs_alone():
    ids = np.arange(10).reshape(5, 2)
    text = TowerInput(
        np.array([0, 2, 3]), (ids, ids + 1), np.array([0, 0, 1, 2, 2]), np.array([1, 2, 3, 4, 5])
    )
    image = TowerInput(np.array([1, 3]), (np.arange(2),))
    part = part_of(Prepared(np.array([7, 8, 9, 10]), (text, image)), 2, 4)
    assert part.rows.tolist() == [9, 10]
    assert part.inputs[0].rows.tolist() == [0, 1]
    assert part.inputs[0].arrays[0].tolist() == [[4, 5], [6, 7], [8, 9]]
    assert part.inputs[0].owner.tolist() == [0, 1, 1]
    assert part.inputs[0].weights.tolist() == [3, 4, 5]
    assert part.inputs[1].rows.tolist() == [1]
    assert part.inputs[1].arrays[0].tolist() == [1]
