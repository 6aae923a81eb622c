"""Margin: the overhaul of feature distillation (Heo et al., ICCV 2019)."""

import dataclasses

import numpy as np
import tensorflow as tf
from scipy.stats import norm

from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import group_connectors, group_pairs
from dfa_tf.methods.feature_distillation import feature_distillation_loss, partial_l2
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class Margin(Method):
    """CE + weight * sum over groups l of 2^-(L - l) partial L2(BN(conv(S)), max(T, margin)).

    T is the last pre-ReLU feature of a group. The margin of a channel is the expectation of its
    negative values, from the batch normalization that outputs T (see `expected_negative`).

    Args:
        weight: Weight.
    """

    weight: NonNegative = 1e-3

    name = "margin"

    def check(self, teacher, student):
        """Checks that batch normalization outputs the teacher's features."""
        for group, _ in group_pairs(teacher, student):
            if teacher.group(group).normalization is None:
                raise UserError(
                    f"margin: expected a batch normalization that outputs the features of "
                    f"{teacher.name}'s {group}, got none; use normalized features"
                )

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        self.check(teacher, student)
        pairs = group_pairs(teacher, student)
        margins = []
        for t, _ in pairs:
            normalization = teacher.group(t).normalization
            mean, deviation = np.array(normalization.beta), np.array(normalization.gamma)
            margins.append(expected_negative(mean, deviation))
        connectors = group_connectors(teacher, student, seed, precision)

        def terms(teacher, student, labels):
            students, targets = [], []
            for (t, s), margin, connect in zip(pairs, margins, connectors, strict=True):
                target = teacher.last(t)
                target = tf.maximum(target, tf.cast(margin, target.dtype))
                target, transformed = match_sizes(target, connect(student.last(s), training=True))
                targets.append(target)
                students.append(transformed)
            return {"margin": feature_distillation_loss(students, targets, l2_above_margin)}

        return Distillation(terms, {"margin": self.weight}, connectors=connectors)


def l2_above_margin(student: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns the sum `[B]` of (s - t)^2 where s > t or t > 0; t is no smaller than its margin."""
    return partial_l2(student, target, -np.inf)


def expected_negative(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Returns E[x | x < 0] for normal x, the margin of each channel.

    With mean m, deviation s, and phi and Phi of the standard normal distribution, it is
    m - s phi(m / s) / Phi(-m / s), or -3 s if Phi(-m / s) is below 1e-3.

    Args:
        mean: Array `[C]`.
        deviation: Array `[C]`; its sign is ignored.

    Returns:
        Float32 array `[C]`.
    """
    deviation = np.maximum(np.abs(deviation), 1e-12)
    ratio = mean / deviation
    below = norm.cdf(-ratio)
    negative = mean - deviation * norm.pdf(ratio) / np.maximum(below, 1e-3)
    return np.where(below > 1e-3, negative, -3 * deviation).astype(np.float32)
