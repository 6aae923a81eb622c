"""VID: the information that the maps share, bounded from below [Ahn et al., CVPR 2019]."""

import dataclasses
import math

import keras
import tensorflow as tf

from dfa_tf.methods.method import Distillation, check_positive, group_pairs, matched
from dfa_tf.models.layers import he_normal
from dfa_tf.seeds import derived_seed

LEAST_VARIANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class VID:
    """Variational information distillation: CE + weight * sum over groups of -log q(T | S).

    q is normal: its mean comes of S by three 1x1 convolutions, its variance is one number for
    each of the teacher's channels, begun at `variance`. Maps are the groups' ends after
    their ReLU. The loss is averaged over elements and has no least value, since the variance may
    shrink to 1e-5 as the student gets there.
    """

    weight: float = 1.0
    variance: float = 5.0

    name = "vid"
    needs = ()

    def __post_init__(self):
        check_positive(self, "variance")

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)
        guesses = [
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
            losses = []
            for (t, s), guess in zip(pairs, guesses, strict=True):
                mean = guess.mean(student.activation(s), training=True)
                losses.append(vid_loss(teacher.activation(t), mean, guess.variances()))
            return {"vid": tf.add_n(losses)}

        return Distillation(terms, {"vid": self.weight}, connectors=guesses)


def vid_loss(teacher, mean, variance):
    """((T - mean)^2 / variance + log variance) / 2, averaged over elements: [B].

    That is -log q(T | S) but for log(2 pi) / 2. Maps [B, H, W, C], the larger averaged down;
    variance: [C].
    """
    teacher, mean = (tf.cast(m, tf.float32) for m in matched(teacher, mean))
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
        # variance = log(1 + exp(raw)) + LEAST_VARIANCE
        start = math.log(math.expm1(variance - LEAST_VARIANCE))
        self._raw = self.add_weight(
            shape=(channels,), initializer=keras.initializers.Constant(start), name="raw_variance"
        )

    def variances(self):
        return tf.nn.softplus(tf.convert_to_tensor(self._raw)) + LEAST_VARIANCE
