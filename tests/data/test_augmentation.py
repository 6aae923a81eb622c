"""Colour changes and RandAugment: Pillow's pixels, and geometry by hand."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from dfa_tf.data import Augmentation, color
from dfa_tf.data.augmentation import color_jitter
from dfa_tf.data.rand_augment import CHANGES, rand_augment
from tests.conftest import same


@pytest.fixture(scope="module")
def image():
    coarse = np.random.default_rng(3).integers(20, 220, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC))


def _changed(name, image, strength=0.5, sign=1):
    found = CHANGES[name](tf.constant(image, tf.float32), strength, tf.constant(sign * strength))
    return np.clip(np.round(found), 0, 255).astype(int)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("change", "enhancement"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
        (color.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancement_has_the_pixels_of_pillow(image, change, enhancement, factor):
    expected = np.asarray(enhancement(Image.fromarray(image)).enhance(factor), int)
    found = change(tf.constant(image, tf.float32), factor).numpy()
    np.testing.assert_allclose(found, expected, atol=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", lambda image: image),
        ("auto_contrast", ImageOps.autocontrast),
        ("equalize", ImageOps.equalize),
        ("solarize", lambda image: ImageOps.solarize(image, 127.5)),
        ("posterize", lambda image: ImageOps.posterize(image, 6)),  # half of four bits are lost
        ("brightness", lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
    ],
)
def test_change_of_half_strength_has_the_pixels_of_pillow(image, name, expected):
    reference = np.asarray(expected(Image.fromarray(image)), int)
    np.testing.assert_allclose(_changed(name, image), reference, atol=1)


@pytest.mark.parametrize("name", ["auto_contrast", "equalize"])
def test_image_of_one_colour_stays_as_it_is(name):
    image = np.full((4, 5, 3), 77, np.uint8)
    assert same([_changed(name, image)], [image])


def test_geometric_changes_by_hand():
    """At strength 0.5: a translation by 0.5 * 150 / 331 of 20 pixels is 4.53, that is 5 or 4."""
    image = np.arange(400).reshape(20, 20, 1) % 251
    left = _changed("translate_x", image)
    np.testing.assert_array_equal(left[:, :15], image[:, 5:])
    assert (left[:, 16:] == 128).all()
    down = _changed("translate_y", image, sign=-1)
    np.testing.assert_array_equal(down[5:], image[:15])
    sheared = _changed("shear_x", image)  # row y moves by 0.15 y
    np.testing.assert_array_equal(sheared[0], image[0])
    np.testing.assert_array_equal(sheared[10, :17], image[10, 2:19])


def test_rotation_keeps_the_centre_and_equals_pillows():
    image = np.zeros((31, 31, 1), np.uint8)
    image[15, 15], image[12:15, 20:24] = 255, 200
    found = _changed("rotate", image, strength=0.9)[..., 0]
    assert found[15, 15] == 255
    turned = [
        np.asarray(Image.fromarray(image[..., 0]).rotate(angle, fillcolor=128))
        for angle in (27, -27)
    ]
    assert max(np.mean(found == each) for each in turned) > 0.97


def test_each_change_is_drawn_equally_often(image):
    """With one change, and of 1,400 draws about 100 each; those that change nothing count as one."""
    tensor = tf.constant(image)
    augment = tf.function(lambda seed: rand_augment(tensor, 1, 7.0, seed))
    found = [augment(tf.constant([1, k])).numpy().tobytes() for k in range(1400)]
    counts = {each: found.count(each) for each in set(found)}
    directed = ("rotate", "shear", "translate", "color", "contrast", "brightness", "sharpness")
    expected = sum(2 if name.startswith(directed) else 1 for name in CHANGES)
    assert len(counts) == expected
    assert counts[image.tobytes()] < 160
    assert all(20 < count < 160 for count in counts.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_follows_from_the_seed(channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 10, channels), np.uint8)
    augment = Augmentation(1, True, (0.4, 0.4, 0.4), (2, 9))
    first, again, other = (augment(images, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    assert first.dtype == tf.uint8
    assert first.shape == images.shape
    assert same([first], [again])
    assert not same([first], [other])


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 9, 3), (9, 2, 1)])
def test_image_without_an_inside_is_not_sharpened(shape):
    image = tf.random.stateless_uniform(shape, [1, 2], 0, 255)
    np.testing.assert_allclose(color.sharpness(image, 1.7), image, rtol=1e-6)


def test_jitter_multiplies_the_brightness_by_a_factor_from_one_minus_to_one_plus_s():
    images = np.full((400, 2, 2, 3), 100, np.uint8)
    draws = tf.random.stateless_uniform([3, 400, 1, 1, 1], [5, 6])
    found = color_jitter(tf.constant(images), (0.4, 0.0, 0.0), draws).numpy()
    values = found[:, 0, 0, 0]
    assert (found == values[:, np.newaxis, np.newaxis, np.newaxis]).all()
    assert 60 <= values.min() < 63
    assert 137 < values.max() <= 140
    assert abs(values.mean() - 100) < 4
