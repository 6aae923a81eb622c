"""DKD: KD taken apart into target and non-target classes [Zhao et al., CVPR 2022]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.kd import divergence
from dfa_tf.methods.method import Distillation, check_positive


@dataclasses.dataclass(frozen=True)
class DKD:
    """CE + alpha TCKD + beta NCKD, at one temperature (Eqn 7).

    The paper raises the distillation's weight linearly over 20 epochs first; here it is whole
    from the start. beta: 6 in their CIFAR-100 settings for wide ResNets, 8 for most ResNets.
    """

    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 6.0

    name = "dkd"
    needs = ()

    def __post_init__(self):
        check_positive(self, "temperature")

    def build(self, teacher, student, seed, precision):
        def terms(teacher, student, labels):
            return dkd_terms(teacher.logits, student.logits, labels, self.temperature)

        return Distillation(terms, {"tckd": self.alpha, "nckd": self.beta})


def dkd_terms(teacher, student, labels, temperature):
    """TCKD and NCKD (Eqns 5 and 6), times tau^2. Logits [B, classes], labels [B]. Returns [B] each.

    TCKD: the divergence of (true class, all others) as two outcomes. NCKD: that of the softmax
    over the others alone. KD is TCKD + (1 - p_t) NCKD with the teacher's p_t.
    """
    classes = teacher.shape[-1]
    is_true = tf.one_hot(labels, classes, on_value=True, off_value=False)
    binary, others = [], []
    for logits in (teacher, student):
        log_p = tf.nn.log_softmax(logits / temperature)
        rest = tf.reshape(tf.boolean_mask(log_p, ~is_true), [-1, classes - 1])
        log_rest = tf.reduce_logsumexp(rest, -1, keepdims=True)
        binary.append(tf.concat([tf.boolean_mask(log_p, is_true)[:, None], log_rest], -1))
        others.append(rest - log_rest)
    return {
        "tckd": temperature**2 * divergence(*binary),
        "nckd": temperature**2 * divergence(*others),
    }
