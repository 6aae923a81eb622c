"""Decoding of images on disk: the same for all uses, or a random crop for each use in training."""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

CROP = 3  # distinguishes the seeds of crops from those of the order and of the augmentation


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Decodes images that are kept encoded.

    Args:
        decode: Maps an encoded image to uint8 [H, W, C].
        image_shape: (height, width, channels).
        crop: Maps an encoded image and a seed, int [2], to a random crop, uint8 [H, W, C], which
            training uses in place of the decoded image; None for no crop.
    """

    decode: Callable[[tf.Tensor], tf.Tensor]
    image_shape: tuple[int, int, int]
    crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    def images(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        """Maps (encoded image, label) to (image [H, W, C] uint8, label int32)."""

        def decoded(image, label):
            return tf.ensure_shape(self.decode(image), self.image_shape), tf.cast(label, tf.int32)

        return _mapped(examples, decoded)

    def training_images(self, numbered: tf.data.Dataset, seed: int) -> tf.data.Dataset:
        """Maps (number, (encoded image, label)) to (image or crop, label).

        Args:
            numbered: The examples. `number` is an example's position in the training, over all
                epochs, which determines its crop.
            seed: Seed of the crops.
        """
        if self.crop is None:
            return self.images(numbered.map(lambda _, example: example))

        def cropped(number, example):
            image, label = example
            own_seed = tf.random.experimental.stateless_fold_in(
                tf.stack([tf.constant(seed, tf.int64), number]), CROP
            )
            image = tf.ensure_shape(self.crop(image, own_seed), self.image_shape)
            return image, tf.cast(label, tf.int32)

        return _mapped(numbered, cropped)


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with autotuning disabled.

    TensorFlow's tuning thread can delay the end of an iterator for minutes.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _mapped(dataset, function):
    return without_autotuning(dataset.map(function, os.cpu_count(), deterministic=True))
