"""Images that show nothing, in the shape of a data set: for timing, where content counts nothing."""

import numpy as np
from sklearn.datasets import load_digits

from dfa_tf.data.dataset import Dataset
from dfa_tf.data.examples import Examples
from dfa_tf.data.pipeline import Augmentation
from dfa_tf.data.prepared import outline

COUNT = 10_000


def noise_like(name, data_dir=None, image_size=None):
    """A Dataset of noise with the image shape and the classes of the set `name`.

    The set itself is not needed. Arguments and errors as of `load`.
    """
    if name == "digits":
        image_shape, num_classes = (8, 8, 1), len(load_digits().target_names)
    else:
        image_shape, num_classes = outline(name, data_dir, image_size)
    draws = np.random.default_rng(0)
    examples = Examples(
        draws.integers(0, 256, (COUNT, *image_shape), np.uint8),
        draws.integers(0, num_classes, COUNT),
    )
    channels = image_shape[-1]
    classes = tuple(map(str, range(num_classes)))
    augmentation = Augmentation(pad=min(4, min(image_shape[:2]) // 8))
    return Dataset(
        f"noise like {name}",
        examples,
        examples,
        classes,
        (0.5,) * channels,
        (0.29,) * channels,
        augmentation,
    )
