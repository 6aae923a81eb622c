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

    G = A A^T with rows of norm 1, where A `[B, H W C]` is the last group's activation of the
    global batch.

    Args:
        weight: Weight.
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
    """Returns G's rows `[B / replicas, B]` of this replica's activations `[B / replicas, ...]`."""
    a = flatten(activation)
    return unit(tf.matmul(a, global_batch(a), transpose_b=True))


def sp_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns values `[B]` whose mean is |G_T - G_S|_F^2 / B^2."""
    difference = similarities(teacher) - similarities(student)
    return tf.reduce_mean(tf.square(difference), -1)
