"""FT: paraphrased factors of the teacher's last map [Kim, Park and Kwak, NeurIPS 2018]."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.method import Distillation, Pretraining, check_positive, flat, matched, unit
from dfa_tf.models.layers import he_normal
from dfa_tf.seeds import derived_seed


@dataclasses.dataclass(frozen=True)
class FT:
    """Factor transfer: CE + weight * mean |F_S / |F_S| - F_T / |F_T||^p.

    F_T: what the paraphraser, an autoencoder of the teacher's last activation trained first, has
    in its middle. F_S: of the translator, its counterpart on the student's side.

    k: share of the teacher's channels that a factor has. p: 1 or 2.
    reconstruction: what the paraphraser minimises, "l1" or "l2" (the paper's Eqn 1).
    paraphraser_epochs: how long it is trained.
    """

    weight: float = 500.0
    k: float = 0.5
    p: int = 1
    reconstruction: str = "l1"
    paraphraser_epochs: float = 5.0

    name = "ft"
    needs = ()

    def __post_init__(self):
        if self.reconstruction not in ("l1", "l2"):
            raise UserError(f"ft.reconstruction is 'l1' or 'l2', not {self.reconstruction!r}")
        if self.p not in (1, 2):
            raise UserError(f"ft.p is 1 or 2, not {self.p!r}")
        check_positive(self, "paraphraser_epochs", "k")

    def build(self, teacher, student, seed, precision):
        t, s = teacher.group_names[-1], student.group_names[-1]
        of_teacher = teacher.group(t).feature_shape
        factors = max(1, round(self.k * of_teacher[-1]))
        make = {"factors": factors, "precision": precision}
        paraphraser = autoencoder(
            of_teacher, "paraphraser", seed=derived_seed(seed, "paraphraser"), **make
        )
        translator = encoder(
            student.group(s).feature_shape,
            "translator",
            seed=derived_seed(seed, "translator"),
            **make,
        )

        def reconstruction(teacher, student, labels):
            activation = teacher.activation(t)
            rebuilt = paraphraser(activation, training=True)["rebuilt"]
            power = {"l1": tf.abs, "l2": tf.square}[self.reconstruction]
            return {"reconstruction": tf.reduce_mean(power(flat(rebuilt) - flat(activation)), -1)}

        def terms(teacher, student, labels):
            of_teacher = paraphraser(teacher.activation(t), training=False)["factors"]
            of_student = translator(student.activation(s), training=True)
            return {"ft": ft_loss(tf.stop_gradient(of_teacher), of_student, self.p)}

        first = Pretraining(
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
            pretraining=first,
        )


def ft_loss(teacher, student, p):
    """Mean over the elements of |F_S / |F_S| - F_T / |F_T||^p. Factors [B, H, W, C]. Returns [B]."""
    teacher, student = matched(teacher, student)
    difference = unit(flat(student)) - unit(flat(teacher))
    return tf.reduce_mean(tf.abs(difference) if p == 1 else tf.square(difference), -1)


def encoder(shape, name, factors, seed, precision):
    """Three 3x3 convolutions, C to C to `factors` to `factors`, each with a leaky ReLU of .1."""
    inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    return keras.Model(inputs, _encoded(inputs, factors, seed, precision), name=name)


def autoencoder(shape, name, factors, seed, precision):
    """`encoder` and its mirror image: {"factors": its middle, "rebuilt": [B, H, W, C]}."""
    inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    middle = x = _encoded(inputs, factors, seed, precision)
    for k, filters in enumerate((factors, shape[-1], shape[-1])):
        x = _layer(keras.layers.Conv2DTranspose, x, filters, f"decoder{k}", seed, precision)
    return keras.Model(inputs, {"factors": middle, "rebuilt": x}, name=name)


def _encoded(x, factors, seed, precision):
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
    # Not tf.nn.leaky_relu: TensorFlow's fusion of it into the convolution fails when it is trained.
    return tf.maximum(x, tf.cast(0.1, x.dtype) * x)
