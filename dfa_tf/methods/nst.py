"""NST: neuron selectivity transfer (Huang and Wang, 2017)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.connectors import group_pairs
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.vectors import unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class NST(Method):
    """CE + weight / 2 * sum over groups of MMD^2 with the kernel (x . y)^2.

    MMD is the maximum mean discrepancy between the channels of teacher and student. The channels
    are those of a group's last feature after its ReLU, each divided by its norm.

    Args:
        weight: Weight of the loss.
    """

    weight: NonNegative = 50.0

    name = "nst"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)

        def terms(teacher, student, labels):
            losses = [nst_loss(teacher.activation(t), student.activation(s)) for t, s in pairs]
            return {"nst": tf.add_n(losses)}

        return Distillation(terms, {"nst": self.weight / 2})


def nst_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns MMD^2 `[B]` between the channels of two activations `[B, H, W, C]`."""
    t, s = (_channels(m) for m in match_sizes(teacher, student))
    return _mean_kernel(t, t) + _mean_kernel(s, s) - 2 * _mean_kernel(t, s)


def _channels(activation):
    """Returns the channels, each divided by its norm: float32 [B, C, H * W]."""
    height, width, channels = activation.shape[1:]
    rows = tf.reshape(tf.cast(activation, tf.float32), [-1, height * width, channels])
    return unit(tf.transpose(rows, [0, 2, 1]))


def _mean_kernel(x, y):
    return tf.reduce_mean(tf.square(tf.matmul(x, y, transpose_b=True)), [1, 2])
