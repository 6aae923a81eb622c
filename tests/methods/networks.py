"""A network that differs from a wide ResNet in groups, sizes and channels."""

import keras

from dfa_tf.models.layers import Layers
from dfa_tf.models.network import Group, Network
from tests.conftest import CLASSES, SHAPE

GROUPS = ((5, 1), (9, 2), (12, 3), (7, 1))  # channels and stride: 8x8, 4x4, 2x2, 2x2


@keras.saving.register_keras_serializable("tests")
def plain_network(seed=0, precision="float32", folded=False):
    """Four groups of one convolution each, on the made data."""
    layers = Layers(precision, seed, folded)
    image, x = layers.image(SHAPE, (0.5,) * 3, (0.25,) * 3)
    groups = []
    for k, (channels, stride) in enumerate(GROUPS, start=1):
        x = layers.convolution(x, channels, 3, f"convolution{k}", stride)
        feature, x = layers.normalization_and_relu(x, f"norm{k}", f"relu{k}")
        groups.append(Group(f"group{k}", (feature,), stream=feature))
    logits = layers.classifier(x, CLASSES)
    spec = {"builder": "tests>plain_network", "arguments": {"seed": seed}}
    return Network(image, groups, x, logits, spec, precision, layers.folds, name="plain")
