"""A network that is converted in a second."""

import keras

from dfa_tf.models.from_keras import from_keras
from tests.conftest import CLASSES, SHAPE


def tiny_network(seed=0, classes=CLASSES, shape=SHAPE):
    """Two convolutions, pooling and a classifier, with weights of their own for each seed."""

    def initializer(offset):
        return keras.initializers.GlorotUniform(seed=10 * seed + offset)

    image = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, padding="same", kernel_initializer=initializer(0))(image)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(8, 3, padding="same", kernel_initializer=initializer(1))(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    logits = keras.layers.Dense(classes, kernel_initializer=initializer(2))(x)
    return from_keras(keras.Model(image, logits, name=f"tiny_{seed}"), scale=1 / 255)
