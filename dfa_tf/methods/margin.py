"""Margin: the overhaul of feature distillation (Heo et al., ICCV 2019)."""

import dataclasses

import numpy as np
import tensorflow as tf
from scipy.stats import norm

from dfa_tf.kernels import FLOOR
from dfa_tf.methods.connectors import group_connectors, group_pairs
from dfa_tf.methods.feature_distillation import feature_distillation_loss, partial_l2
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.models.network import Group
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class Margin(Method):
    """CE + weight * sum over groups l of 2^-(L - l) partial L2(BN(conv(S)), max(T, margin)).

    T and S are the last pre-ReLU features of group l = 1..L. If a batch normalization outputs T,
    the margin of a channel is the expectation of its negative values, which follows from the
    parameters of the normalization (see `expected_negative`). Otherwise, as for the sum of a
    residual block, the margin is -1.

    Args:
        weight: Weight of the sum over the groups.
    """

    weight: NonNegative = 1e-3

    name = "margin"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)
        margins = [margin_of(teacher.group(group)) for group, _ in pairs]
        connectors = group_connectors(teacher, student, seed, precision)

        def terms(teacher, student, labels):
            students, targets = {}, {}
            for (t, s), margin, connect in zip(pairs, margins, connectors, strict=True):
                target = teacher.last(t)
                target = tf.maximum(target, tf.cast(margin, target.dtype))
                target, transformed = match_sizes(target, connect(student.last(s), training=True))
                targets[t], students[t] = target, transformed
            return {"margin": feature_distillation_loss(students, targets, l2_above_margin)}

        parts = {"margin": [t for t, _ in pairs]}
        return Distillation(terms, {"margin": self.weight}, parts=parts, connectors=connectors)


def margin_of(group: Group) -> np.ndarray:
    """Returns the margin of each channel of a teacher's group: float32 `[C]`."""
    normalization = group.normalization
    if normalization is None:
        return np.full(group.feature_shape[-1], FLOOR, np.float32)
    return expected_negative(np.array(normalization.beta), np.array(normalization.gamma))


def l2_above_margin(student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns the sum of (s - t)^2 over the elements where s > t or t > 0.

    Args:
        student: Tensor `[B, H, W, C]` with elements s.
        target: Tensor `[B, H, W, C]` with elements t, clipped at the margin of each channel.

    Returns:
        Float32 tensor `[B]`.
    """
    return partial_l2(student, target, -np.inf)


def expected_negative(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Returns E[x | x < 0] for normally distributed x, the margin of each channel.

    Let m be the mean, s the standard deviation, and phi and Phi the density and the distribution
    function of the standard normal distribution. The expectation is m - s phi(m / s) / Phi(-m / s).
    If Phi(-m / s) is at most 1e-3, the result is -3 s.

    Args:
        mean: Means, an array `[C]`.
        deviation: Standard deviations, an array `[C]`. Signs are ignored.

    Returns:
        Float32 array `[C]`.
    """
    deviation = np.maximum(np.abs(deviation), 1e-12)
    ratio = mean / deviation
    below = norm.cdf(-ratio)
    negative = mean - deviation * norm.pdf(ratio) / np.maximum(below, 1e-3)
    return np.where(below > 1e-3, negative, -3 * deviation).astype(np.float32)
