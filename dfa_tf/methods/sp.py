"""SP: similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.replicas import global_batch
from dfa_tf.methods.vectors import flatten, unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class SP(Method):
    """CE + weight / B^2 |G_T - G_S|_F^2.

    G is A A^T with each row divided by its norm. A `[B, H * W * C]` is the activation of the last
    group for the global batch. |G|_F is the Frobenius norm.

    Args:
        weight: Weight of the loss.
    """

    weight: NonNegative = 3000.0

    name = "sp"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        t, s = teacher.group_names[-1], student.group_names[-1]

        def terms(teacher, student, labels):
            return {"sp": sp_loss(teacher.activation(t), student.activation(s))}

        return Distillation(terms, {"sp": self.weight})


def similarities(activation: tf.Tensor) -> tf.Tensor:
    """Returns the rows of G for this replica's activations.

    Args:
        activation: Tensor `[B / replicas, H, W, C]`.

    Returns:
        Float32 tensor `[B / replicas, B]`, where B is the size of the global batch.
    """
    a = flatten(activation)
    return unit(tf.matmul(a, global_batch(a), transpose_b=True))


def sp_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns values `[B]` whose mean is |G_T - G_S|_F^2 / B^2, for activations `[B, H, W, C]`."""
    difference = similarities(teacher) - similarities(student)
    return tf.reduce_mean(tf.square(difference), -1)
