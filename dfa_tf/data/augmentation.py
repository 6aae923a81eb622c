"""Random changes of training images, different in each step."""

import dataclasses
from typing import Annotated

import tensorflow as tf

from dfa_tf.data import color
from dfa_tf.data.part import Part
from dfa_tf.data.rand_augment import MAX_MAGNITUDE, rand_augment
from dfa_tf.validation import Interval, NonNegative, Settings

Pixels = Annotated[int, Interval(0)]
Strengths = tuple[NonNegative, NonNegative, NonNegative]
ChangesAndMagnitude = tuple[
    Annotated[int, Interval(1, 14)], Annotated[float, Interval(0, MAX_MAGNITUDE)]
]


@dataclasses.dataclass(frozen=True)
class Augmentation(Settings):
    """Random changes of each training image: shift, flip, colours, RandAugment, in this order.

    Args:
        pad: Pixels of reflection padding on each side before a random crop to the original size;
            0 for no shift.
        flip: Whether to flip images left to right with probability 0.5.
        color_jitter: Strengths (brightness, contrast, saturation). A strength s draws the factor of
            the change from max(0, 1 - s) to 1 + s. The usual strengths are (0.4, 0.4, 0.4). None
            for no change.
        rand_augment: Number and magnitude, 0 to 10, of RandAugment's changes, see `rand_augment`.
            Its paper uses (2, 9) for ResNet-50 on ImageNet. None for no change.

    Raises:
        UserError: If an argument is invalid.
    """

    pad: Pixels = 4
    flip: bool = True
    color_jitter: Strengths | None = None
    rand_augment: ChangesAndMagnitude | None = None

    name = "dataset"

    @property
    def is_slow(self) -> bool:
        """Whether a batch is worth a thread of its own."""
        return bool(self.color_jitter or self.rand_augment)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor, part: Part = Part()) -> tf.Tensor:
        """Augments a part of a batch.

        Args:
            images: uint8 [B, H, W, C].
            seed: int [2], for the whole batch.
            part: The part of the batch that the images are.

        Returns:
            The augmented images, with the shape and dtype of `images`.
        """
        batch_size = tf.shape(images)[0] * part.count
        rows = part.rows(batch_size)
        images = _shifted_and_flipped(images, self.pad, self.flip, seed, rows, batch_size)
        if self.color_jitter:
            own_seed = tf.random.experimental.stateless_fold_in(seed, 1)
            draws = tf.random.stateless_uniform([3, batch_size, 1, 1, 1], own_seed)[:, rows]
            images = color_jitter(images, self.color_jitter, draws)
        if self.rand_augment:
            count, magnitude = self.rand_augment
            own_seed = tf.random.experimental.stateless_fold_in(seed, 2)
            seeds = tf.random.experimental.stateless_split(own_seed, batch_size)[rows]
            images = tf.map_fn(
                lambda pair: rand_augment(pair[0], count, magnitude, pair[1]),
                (images, seeds),
                fn_output_signature=images.dtype,
            )
        return images


def color_jitter(
    images: tf.Tensor, strengths: tuple[float, float, float], draws: tf.Tensor
) -> tf.Tensor:
    """Changes brightness, contrast and saturation of each image by random factors.

    Args:
        images: uint8 [B, H, W, C].
        strengths: See `Augmentation`.
        draws: Uniform random numbers from 0 to 1, float32 [3, B, 1, 1, 1].

    Returns:
        uint8 [B, H, W, C].
    """
    changed = tf.cast(images, tf.float32)
    changes = (color.brightness, color.contrast, color.saturation)
    for change, strength, draw in zip(changes, strengths, tf.unstack(draws), strict=True):
        low = max(0.0, 1 - strength)
        changed = change(changed, low + draw * (1 + strength - low))
    return tf.ensure_shape(tf.cast(tf.round(changed), images.dtype), images.shape)


def _shifted_and_flipped(images, pad, flip, seed, rows, batch_size):
    if not pad and not flip:
        return images
    batch, height, width, channels = tf.unstack(tf.shape(images))
    draws = tf.random.stateless_uniform([3, batch_size], seed, None, None, tf.int32)[:, rows]
    shift = tf.math.floormod(draws[:2], 2 * pad + 1) - pad
    mirror = tf.math.floormod(draws[2], 2) * int(flip)

    rows = tf.range(height)[tf.newaxis] + shift[0, :, tf.newaxis]
    columns = tf.range(width)[tf.newaxis]
    columns = tf.where(mirror[:, tf.newaxis] == 1, width - 1 - columns, columns)
    columns = columns + shift[1, :, tf.newaxis]
    rows, columns = _reflect(rows, height), _reflect(columns, width)

    # Padding, crop and flip are one gather of source pixels, which saves the padded copy.
    pixels = tf.reshape(images, [batch, height * width, channels])
    source = rows[:, :, tf.newaxis] * width + columns[:, tf.newaxis, :]
    moved = tf.gather(pixels, tf.reshape(source, [batch, -1]), axis=1, batch_dims=1)
    return tf.ensure_shape(tf.reshape(moved, tf.shape(images)), images.shape)


def _reflect(positions, size):
    """Reflects positions outside 0..size-1 back inside, without repeating the edge pixel."""
    return size - 1 - tf.abs(size - 1 - tf.abs(positions))
