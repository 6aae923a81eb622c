"""Logits: the mean squared difference of the logits (Ba and Caruana, NeurIPS 2014)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class Logits(Method):
    """CE + weight * mean over classes of (z_S - z_T)^2, for the logits z.

    Args:
        weight: Weight of the loss.
    """

    weight: NonNegative = 1.0

    name = "logits"
    logits_only = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            return {"logits": logits_loss(teacher.logits, student.logits)}

        return Distillation(terms, {"logits": self.weight})


def logits_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns the mean over classes of (student - teacher)^2, `[B]`, for logits `[B, classes]`."""
    return tf.reduce_mean(tf.square(student - teacher), -1)
