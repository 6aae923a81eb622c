"""AB: the boundaries where neurons switch on [Heo et al., AAAI 2019]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.connectors import group_connectors
from dfa_tf.methods.feature_distillation import group_weight
from dfa_tf.methods.method import (
    Distillation,
    Pretraining,
    check_positive,
    flat,
    group_pairs,
    matched,
)


@dataclasses.dataclass(frozen=True)
class AB:
    """Activation boundaries: a first stage of their loss alone, then training from there.

    The second stage is training with cross entropy; list KD beside this method for the paper's
    other one. The loss is `ab_loss` of all groups' ends before their ReLU, the last group
    counting 1, the one before it 1/2 and so on.

    weight: of the sum over the groups. epochs: of the first stage. margin: mu.
    """

    weight: float = 3e-3
    epochs: float = 10.0
    margin: float = 1.0

    name = "ab"
    needs = ()

    def __post_init__(self):
        check_positive(self, "epochs")

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)
        connectors = group_connectors(teacher, student, seed, precision)

        def boundaries(teacher, student, labels):
            losses = [
                group_weight(k, len(pairs))
                * ab_loss(teacher.last(t), connect(student.last(s), training=True), self.margin)
                for k, ((t, s), connect) in enumerate(zip(pairs, connectors, strict=True), start=1)
            ]
            return {"ab": tf.add_n(losses)}

        variables = student.features_model(pairs[-1][1]).trainable_variables
        variables = variables + [v for c in connectors for v in c.trainable_variables]
        first = Pretraining(boundaries, {"ab": self.weight}, variables, self.epochs)
        return Distillation(
            lambda teacher, student, labels: {}, {}, helpers=connectors, pretraining=first
        )


def ab_loss(teacher, student, margin=1.0):
    """Activation transfer loss of two pre-ReLU maps [B, H, W, C], the larger averaged down: [B].

    Summed over the elements:

    (s + mu)^2 where the teacher is off (t <= 0) and s > -mu; (s - mu)^2 where it is on and s <= mu.
    """
    t, s = (flat(m) for m in matched(teacher, student))
    off = tf.square(tf.nn.relu(s + margin))
    on = tf.square(tf.nn.relu(margin - s))
    return tf.reduce_sum(tf.where(t > 0, on, off), -1)
