"""Connectors: 1x1 convolutions that bring one network's map to another's channels (DFA §3.4)."""

import keras

from dfa_tf.models.layers import he_normal
from dfa_tf.models.normalization import BatchNormalization


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
