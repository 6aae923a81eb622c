"""Margin: the overhaul of feature distillation [Heo et al., ICCV 2019]."""

import dataclasses

import numpy as np
import tensorflow as tf
from scipy.stats import norm

from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import group_connectors
from dfa_tf.methods.feature_distillation import feature_distillation_loss, partial_l2
from dfa_tf.methods.method import Distillation, group_pairs, matched
from dfa_tf.models.layers import ResidualAdd
from dfa_tf.models.normalization import BatchNormalization


@dataclasses.dataclass(frozen=True)
class Margin:
    """CE + weight * sum over groups of 2^-(L - l) partial L2 of (BN(conv(S)), max(T, margin)).

    T: each group's end before its ReLU. margin: of each channel, what the teacher's values below
    0 come to on average, by its batch normalization (see `expected_negative`).
    """

    weight: float = 1e-3

    name = "margin"
    needs = ()

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)
        margins = [expected_negative(*normalization_of(teacher, t)) for t, _ in pairs]
        connectors = group_connectors(teacher, student, seed, precision)

        def terms(teacher, student, labels):
            students, targets = [], []
            for (t, s), margin, connect in zip(pairs, margins, connectors, strict=True):
                target = teacher.last(t)
                target = tf.maximum(target, tf.cast(margin, target.dtype))
                target, mapped = matched(target, connect(student.last(s), training=True))
                targets.append(target)
                students.append(mapped)
            return {"margin": feature_distillation_loss(students, targets, above_margin)}

        return Distillation(terms, {"margin": self.weight}, connectors=connectors)


def above_margin(student, target):
    """(S - T)^2 where S > T or T > 0, summed: [B]. T: already no smaller than its margin."""
    return partial_l2(student, target, -np.inf)


def expected_negative(mean, deviation):
    """E[x | x < 0] for normal x: [C] from its mean and standard deviation, the overhaul's margin.

    mean - s phi(mean / s) / Phi(-mean / s); where that probability is below 1e-3, -3 s.
    """
    deviation = np.maximum(np.abs(deviation), 1e-12)
    ratio = mean / deviation
    below = norm.cdf(-ratio)
    negative = mean - deviation * norm.pdf(ratio) / np.maximum(below, 1e-3)
    return np.where(below > 1e-3, negative, -3 * deviation).astype(np.float32)


def normalization_of(network, group):
    """(beta, gamma) [C] of the batch normalization that gives the group's last feature, or the
    branch that is added last to it.

    Raises UserError where there is none.
    """
    producer = network.group(group).features[-1]._keras_history.operation
    if isinstance(producer, ResidualAdd):
        producer = producer.input[1]._keras_history.operation
    if not isinstance(producer, BatchNormalization):
        raise UserError(
            f"margin takes each channel's margin from a batch normalization, and none gives the features of {network.name}'s {group}: take normalized features"
        )
    return np.array(producer.beta), np.array(producer.gamma)
