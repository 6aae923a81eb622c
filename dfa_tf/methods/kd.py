"""KD: the teacher's softened answers [Hinton, Vinyals and Dean, 2015]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, check_positive


@dataclasses.dataclass(frozen=True)
class KD:
    """gamma CE + alpha tau^2 KL(softmax(T / tau) || softmax(S / tau)).

    temperature: tau. alpha: weight of the divergence. gamma: of the cross entropy.
    """

    temperature: float = 4.0
    alpha: float = 0.9
    gamma: float = 0.1

    name = "kd"
    needs = ()

    def __post_init__(self):
        check_positive(self, "temperature")

    def build(self, teacher, student, seed, precision):
        def terms(teacher, student, labels):
            return {"kd": kd_loss(teacher.logits, student.logits, self.temperature)}

        return Distillation(terms, {"kd": self.alpha}, cross_entropy=self.gamma)


def kd_loss(teacher, student, temperature):
    """tau^2 KL(softmax(T / tau) || softmax(S / tau)). Logits [B, classes]. Returns [B].

    tau^2 keeps the gradient's size whatever the temperature.
    """
    of_teacher, of_student = (tf.nn.log_softmax(z / temperature) for z in (teacher, student))
    return temperature**2 * divergence(of_teacher, of_student)


def divergence(log_p, log_q):
    """KL(p || q) over the last axis, from logarithms: [B, classes] each. Returns [B]."""
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)
