"""SRRL: feature matching and softmax regression (Yang et al., ICLR 2021).

The form is that of Adaptive Distillation's code, in which the two terms are two paths.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import connector, group_pairs
from dfa_tf.methods.logits import logits_loss
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class SRRL(Method):
    """CE + feature * L_feature + regression * L_regression.

    S' is a 1x1 convolution with batch normalization of the student's activation, to the teacher's
    channels. L_feature is the sum over groups of the mean over channels of
    (mean_HW S' - mean_HW T)^2. L_regression is the mean over classes of
    (W_T mean_HW S' + b_T - z_T)^2, where W_T and b_T are the teacher's frozen classifier and S'
    maps the embedding that the student's classifier receives.

    Args:
        feature: Weight of L_feature.
        regression: Weight of L_regression.
    """

    feature: NonNegative = 1.0
    regression: NonNegative = 1.0

    name = "srrl"

    def check(self, teacher, student):
        """Checks that the teacher ends in a dense layer on its embedding."""
        if teacher.classifier is None:
            raise UserError(
                f"srrl: the teacher {teacher.name} must end in a dense layer on the average of its "
                "last map; use another teacher or method"
            )

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        self.check(teacher, student)
        kernel, bias = (tf.constant(np.array(w)) for w in teacher.classifier.weights)
        pairs = group_pairs(teacher, student)[:-1]  # the embedding stands for the last group
        shapes = [student.group(s).feature_shape for _, s in pairs]
        channels = [teacher.group(t).feature_shape[-1] for t, _ in pairs]
        shapes.append(student.pooled_shape)
        channels.append(teacher.embedding_size)
        stages = [*(t for t, _ in pairs), "embedding"]
        connectors = [
            connector(shape, count, f"{name}_connector", True, derived_seed(seed, name), precision)
            for name, shape, count in zip(stages, shapes, channels, strict=True)
        ]

        def terms(teacher, student, labels):
            maps = [student.activation(s) for _, s in pairs] + [student.pooled_map]
            targets = [_pooled(teacher.activation(t)) for t, _ in pairs] + [teacher.embedding]
            adapted = [
                _pooled(connect(m, training=True))
                for m, connect in zip(maps, connectors, strict=True)
            ]
            features = [logits_loss(t, s) for t, s in zip(targets, adapted, strict=True)]
            regressed = tf.matmul(adapted[-1], kernel) + bias
            return {
                "srrl_feature": dict(zip(stages, features, strict=True)),
                "srrl_regression": logits_loss(teacher.logits, regressed),
            }

        return Distillation(
            terms,
            {"srrl_feature": self.feature, "srrl_regression": self.regression},
            parts={"srrl_feature": stages},
            connectors=connectors,
        )


def _pooled(activation):
    """Returns the average over space, float32 [B, C]."""
    return tf.reduce_mean(tf.cast(activation, tf.float32), [1, 2])
