"""Jacobian matching: how the answer changes with the image [Srinivas and Fleuret, ICML 2018]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import INPUT_GRADIENT, Distillation, flat, unit


@dataclasses.dataclass(frozen=True)
class Jacobian:
    """CE + weight |J_S / |J_S| - J_T / |J_T||^2, J the gradient of the true class' logit.

    Its training step takes a gradient of a gradient. Within a batch of which the student takes
    batch statistics, J is that of the sum of the logits.
    """

    weight: float = 20.0

    name = "jacobian"
    needs = (INPUT_GRADIENT,)

    def build(self, teacher, student, seed, precision):
        def terms(teacher, student, labels):
            return {"jacobian": jacobian_loss(teacher.input_gradient, student.input_gradient)}

        return Distillation(terms, {"jacobian": self.weight})


def jacobian_loss(teacher, student):
    """Squared distance of the two directions. [B, H, W, C] each. Returns [B], within 0..4."""
    return tf.reduce_sum(tf.square(unit(flat(student)) - unit(flat(teacher))), -1)
