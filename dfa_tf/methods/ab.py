"""AB: activation boundaries (Heo et al., AAAI 2019)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.connectors import group_connectors, group_pairs
from dfa_tf.methods.feature_distillation import group_weight
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method, Pretraining
from dfa_tf.methods.vectors import flatten
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class AB(Method):
    """First weight * sum over groups l = 1..L of 2^(l - L) AB(F_s(S_l), T_l), then CE.

    The first stage minimises the activation transfer loss AB (`ab_loss`) alone. T_l and S_l are
    the last pre-ReLU features of group l. F_s is a 1x1 convolution with batch normalization. The
    paper's alternative second stage is KD: add `KD()` to the methods.

    Args:
        weight: Weight of the sum over the groups.
        epochs: Epochs of the first stage.
        margin: Margin mu of `ab_loss`.
    """

    weight: NonNegative = 3e-3
    epochs: Positive = 10.0
    margin: float = 1.0

    name = "ab"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
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
        pretraining = Pretraining(boundaries, {"ab": self.weight}, variables, self.epochs)
        return Distillation(
            lambda teacher, student, labels: {}, {}, helpers=connectors, pretraining=pretraining
        )


def ab_loss(teacher: tf.Tensor, student: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Returns the activation transfer loss of two pre-ReLU maps.

    With s and t the elements of student and teacher and mu the margin, it is the sum of

        (s + mu)^2  if t <= 0 and s > -mu
        (s - mu)^2  if t > 0 and s <= mu
        0           otherwise

    Args:
        teacher: Map `[B, H, W, C]`.
        student: Map `[B, H, W, C]`. The larger map is averaged down to the size of the other.
        margin: mu.

    Returns:
        Float32 tensor `[B]`.
    """
    t, s = (flatten(m) for m in match_sizes(teacher, student))
    off = tf.square(tf.nn.relu(s + margin))
    on = tf.square(tf.nn.relu(margin - s))
    return tf.reduce_sum(tf.where(t > 0, on, off), -1)
