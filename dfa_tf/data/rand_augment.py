"""RandAugment (Cubuk et al., CVPR workshops 2020): a few random changes of each image."""

import math
from collections.abc import Callable

import tensorflow as tf

from dfa_tf.data import color

MAX_MAGNITUDE = 10  # AutoAugment's strongest change
FILL = 128  # of pixels that a geometric change leaves empty
_SHEAR, _DEGREES, _TRANSLATION, _ENHANCEMENT = 0.3, 30.0, 150 / 331, 0.9  # at MAX_MAGNITUDE
_LOST_BITS = 4


def rand_augment(image: tf.Tensor, count: int, magnitude: float, seed: tf.Tensor) -> tf.Tensor:
    """Applies random changes to an image, one after the other.

    Changes are drawn uniformly, with replacement, from the 14 of the paper. As in torchvision, all
    grow with the magnitude; those that have a direction go either way.

    Args:
        image: uint8 [H, W, C].
        count: Number of changes, the paper's N. Its ImageNet ResNet-50 uses 2.
        magnitude: Strength of the changes from 0 to 10, the paper's M. Its ResNet-50 uses 9.
        seed: int [2].

    Returns:
        uint8 [H, W, C].
    """
    draws = tf.random.stateless_uniform([count, 2], seed, 0, 2**31 - 1, tf.int32)
    changed = tf.cast(image, tf.float32)
    strength = magnitude / MAX_MAGNITUDE
    for k in range(count):
        signed = strength * tf.cast(1 - 2 * tf.math.floormod(draws[k, 1], 2), tf.float32)
        branches = [_branch(change, changed, strength, signed) for change in CHANGES.values()]
        changed = tf.switch_case(tf.math.floormod(draws[k, 0], len(branches)), branches)
        changed = tf.ensure_shape(changed, image.shape)
    return tf.cast(tf.round(tf.clip_by_value(changed, 0, 255)), tf.uint8)


def _branch(change, image, strength, signed) -> Callable:
    return lambda: change(image, strength, signed)


def _auto_contrast(image, *_):
    low, high = (reduce(image, [0, 1], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = 255 / tf.maximum(high - low, 1)
    return tf.where(high > low, tf.floor((image - low) * scale + 1e-3), image)


def _equalize(image, *_):
    channels = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast(tf.stack([_equalized(channel) for channel in channels], -1), tf.float32)


def _equalized(channel):
    """Returns a channel, int32 [H, W], with values that are about equally frequent."""
    histogram = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
    last = histogram[tf.reduce_max(channel)]
    step = (tf.reduce_sum(histogram) - last) // 255
    below = tf.cumsum(histogram, exclusive=True)
    table = (below + step // 2) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.gather(tf.clip_by_value(table, 0, 255), channel), channel)


def _rotate(image, _, signed):
    angle = signed * math.radians(_DEGREES)
    cos, sin = tf.cos(angle), tf.sin(angle)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x, y = (width - 1) / 2, (height - 1) / 2  # the centre, which stays in place
    return _transformed(image, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def _shear_x(image, _, signed):
    return _transformed(image, [1.0, _SHEAR * signed, 0.0, 0.0, 1.0, 0.0])


def _shear_y(image, _, signed):
    return _transformed(image, [1.0, 0.0, 0.0, _SHEAR * signed, 1.0, 0.0])


def _translate_x(image, _, signed):
    width = tf.cast(tf.shape(image)[1], tf.float32)
    return _transformed(image, [1.0, 0.0, _TRANSLATION * signed * width, 0.0, 1.0, 0.0])


def _translate_y(image, _, signed):
    height = tf.cast(tf.shape(image)[0], tf.float32)
    return _transformed(image, [1.0, 0.0, 0.0, 0.0, 1.0, _TRANSLATION * signed * height])


def _transformed(image, matrix):
    """Moves pixels. The matrix maps (x, y) of the result to (x, y) of the image."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([*matrix, 0.0, 0.0])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=tf.constant(FILL, tf.float32),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _posterize(image, strength, _):
    lost = 2.0 ** round(_LOST_BITS * strength)
    return tf.floor(image / lost) * lost


def _solarize(image, strength, _):
    return tf.where(image >= 255 * (1 - strength), 255 - image, image)


def _enhancement(change):
    return lambda image, _, signed: tf.round(change(image, 1 + _ENHANCEMENT * signed))


CHANGES: dict[str, Callable] = {
    "identity": lambda image, *_: image,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _enhancement(color.saturation),
    "posterize": _posterize,
    "contrast": _enhancement(color.contrast),
    "brightness": _enhancement(color.brightness),
    "sharpness": _enhancement(color.sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
