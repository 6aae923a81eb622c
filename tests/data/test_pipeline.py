"""Augmentation, compared with NumPy's padding, and batches over replicas."""

import collections
import contextlib

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data
from dfa_tf.errors import UserError
from tests.conftest import made_examples

NONE = data.Augmentation(pad=0, flip=False)


def _crops(image, pad, flip):
    """Counts, for each possible result, the shifts and flips that lead to it, by NumPy."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    ways = collections.Counter()
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            crop = padded[y : y + height, x : x + width]
            for mirrored in (crop, crop[:, ::-1]) if flip else (crop,):
                ways[mirrored.tobytes()] += 1
    return ways


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_every_shift_and_flip_occurs_and_nothing_else(pad, flip):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    copies = np.repeat(image[np.newaxis], 4000, 0)
    augmented = data.Augmentation(pad, flip)(tf.constant(copies), [1, 2]).numpy()
    ways = _crops(image, pad, flip)
    seen = collections.Counter(each.tobytes() for each in augmented)
    assert set(seen) == set(ways)
    for picture, count in ways.items():
        expected = 4000 * count / ways.total()
        assert abs(seen[picture] - expected) < 6 * np.sqrt(expected)


def test_no_augmentation_leaves_images_unchanged():
    images = made_examples(4).images
    np.testing.assert_array_equal(NONE(tf.constant(images), [0, 0]), images)


def test_batch_depends_on_seed_and_step_only():
    examples = made_examples(40)
    straight = list(data.training_batches(examples, 16, data.Augmentation(), 7).take(6))
    later = list(data.training_batches(examples, 16, data.Augmentation(), 7, first_step=3).take(3))
    for a, b in zip(straight[3:], later, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(straight[0][0], straight[1][0])


def test_replicas_divide_the_same_global_batch(one_replica, two_replicas):
    images, labels = next(iter(data.training_batches(made_examples(40), 8, NONE, 7)))
    found = {}
    for strategy in (one_replica, two_replicas):
        run = tf.function(lambda *batch, s=strategy: s.run(lambda *b: data.replica_part(b), batch))
        parts = [strategy.experimental_local_results(part) for part in run(images, labels)]
        found[strategy.num_replicas_in_sync] = parts
    assert [len(part) for part in found[2][1]] == [4, 4]
    for parts in found.values():
        np.testing.assert_array_equal(np.concatenate(parts[0]), images)
        np.testing.assert_array_equal(np.concatenate(parts[1]), labels)


def test_batch_larger_than_the_split_is_refused():
    with pytest.raises(UserError, match=r"batch_size: .*\b40\b.*\b64\b"):
        data.check_batches(made_examples(40), 64, NONE)


@pytest.mark.parametrize("batch_size", [7, 0, -2, 8.0, "8", True])
def test_batch_that_replicas_cannot_divide_is_refused(batch_size):
    with pytest.raises(UserError, match="batch_size: "):
        data.check_batches(made_examples(40), batch_size, NONE, replicas=2)


def test_largest_batch_and_widest_padding_are_accepted():
    """One more of either is refused."""
    for size, pad, is_valid in ((40, 7, True), (42, 7, False), (40, 8, False)):
        expected = contextlib.nullcontext() if is_valid else pytest.raises(UserError)
        with expected:
            data.check_batches(made_examples(40), size, data.Augmentation(pad=pad), replicas=2)


def test_padding_wider_than_the_image_is_refused():
    with pytest.raises(UserError, match=r"dataset\.pad: .*8x8"):
        data.check_batches(made_examples(40), 8, data.Augmentation(pad=8))


@pytest.mark.parametrize("pad", [-1, 1.5, "4", True, None])
def test_augmentation_refuses_invalid_padding(pad):
    with pytest.raises(UserError, match=r"dataset\.pad"):
        data.Augmentation(pad=pad)


@pytest.mark.parametrize("flip", [1, "yes", None])
def test_augmentation_refuses_invalid_flip(flip):
    with pytest.raises(UserError, match=r"dataset\.flip"):
        data.Augmentation(flip=flip)
