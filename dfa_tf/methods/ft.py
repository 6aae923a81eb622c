"""FT: factor transfer (Kim, Park and Kwak, NeurIPS 2018)."""

import dataclasses
from typing import Literal

import keras
import tensorflow as tf

from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method, Pretraining
from dfa_tf.methods.vectors import flatten, unit
from dfa_tf.models.layers import he_normal
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class FT(Method):
    """CE + weight * mean |F_S / |F_S| - F_T / |F_T||^p.

    F_T is the bottleneck of the paraphraser, an autoencoder of the teacher's last activation. The
    paraphraser is trained first. F_S is the output of the translator, an encoder of the student's
    last activation.

    Args:
        weight: Weight of the factor loss.
        k: Ratio of the channels of a factor to the teacher's channels.
        p: Exponent of the differences, 1 or 2.
        reconstruction: Loss of the paraphraser: "l1", or "l2" as in the paper's Eqn 1.
        paraphraser_epochs: Epochs of the paraphraser's training.
    """

    weight: NonNegative = 500.0
    k: Positive = 0.5
    p: Literal[1, 2] = 1
    reconstruction: Literal["l1", "l2"] = "l1"
    paraphraser_epochs: Positive = 5.0

    name = "ft"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        t, s = teacher.group_names[-1], student.group_names[-1]
        teacher_shape = teacher.group(t).feature_shape
        factors = max(1, round(self.k * teacher_shape[-1]))
        common = {"factors": factors, "precision": precision}
        paraphraser = autoencoder(
            teacher_shape, "paraphraser", seed=derived_seed(seed, "paraphraser"), **common
        )
        translator = encoder(
            student.group(s).feature_shape,
            "translator",
            seed=derived_seed(seed, "translator"),
            **common,
        )

        def reconstruction(teacher, student, labels):
            activation = teacher.activation(t)
            rebuilt = paraphraser(activation, training=True)["rebuilt"]
            power = {"l1": tf.abs, "l2": tf.square}[self.reconstruction]
            return {
                "reconstruction": tf.reduce_mean(power(flatten(rebuilt) - flatten(activation)), -1)
            }

        def terms(teacher, student, labels):
            teacher_factors = paraphraser(teacher.activation(t), training=False)["factors"]
            student_factors = translator(student.activation(s), training=True)
            return {"ft": ft_loss(tf.stop_gradient(teacher_factors), student_factors, self.p)}

        pretraining = Pretraining(
            reconstruction,
            {"reconstruction": 1.0},
            paraphraser.trainable_variables,
            self.paraphraser_epochs,
            uses_student=False,
        )
        return Distillation(
            terms,
            {"ft": self.weight},
            connectors=[translator],
            helpers=[paraphraser],
            pretraining=pretraining,
        )


def ft_loss(teacher: tf.Tensor, student: tf.Tensor, p: int) -> tf.Tensor:
    """Returns the mean over elements of |F_S / |F_S| - F_T / |F_T||^p.

    Args:
        teacher: The factors F_T `[B, H, W, C]`.
        student: The factors F_S `[B, H, W, C]`. The larger map is averaged down to the size of the
            other.
        p: 1 or 2.

    Returns:
        Float32 tensor `[B]`.
    """
    teacher, student = match_sizes(teacher, student)
    difference = unit(flatten(student)) - unit(flatten(teacher))
    return tf.reduce_mean(tf.abs(difference) if p == 1 else tf.square(difference), -1)


def encoder(
    shape: tuple[int, int, int], name: str, factors: int, seed: int, precision: str
) -> keras.Model:
    """Builds three 3x3 convolutions, each followed by a leaky ReLU with slope 0.1.

    Args:
        shape: (height, width, channels) of the input.
        name: Name of the model.
        factors: Channels of the second and third convolution. The first keeps those of the input.
        seed: Seed of the initial weights.
        precision: Keras dtype policy.

    Returns:
        A model from `[B, height, width, channels]` to `[B, height, width, factors]`.
    """
    inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    return keras.Model(inputs, _encode(inputs, factors, seed, precision), name=name)


def autoencoder(
    shape: tuple[int, int, int], name: str, factors: int, seed: int, precision: str
) -> keras.Model:
    """Builds an encoder and a decoder that mirrors it. Arguments are as in `encoder`.

    Returns:
        A model from `[B, H, W, C]` to `{"factors": [B, H, W, factors], "rebuilt": [B, H, W, C]}`.
    """
    inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    code = x = _encode(inputs, factors, seed, precision)
    for k, filters in enumerate((factors, shape[-1], shape[-1])):
        x = _layer(keras.layers.Conv2DTranspose, x, filters, f"decoder{k}", seed, precision)
    return keras.Model(inputs, {"factors": code, "rebuilt": x}, name=name)


def _encode(x, factors, seed, precision):
    for k, filters in enumerate((x.shape[-1], factors, factors)):
        x = _layer(keras.layers.Conv2D, x, filters, f"encoder{k}", seed, precision)
    return x


def _layer(kind, x, filters, name, seed, precision):
    x = kind(
        filters,
        3,
        padding="same",
        kernel_initializer=he_normal(derived_seed(seed, name)),
        name=name,
        dtype=precision,
    )(x)
    return keras.layers.Activation(_leaky_relu, name=f"{name}_relu", dtype=precision)(x)


def _leaky_relu(x):
    # tf.nn.leaky_relu is not used, because TensorFlow fuses it into the convolution, and the fused
    # operation fails in training.
    return tf.maximum(x, tf.cast(0.1, x.dtype) * x)
