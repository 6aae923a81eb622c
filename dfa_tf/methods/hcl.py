"""The hierarchical context loss of ReviewKD, and the resize to the maps that it compares."""

import keras
import numpy as np
import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.methods.maps import area_average, match_sizes

LEVELS = (4, 2, 1)  # smaller sizes at which the hierarchical context loss also compares maps


def hcl(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns the hierarchical context loss `[B]` of two maps `[B, H, W, C]`.

    It is a weighted mean of mean squared differences: of the maps, and of their area averages at
    those of the sizes 4x4, 2x2 and 1x1 that are smaller. The weights are 1, 1/2, 1/4 and 1/8.
    """
    teacher, student = (tf.cast(m, tf.float32) for m in match_sizes(teacher, student))
    difference = teacher - student
    height, width = difference.shape[1:3]
    sizes = [(height, width)] + [(n, n) for n in LEVELS if n < min(height, width)]
    total, weights = 0.0, 0.0
    for k, size in enumerate(sizes):
        # Averaging the 4x4 averages gives the 2x2 averages of the full map, and is cheaper.
        difference = area_average(difference, *size)
        total += 0.5**k * tf.reduce_mean(tf.square(difference), [1, 2, 3])
        weights += 0.5**k
    return total / weights


def nearest(
    x: keras.KerasTensor, size: tuple[int, int], name: str, precision: str
) -> keras.KerasTensor:
    """Resizes a map of a Keras graph by nearest-neighbour interpolation.

    Args:
        x: Map `[B, H, W, C]`.
        size: The new height and width.
        name: Name of the layer; none is added if the size stays.
        precision: Keras dtype policy of the layer.

    Returns:
        Map `[B, height, width, C]`.
    """
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return Nearest(*size, name=name, dtype=precision)(x)


class Nearest(keras.layers.Layer):
    """Resizes maps to any size, as `keras.layers.Resizing` with interpolation="nearest".

    That layer has no second derivative, which the search for a process needs.

    Args:
        height: The new height.
        width: The new width.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, height: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self._size = height, width

    def call(self, inputs):
        rows, columns = (new // old for new, old in zip(self._size, inputs.shape[1:3], strict=True))
        if (inputs.shape[1] * rows, inputs.shape[2] * columns) == self._size:
            return kernels.repeated(inputs, rows, columns)
        for axis, new in enumerate(self._size, start=1):
            # In float32, so that rounding is that of TensorFlow's own resize.
            scale = np.float32(inputs.shape[axis]) / np.float32(new)
            sources = np.floor((np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale)
            inputs = tf.gather(inputs, sources.astype(np.int32), axis=axis)
        return inputs
