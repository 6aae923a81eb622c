"""Resizing and random crops: windows computed by hand, and Pillow's pixels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dfa_tf import data
from dfa_tf.data.preprocessing import Preprocessing, random_window, resized
from dfa_tf.errors import UserError
from tests.conftest import same


def _picture(height, width, seed=0):
    """A smooth picture, so that small differences of position give small differences of value."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("shape", "size", "fraction", "window"),
    [
        (
            (300, 400),
            (200, 200),
            1.0,
            (0, 50, 300, 300),
        ),  # as much of the long side as of the short
        ((400, 300), (200, 200), 1.0, (50, 0, 300, 300)),
        ((256, 256), (224, 224), 0.875, (16, 16, 224, 224)),  # ImageNet: 224 of 256 pixels
        ((300, 400), (100, 200), 1.0, (50, 0, 200, 400)),  # the result is twice as wide as high
        ((101, 50), (10, 10), 0.5, (38, 12, 25, 25)),  # rounded down where the rest is odd
        ((1, 9), (4, 4), 0.1, (0, 4, 1, 1)),  # at least one pixel
    ],
)
def test_window_is_the_largest_centred_one_times_the_fraction(shape, size, fraction, window):
    found = Preprocessing(crop_fraction=fraction).window(tf.constant(shape), size)
    assert tuple(map(int, found)) == window


@pytest.mark.parametrize("shape", [(60, 91), (91, 60), (40, 23), (17, 17)])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_resized_window_has_the_pixels_of_pillow(shape, fraction):
    picture, size = _picture(*shape), (24, 32)
    preprocessing = Preprocessing(crop_fraction=fraction)
    top, left, height, width = map(int, preprocessing.window(tf.constant(shape), size))
    expected = Image.fromarray(picture).crop((left, top, left + width, top + height))
    expected = expected.resize((32, 24), Image.Resampling.BILINEAR)
    found = preprocessing(tf.constant(picture), size).numpy()
    np.testing.assert_allclose(found, np.asarray(expected), atol=2)


def test_stretched_picture_has_the_pixels_of_pillow():
    picture = _picture(60, 91)
    expected = Image.fromarray(picture).resize((24, 24), Image.Resampling.BILINEAR)
    found = Preprocessing("stretch")(tf.constant(picture), (24, 24)).numpy()
    np.testing.assert_allclose(found, np.asarray(expected), atol=2)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_picture_of_the_size_is_unchanged(resize):
    picture = _picture(24, 32)
    assert same([Preprocessing(resize)(tf.constant(picture), (24, 32)).numpy()], [picture])


def _window_of(crop, shape):
    """Returns (height, width) of the window of a picture whose pixels are their own positions."""
    rows, columns = crop[..., 0], crop[..., 1]
    return np.ptp(rows) / 255 * shape[0], np.ptp(columns) / 255 * shape[1]


def _random_crop(picture, size, areas, seed):
    return resized(tf.slice(picture, *random_window(tf.shape(picture), areas, seed)), size)


def test_random_windows_have_the_areas_and_aspect_ratios_asked_for():
    shape, areas = (200, 300), (0.2, 0.6)
    rows, columns = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 300), indexing="ij")
    picture = tf.constant(np.stack([rows, columns, rows], -1).astype(np.uint8))
    crop = tf.function(lambda seed: _random_crop(picture, (100, 100), areas, seed))
    windows = [_window_of(crop(tf.constant([7, k])).numpy(), shape) for k in range(200)]
    fractions = [height * width / (200 * 300) for height, width in windows]
    ratios = [width / height for height, width in windows]
    assert 0.17 < min(fractions) < 0.24
    assert 0.54 < max(fractions) < 0.63
    assert 0.70 < min(ratios) < 0.80
    assert 1.25 < max(ratios) < 1.40


def test_random_crop_follows_from_the_seed():
    picture = tf.constant(_picture(60, 91))
    crops = [
        _random_crop(picture, (24, 24), (0.08, 1.0), tf.constant([3, k])).numpy() for k in (1, 1, 2)
    ]
    assert same(crops[:1], crops[1:2])
    assert not same(crops[:1], crops[2:])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_crop_of_a_file_is_that_of_its_picture(tmp_path, suffix):
    """Of JPEG files the window alone is decoded. Its outer columns may differ a little."""
    for name, side in (("ant", 0), ("bee", 1)):
        for k in range(3):
            path = tmp_path / "images" / name / f"{k}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_picture(91 + side, 130)).save(path)
    settings = {"image_size": (24, 24), "random_resized_crop": (0.2, 0.6)}
    dataset = data.load(f"folder:{tmp_path / 'images'}", tmp_path / "data", **settings)
    encoded = (tmp_path / "images" / "ant" / f"0.{suffix}").read_bytes()
    picture = tf.constant(np.asarray(Image.open(tmp_path / "images" / "ant" / f"0.{suffix}")))
    for k in range(8):
        seed = tf.constant([5, k])
        found = dataset.train.decoding.crop(tf.constant(encoded), seed).numpy().astype(int)
        expected = _random_crop(picture, (24, 24), (0.2, 0.6), seed).numpy()
        difference = np.abs(found - expected)
        assert difference.mean() < 0.3
        assert not difference[:, 2:-2].any()


@pytest.mark.parametrize(
    ("setting", "arguments"),
    [
        ("crop_fraction", {"image_size": (8, 8), "resize": "stretch", "crop_fraction": 0.9}),
        ("crop_fraction", {"image_size": (8, 8), "crop_fraction": 0}),
        ("resize", {"image_size": (8, 8), "resize": "fit"}),
        ("image_size", {"crop_fraction": 0.9}),
        ("image_size", {"resize": "stretch"}),
        ("random_resized_crop", {"random_resized_crop": (0.5, 0.2)}),
        ("random_resized_crop", {"random_resized_crop": (0, 1)}),
        ("in_memory", {"random_resized_crop": (0.2, 1), "in_memory": True}),
        ("color_jitter", {"color_jitter": (0.4, 0.4)}),
        ("color_jitter", {"color_jitter": (-1, 0, 0)}),
        ("rand_augment", {"rand_augment": (2, 11)}),
        ("rand_augment", {"rand_augment": (0, 5)}),
    ],
)
def test_senseless_setting_is_named(setting, arguments):
    with pytest.raises(UserError, match=rf"dataset\.{setting}: "):
        data.load("cifar100", **arguments)
