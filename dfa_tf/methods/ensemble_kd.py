"""KD from an ensemble: the targets are the mean of the teachers' probabilities."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.kd import kl_divergence
from dfa_tf.methods.method import TEACHERS, Distillation, Method
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class EnsembleKD(Method):
    """gamma CE + alpha tau^2 KL(mean over teachers of softmax(T / tau) || softmax(S / tau)).

    With several teachers, `kd` is the mean of their KL divergences instead.

    Args:
        temperature: Temperature tau.
        alpha: Weight of the KL divergence.
        gamma: Weight of the cross entropy.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 0.9
    gamma: NonNegative = 0.1

    name = "ensemble_kd"
    needs = (TEACHERS,)
    logits_only = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teachers, student, labels):
            log_probs = [tf.nn.log_softmax(t.logits / self.temperature) for t in teachers]
            mean = tf.reduce_logsumexp(tf.stack(log_probs), 0) - tf.math.log(float(len(teachers)))
            student_log_probs = tf.nn.log_softmax(student.logits / self.temperature)
            return {"ensemble_kd": self.temperature**2 * kl_divergence(mean, student_log_probs)}

        return Distillation(terms, {"ensemble_kd": self.alpha}, cross_entropy=self.gamma)
