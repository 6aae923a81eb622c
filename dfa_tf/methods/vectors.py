"""Norms whose gradients are finite everywhere."""

import math

import tensorflow as tf

from dfa_tf.kernels import TINY


def flatten(x: tf.Tensor) -> tf.Tensor:
    """Returns x `[B, ...]` as float32 `[B, elements]`."""
    return tf.reshape(tf.cast(x, tf.float32), [-1, math.prod(x.shape[1:])])


def unit(x: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Returns x / |x| along an axis. Where x is 0, the result is 0 and its gradient is finite."""
    return tf.math.l2_normalize(x, axis, TINY)


def norm(x: tf.Tensor) -> tf.Tensor:
    """Returns |x| over the last axis. Its gradient is 0, not infinite, where x is 0."""
    squares = tf.reduce_sum(tf.square(x), -1)
    is_positive = squares > TINY
    return tf.where(is_positive, tf.sqrt(tf.where(is_positive, squares, 1.0)), 0.0)
