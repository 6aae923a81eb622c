"""What the aggregation search lowers: the bridge loss, or for comparison the student's own loss."""

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods import bridge
from dfa_tf.methods.feature_distillation import clipped_l2, group_weight
from dfa_tf.methods.losses import cross_entropy


class BridgeLoss:
    """L_Bridge of a group: both paths of Fig 3, weighed (Eqns 10-12).

    Called with (supernet, group, images, labels, aggregation A_i), gives the loss [B] and what
    goes into it by name, [B] each. shown: (title, name) of what the progress line shows.
    """

    name = "bridge"
    shown = (("bridge loss", "bridge"), ("TS accuracy", "ts_accuracy"))

    def __init__(self, gamma_st=1e-3, gamma_ts=1.0):
        self._gammas = {"gamma_st": gamma_st, "gamma_ts": gamma_ts}

    def __call__(self, supernet, group, images, labels, aggregation):
        st, ts, logits = supernet.paths(group, images, labels, aggregation)
        loss = bridge.bridge_loss(st, ts, **self._gammas)
        parts = {"st": st, "ts": ts, "ts_accuracy": _right(logits, labels)}
        return loss, {self.name: loss} | parts


class StudentLoss:
    """L_student of a group: CE + gamma_fd L_fd (Eqn 4), which §3.2 argues against.

    Only L_fd depends on beta (Eqn 9), so the search draws A_i to where the student is already.
    L_fd is of group i alone, as the others' beta stand still, with the weight that it has among
    them; its L2 is that of maps clipped at -1. Called as BridgeLoss.
    """

    name = "student"
    shown = (("student loss", "student"), ("accuracy", "accuracy"))

    def __init__(self, gamma_fd=1e-3):
        self._gamma_fd = gamma_fd

    def __call__(self, supernet, group, images, labels, aggregation):
        student, logits = supernet.student_pass(group, images)
        groups = supernet.student.group_names
        weight = group_weight(groups.index(group) + 1, len(groups))
        fd = weight * clipped_l2(student, aggregation)
        ce = cross_entropy(logits, labels)
        loss = ce + self._gamma_fd * fd
        parts = {"fd": fd, "ce": ce, "accuracy": _right(logits, labels)}
        return loss, {self.name: loss} | parts


def search_loss(kind, gamma_st, gamma_ts, gamma_fd):
    """The loss named "bridge" or "student". Raises UserError for another name."""
    if kind == "bridge":
        return BridgeLoss(gamma_st, gamma_ts)
    if kind == "student":
        return StudentLoss(gamma_fd)
    raise UserError(f"search.loss is 'bridge' or 'student', not {kind!r}")


def _right(logits, labels):
    return tf.argmax(logits, -1, output_type=labels.dtype) == labels
