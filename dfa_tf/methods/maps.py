"""Area averaging, which reduces feature maps of different sizes to the same size."""

import tensorflow as tf


def match_sizes(*maps: tf.Tensor) -> list[tf.Tensor]:
    """Averages maps `[B, H, W, C]` down to the smallest height and the smallest width."""
    height, width = (min(m.shape[axis] for m in maps) for axis in (1, 2))
    return [area_average(m, height, width) for m in maps]


def area_average(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes a map by averaging over equal areas.

    Args:
        x: Tensor `[B, H, W, C]`.
        height: The new height, at most H.
        width: The new width, at most W.

    Returns:
        Tensor `[B, height, width, C]`.
    """
    factors = [old // new for old, new in zip(x.shape[1:3], (height, width), strict=True)]
    if (height * factors[0], width * factors[1]) == tuple(x.shape[1:3]):
        if factors == [1, 1]:
            return x
        averages = tf.nn.avg_pool2d(tf.cast(x, tf.float32), factors, factors, "VALID")
        return tf.cast(averages, x.dtype)
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            shares = tf.constant(_shares(x.shape[axis], size), x.dtype)
            x = tf.tensordot(x, shares, [[axis], [0]])
            x = tf.transpose(x, [0, 3, 1, 2] if axis == 1 else [0, 1, 3, 2])
    return x


def _shares(before, after):
    """Returns a matrix [before, after]: the share of each old cell in each new cell.

    Columns sum to 1.
    """
    edge = before / after
    return [
        [max(0.0, min(i + 1, (j + 1) * edge) - max(i, j * edge)) / edge for j in range(after)]
        for i in range(before)
    ]
