"""Noise images in the shape of a data set, for timing."""

import os

import numpy as np
from sklearn.datasets import load_digits

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.dataset import Dataset
from dfa_tf.data.examples import Examples
from dfa_tf.data.tfds_builders import open_builder, shape_and_classes
from dfa_tf.validation import Count, checked_arguments

COUNT = 10_000


@checked_arguments("dataset")
def noise_like(
    name: str,
    data_dir: str | os.PathLike | None = None,
    image_size: tuple[Count, Count] | None = None,
) -> Dataset:
    """Builds a data set of noise with the image shape and the classes of another one.

    The other data set need not be prepared.

    Args:
        name: Name of the other data set, as in `load`.
        data_dir: As in `load`.
        image_size: As in `load`.

    Raises:
        UserError: If the data set is unknown, or its images differ in size and `image_size` is
            None.
    """
    if name == "digits":
        image_shape, num_classes = (8, 8, 1), len(load_digits().target_names)
    else:
        builder = open_builder(name, data_dir)
        image_shape, num_classes = shape_and_classes(builder, name, image_size)
    draws = np.random.default_rng(0)
    examples = Examples(
        draws.integers(0, 256, (COUNT, *image_shape), np.uint8),
        draws.integers(0, num_classes, COUNT),
    )
    channels = image_shape[-1]
    return Dataset(
        name=f"noise like {name}",
        train=examples,
        test=examples,
        class_names=tuple(map(str, range(num_classes))),
        mean=(0.5,) * channels,
        std=(0.29,) * channels,
        augmentation=Augmentation(pad=min(4, min(image_shape[:2]) // 8)),
    )
