"""SP: which examples a network finds alike [Tung and Mori, ICCV 2019]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, flat, gathered, unit


@dataclasses.dataclass(frozen=True)
class SP:
    """Similarity-preserving distillation: CE + weight / B^2 |G_T - G_S|_F^2.

    G is A A^T with rows of norm 1, A the last group's activation [B, H W C]. It compares all
    examples of the global batch, also where replicas share it (see `gathered`).
    """

    weight: float = 3000.0

    name = "sp"
    needs = ()

    def build(self, teacher, student, seed, precision):
        t, s = teacher.group_names[-1], student.group_names[-1]

        def terms(teacher, student, labels):
            return {"sp": sp_loss(teacher.activation(t), student.activation(s))}

        return Distillation(terms, {"sp": self.weight})


def similarities(activation):
    """G's rows of this replica's examples: [B / replicas, B] from [B / replicas, H, W, C]."""
    a = flat(activation)
    return unit(tf.matmul(a, gathered(a), transpose_b=True))


def sp_loss(teacher, student):
    """|G_T - G_S|_F^2 / B^2 as its examples' shares [B], whose mean it is."""
    difference = similarities(teacher) - similarities(student)
    return tf.reduce_mean(tf.square(difference), -1)
