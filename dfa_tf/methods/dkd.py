"""DKD: decoupled knowledge distillation (Zhao et al., CVPR 2022)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.kd import kl_divergence, standardize_logits
from dfa_tf.methods.method import LABELS, Distillation, Method
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class DKD(Method):
    """CE + alpha TCKD + beta NCKD (Eqn 7).

    The terms are target-class and non-target-class knowledge distillation (`dkd_terms`). The
    weights are constant. The paper raises them linearly over the first 20 epochs.

    Args:
        temperature: Temperature tau of both terms.
        alpha: Weight of TCKD.
        beta: Weight of NCKD. In the authors' CIFAR-100 settings 6 for wide ResNets and VGG, 8 for
            ResNet 32x4, 2 for ResNet 56 and 110.
        standardize: Whether the logits are standardized first (`kd.standardize_logits`). The
            published settings are then temperature 2, and alpha and beta times 9.
    """

    temperature: Positive = 4.0
    alpha: NonNegative = 1.0
    beta: NonNegative = 6.0
    standardize: bool = False

    name = "dkd"
    needs = (LABELS,)
    logits_only = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            t, s = teacher.logits, student.logits
            if self.standardize:
                t, s = standardize_logits(t), standardize_logits(s)
            return dkd_terms(t, s, labels, self.temperature)

        return Distillation(terms, {"tckd": self.alpha, "nckd": self.beta})


def dkd_terms(
    teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor, temperature: float
) -> dict[str, tf.Tensor]:
    """Returns TCKD and NCKD (Eqns 5 and 6) times tau^2.

    TCKD is the KL divergence of the binary distributions (true class, all other classes). NCKD is
    that of the softmax over the other classes. KD equals TCKD + (1 - p_t) NCKD, where p_t is the
    teacher's probability of the true class.

    Args:
        teacher: Logits `[B, classes]`.
        student: Logits `[B, classes]`.
        labels: Integer tensor `[B]`.
        temperature: tau.

    Returns:
        {"tckd": `[B]`, "nckd": `[B]`}.
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
        "tckd": temperature**2 * kl_divergence(*binary),
        "nckd": temperature**2 * kl_divergence(*others),
    }
