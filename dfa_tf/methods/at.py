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
    """CE + beta * sum over groups of the distance between attention maps Q / |Q| (Eqn 2).

    Q is the mean over channels of F^2, flattened to a vector. F is the last feature of a group,
    after its ReLU.

    Args:
        form: The distance between the normalized maps Q_S and Q_T. "paper":
            |Q_S - Q_T| / (2 H W), because §4 divides beta by the number of elements. "code":
            mean((Q_S - Q_T)^2), as in the authors' code and later implementations.
        beta: Weight of the sum over the groups.
    """

    form: Literal["paper", "code"] = "paper"
    beta: NonNegative = 1000.0

    name = "at"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)

        def terms(teacher, student, labels):
            distances = {
                t: at_distance(teacher.activation(t), student.activation(s), self.form)
                for t, s in pairs
            }
            return {"at": distances}

        return Distillation(terms, {"at": self.beta}, parts={"at": [t for t, _ in pairs]})


def attention(activation: tf.Tensor) -> tf.Tensor:
    """Returns the attention maps Q / |Q| `[B, H * W]` of activations `[B, H, W, C]`.

    Q is the mean of the squares over the channels.
    """
    return unit(flatten(tf.reduce_mean(tf.square(tf.cast(activation, tf.float32)), -1)))


def at_distance(teacher: tf.Tensor, student: tf.Tensor, form: str) -> tf.Tensor:
    """Returns the distance between the attention maps of two activations.

    Args:
        teacher: Map `[B, H, W, C]`.
        student: Map `[B, H, W, C]`. The larger map is averaged down to the size of the other.
        form: As in `AT`.

    Returns:
        Float32 tensor `[B]`.
    """
    teacher_attention, student_attention = (attention(m) for m in match_sizes(teacher, student))
    difference = student_attention - teacher_attention
    if form == "code":
        return tf.reduce_mean(tf.square(difference), -1)
    return norm(difference) / (2 * difference.shape[-1])
