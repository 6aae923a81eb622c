"""KD: softened logits (Hinton, Vinyals and Dean, 2015).

The logits can be standardized first: Sun et al., "Logit Standardization in Knowledge Distillation",
CVPR 2024.
"""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.vectors import norm
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class KD(Method):
    """gamma CE + alpha tau^2 KL(softmax(T / tau) || softmax(S / tau)).

    Args:
        temperature: Temperature tau.
        alpha: Weight of the KL divergence.
        gamma: Weight of the cross entropy.
        standardize: Whether T and S are standardized first (`standardize_logits`). The published
            settings are then temperature 2, alpha 9 and gamma 1.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 0.9
    gamma: NonNegative = 0.1
    standardize: bool = False

    name = "kd"
    logits_only = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            t, s = teacher.logits, student.logits
            if self.standardize:
                t, s = standardize_logits(t), standardize_logits(s)
            return {"kd": kd_loss(t, s, self.temperature)}

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


def standardize_logits(logits: tf.Tensor) -> tf.Tensor:
    """Returns (z - mean) / (std + 1e-7) of each example (Sun et al., Algorithm 1).

    A student can then match the relations between the teacher's logits without their mean and
    scale. The standard deviation is the sample's (n - 1), as in the authors' code.

    Args:
        logits: Tensor `[B, classes]`.

    Returns:
        Tensor `[B, classes]`.
    """
    centred = logits - tf.reduce_mean(logits, -1, keepdims=True)
    std = norm(centred)[:, None] / (logits.shape[-1] - 1) ** 0.5
    return centred / (std + 1e-7)


def kl_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Returns KL(p || q) `[B]` for log-probabilities `[B, classes]`."""
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)
