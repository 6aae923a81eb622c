"""VID: variational information distillation (Ahn et al., CVPR 2019)."""

import dataclasses
import math
from typing import Annotated

import keras
import tensorflow as tf

from dfa_tf.methods.connectors import group_pairs
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.models.layers import he_normal
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import Interval, NonNegative

MIN_VARIANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class VID(Method):
    """CE + weight * sum over groups of -log q(T | S).

    q is a normal distribution. Three 1x1 convolutions predict its mean from S. Its variance is one
    trained number for each of the teacher's channels. T and S are the last features of a group
    after their ReLU. The loss is a mean over elements. It can be negative, and is bounded below
    because the variance is at least 1e-5.

    Args:
        weight: Weight of the sum over the groups.
        variance: Initial variance.
    """

    weight: NonNegative = 1.0
    variance: Annotated[float, Interval(MIN_VARIANCE, 100, open=True)] = 5.0

    name = "vid"
    can_be_negative = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)
        predictors = [
            _Gaussian(
                student.group(s).feature_shape,
                teacher.group(t).feature_shape[-1],
                self.variance,
                derived_seed(seed, s),
                precision,
                name=f"{s}_guess",
            )
            for t, s in pairs
        ]

        def terms(teacher, student, labels):
            losses = {}
            for (t, s), predictor in zip(pairs, predictors, strict=True):
                mean = predictor.mean(student.activation(s), training=True)
                losses[t] = vid_loss(teacher.activation(t), mean, predictor.variances())
            return {"vid": losses}

        parts = {"vid": [t for t, _ in pairs]}
        return Distillation(terms, {"vid": self.weight}, parts=parts, connectors=predictors)


def vid_loss(teacher: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Returns ((T - mean)^2 / variance + log variance) / 2, averaged over elements.

    This is -log q(T | S) without the constant log(2 pi) / 2.

    Args:
        teacher: The teacher's map T `[B, H, W, C]`.
        mean: The predicted mean `[B, H, W, C]`. The larger map is averaged down to the size of the
            other.
        variance: Tensor `[C]`.

    Returns:
        Float32 tensor `[B]`.
    """
    teacher, mean = (tf.cast(m, tf.float32) for m in match_sizes(teacher, mean))
    terms = tf.square(teacher - mean) / variance + tf.math.log(variance)
    return tf.reduce_mean(terms, [1, 2, 3]) / 2


class _Gaussian(keras.layers.Layer):
    def __init__(self, shape, channels, variance, seed, precision, name):
        super().__init__(name=name)
        x = inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
        for k in range(3):
            x = keras.layers.Conv2D(
                channels,
                1,
                use_bias=False,
                kernel_initializer=he_normal(derived_seed(seed, str(k))),
                name=f"convolution{k}",
                dtype=precision,
                activation="relu" if k < 2 else None,
            )(x)
        self.mean = keras.Model(inputs, x, name="mean")
        # The inverse of variance = log(1 + exp(raw)) + MIN_VARIANCE.
        start = math.log(math.expm1(variance - MIN_VARIANCE))
        self._raw = self.add_weight(
            shape=(channels,), initializer=keras.initializers.Constant(start), name="raw_variance"
        )

    def variances(self):
        return tf.nn.softplus(tf.convert_to_tensor(self._raw)) + MIN_VARIANCE
