"""Connectors: 1x1 convolutions that bring one network's map to another's channels (DFA §3.4)."""

import keras

from dfa_tf.methods.method import group_pairs
from dfa_tf.models.layers import he_normal
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.seeds import derived_seed


def connector(shape, channels, name, normalize=False, seed=0, precision="float32"):
    """A 1x1 convolution without bias from maps of `shape` to `channels` channels.

    shape: (height, width, channels) of the input. normalize: whether batch normalization follows
    (stage 2) or not (search). seed: of the initial weights. precision: Keras dtype policy; maps
    go in and come out in its compute dtype. Returns a Keras model of that name.
    """
    x = inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    x = keras.layers.Conv2D(
        channels,
        1,
        use_bias=False,
        kernel_initializer=he_normal(seed),
        name="convolution",
        dtype=precision,
    )(x)
    if normalize:
        x = BatchNormalization(name="norm", dtype=precision)(x)
    return keras.Model(inputs, x, name=name)


def group_connectors(teacher, student, seed, precision):
    """A connector with batch normalization for each of `group_pairs`, from the student's last
    feature to the teacher's channels: the student transforms F_s of Eqn 3."""
    return [
        connector(
            student.group(of_student).feature_shape,
            teacher.group(of_teacher).feature_shape[-1],
            f"{of_student}_connector",
            normalize=True,
            seed=derived_seed(seed, of_student),
            precision=precision,
        )
        for of_teacher, of_student in group_pairs(teacher, student)
    ]
