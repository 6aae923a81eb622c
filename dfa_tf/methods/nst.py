"""NST: neuron selectivity transfer (Huang and Wang, 2017)."""

import dataclasses
from typing import Literal

import tensorflow as tf

from dfa_tf.methods.connectors import group_connectors, group_pairs
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.vectors import unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class NST(Method):
    """CE + weight / 2 * sum over groups of a distance between the channels of S and T.

    The channels are those of a group's last feature after its ReLU, each divided by its norm.

    Args:
        weight: Weight of the loss.
        form: "mmd": the squared maximum mean discrepancy with the kernel (x . y)^2. "gram": the mean
            squared difference of the channels' Gram matrices, where a 1x1 convolution with batch
            normalization first maps S to the teacher's channels, as in Adaptive Distillation's code.
    """

    weight: NonNegative = 50.0
    form: Literal["mmd", "gram"] = "mmd"

    name = "nst"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)
        connectors = []
        if self.form == "gram":
            connectors = group_connectors(teacher, student, seed, precision)

        def terms(teacher, student, labels):
            maps = [(teacher.activation(t), student.activation(s)) for t, s in pairs]
            if self.form == "mmd":
                losses = [nst_loss(*pair) for pair in maps]
            else:
                losses = [
                    gram_loss(t, connect(s, training=True))
                    for (t, s), connect in zip(maps, connectors, strict=True)
                ]
            return {"nst": dict(zip(parts["nst"], losses, strict=True))}

        parts = {"nst": [t for t, _ in pairs]}
        return Distillation(terms, {"nst": self.weight / 2}, parts=parts, connectors=connectors)


def nst_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns MMD^2 `[B]` between the channels of two activations `[B, H, W, C]`."""
    t, s = (_channels(m) for m in match_sizes(teacher, student))
    return _mean_kernel(t, t) + _mean_kernel(s, s) - 2 * _mean_kernel(t, s)


def gram_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns the mean over C x C of (G_S - G_T)^2, where G is the Gram matrix of the channels.

    Args:
        teacher: Map `[B, H, W, C]`.
        student: Map `[B, H, W, C]`. The larger map is averaged down to the size of the other.

    Returns:
        Float32 tensor `[B]`.
    """
    t, s = (_channels(m) for m in match_sizes(teacher, student))
    return tf.reduce_mean(tf.square(_gram(s) - _gram(t)), [1, 2])


def _channels(activation):
    """Returns the channels, each divided by its norm: float32 [B, C, H * W]."""
    height, width, channels = activation.shape[1:]
    rows = tf.reshape(tf.cast(activation, tf.float32), [-1, height * width, channels])
    return unit(tf.transpose(rows, [0, 2, 1]))


def _gram(channels):
    return tf.matmul(channels, channels, transpose_b=True)


def _mean_kernel(x, y):
    return tf.reduce_mean(tf.square(tf.matmul(x, y, transpose_b=True)), [1, 2])
