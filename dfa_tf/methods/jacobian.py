"""Jacobian matching (Srinivas and Fleuret, ICML 2018)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import INPUT_GRADIENT, LABELS, Distillation, Method
from dfa_tf.methods.vectors import flatten, unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class Jacobian(Method):
    """CE + weight * mean((J_S / |J_S| - J_T / |J_T|)^2).

    The mean is over the elements of the image, as in the public code that the weight comes from.
    J is the gradient of the true class's logit with respect to the image. The training step needs
    a second-order gradient. The student's batch statistics connect the images of a batch, so its J
    is the gradient of the sum of these logits over the batch.

    Args:
        weight: Weight of the Jacobian loss.
    """

    weight: NonNegative = 20.0

    name = "jacobian"
    needs = (INPUT_GRADIENT, LABELS)

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            return {"jacobian": jacobian_loss(teacher.input_gradient, student.input_gradient)}

        return Distillation(terms, {"jacobian": self.weight})


def jacobian_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference of two gradients, each divided by its norm.

    Args:
        teacher: Gradient `[B, H, W, C]`.
        student: Gradient `[B, H, W, C]`.

    Returns:
        Float32 tensor `[B]` with values from 0 to 4 / (H W C).
    """
    return tf.reduce_mean(tf.square(unit(flatten(student)) - unit(flatten(teacher))), -1)
