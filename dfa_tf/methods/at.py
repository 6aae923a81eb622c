"""AT: attention transfer (Zagoruyko and Komodakis, ICLR 2017)."""

import dataclasses
from typing import Literal

import tensorflow as tf

from dfa_tf.methods.connectors import group_pairs
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.vectors import flatten, norm, unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class AT(Method):
    """CE + sum over groups of the distance of attention maps Q / |Q| (Eqn 2).

    Q = vec(mean over channels of F^2), of each group's last feature F after its ReLU.

    Args:
        form: "paper": beta / (2 H W) |Q_S - Q_T| for each group, because the text of §4 divides
            beta by the number of elements. "code", as in their and others' code:
            beta mean((Q_S - Q_T)^2).
        beta: Weight.
    """

    form: Literal["paper", "code"] = "paper"
    beta: NonNegative = 1000.0

    name = "at"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)

        def terms(teacher, student, labels):
            distances = [
                at_distance(teacher.activation(t), student.activation(s), self.form)
                for t, s in pairs
            ]
            return {"at": tf.add_n(distances)}

        return Distillation(terms, {"at": self.beta})


def attention(activation: tf.Tensor) -> tf.Tensor:
    """Returns Q / |Q| `[B, H W]`, Q the mean of squares over channels of `[B, H, W, C]`."""
    return unit(flatten(tf.reduce_mean(tf.square(tf.cast(activation, tf.float32)), -1)))


def at_distance(teacher: tf.Tensor, student: tf.Tensor, form: str) -> tf.Tensor:
    """Returns the distance `[B]` of two activations' attention; see `AT.form`."""
    teacher_attention, student_attention = (attention(m) for m in match_sizes(teacher, student))
    difference = student_attention - teacher_attention
    if form == "code":
        return tf.reduce_mean(tf.square(difference), -1)
    return norm(difference) / (2 * difference.shape[-1])
