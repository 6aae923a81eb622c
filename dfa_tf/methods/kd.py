"""KD: softened logits (Hinton, Vinyals and Dean, 2015)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class KD(Method):
    """gamma CE + alpha tau^2 KL(softmax(T / tau) || softmax(S / tau)).

    Args:
        temperature: Temperature tau.
        alpha: Weight of the KL divergence.
        gamma: Weight of the cross entropy.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 0.9
    gamma: NonNegative = 0.1

    name = "kd"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            return {"kd": kd_loss(teacher.logits, student.logits, self.temperature)}

        return Distillation(terms, {"kd": self.alpha}, cross_entropy=self.gamma)


def kd_loss(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns tau^2 KL(softmax(T / tau) || softmax(S / tau)).

    The factor tau^2 keeps the magnitude of the gradient similar for all temperatures.

    Args:
        teacher: Logits T `[B, classes]`.
        student: Logits S `[B, classes]`.
        temperature: tau.

    Returns:
        Tensor `[B]`.
    """
    teacher_log_probs, student_log_probs = (
        tf.nn.log_softmax(logits / temperature) for logits in (teacher, student)
    )
    return temperature**2 * kl_divergence(teacher_log_probs, student_log_probs)


def kl_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Returns KL(p || q) `[B]` for log-probabilities `[B, classes]`."""
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)
