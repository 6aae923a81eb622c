"""The aggregation of a group's features that DFA searches for and distils (ECCV 2020, §3.2, §3.4)."""

from collections.abc import Sequence

import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.kernels import FLOOR, accelerated


def aggregation_weights(beta: tf.Tensor) -> tf.Tensor:
    """Returns alpha `[N]`, the weights of a group's features, from beta `[N]` (Eqn 6)."""
    return tf.nn.softmax(beta)


@accelerated(kernels.aggregate)
def aggregate(features: Sequence[tf.Tensor], alpha: tf.Tensor, clipped: bool = False) -> tf.Tensor:
    """Returns A_i, the weighted sum of a group's features (Eqn 2).

    Args:
        features: N tensors `[B, H, W, C]`.
        alpha: Float32 tensor `[N]` whose sum is 1.
        clipped: Whether to clip the features at -1 first (§3.4).

    Returns:
        Tensor `[B, H, W, C]` in the features' dtype. The sum is computed in float32.
    """
    features = [clip(T) for T in features] if clipped else features
    A = sum(a * tf.cast(T, tf.float32) for a, T in zip(tf.unstack(alpha), features, strict=True))
    return tf.cast(A, features[0].dtype)


@accelerated(kernels.clip)
def clip(feature: tf.Tensor) -> tf.Tensor:
    """Returns max(feature, -1) `[B, H, W, C]`: values of at least -1 are preserved (§3.4)."""
    return tf.maximum(feature, tf.cast(FLOOR, feature.dtype))
