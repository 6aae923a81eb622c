"""AT: where a network looks [Zagoruyko and Komodakis, ICLR 2017]."""

import dataclasses

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.method import Distillation, flat, group_pairs, matched, norm, unit


@dataclasses.dataclass(frozen=True)
class AT:
    """Attention transfer at the ends of all groups, after their ReLU.

    form: "paper": sum of beta / (2 H W) |Q_S - Q_T| over the groups (Eqn 2; the text of §4 divides
        beta by the elements of the map); "code", their own and others': beta mean((Q_S - Q_T)^2).
    """

    form: str = "paper"
    beta: float = 1000.0

    name = "at"
    needs = ()

    def __post_init__(self):
        if self.form not in ("paper", "code"):
            raise UserError(f"at.form is 'paper' or 'code', not {self.form!r}")

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)

        def terms(teacher, student, labels):
            distances = [
                at_distance(teacher.activation(t), student.activation(s), self.form)
                for t, s in pairs
            ]
            return {"at": tf.add_n(distances)}

        return Distillation(terms, {"at": self.beta})


def attention(activation):
    """Q / |Q| of Q = vec(mean of squares over the channels). [B, H, W, C] to [B, H W]."""
    return unit(flat(tf.reduce_mean(tf.square(tf.cast(activation, tf.float32)), -1)))


def at_distance(teacher, student, form):
    """Distance of two activations' attention [B], the larger averaged down; see `AT.form`."""
    q_t, q_s = (attention(m) for m in matched(teacher, student))
    if form == "code":
        return tf.reduce_mean(tf.square(q_s - q_t), -1)
    return norm(q_s - q_t) / (2 * q_s.shape[-1])
