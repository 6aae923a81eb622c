"""VGG (Simonyan and Zisserman, ICLR 2015) with batch normalization, as in Tian et al. (2020)."""

from typing import Literal

import keras

from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, Precision, spec_of
from dfa_tf.validation import Count, checked_arguments

CONVOLUTIONS = {8: (1, 1, 1, 2), 13: (2, 2, 2, 4)}  # by depth, in each group
WIDTHS = (64, 128, 256, 512)


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("vgg")
def vgg(
    depth: Literal[8, 13],
    num_classes: Count,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds VGG-8 or VGG-13 for small images: four groups of 3x3 convolutions with max pooling.

    The literature's fourth and fifth stages have one size and width and are one group here. The
    feature of each convolution is the output of its batch normalization, pre-ReLU (DFA §3.4). The
    classifier is one dense layer.

    Args:
        depth: Number of layers with weights.
        num_classes: Size of the logits.
        image_shape, mean, std, seed, precision, folded: See `wide_resnet`.

    Raises:
        UserError: If an argument is invalid.
    """
    spec = spec_of(vgg, depth, num_classes, image_shape, mean, std, seed)
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    groups = []
    for g, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS, strict=True), start=1):
        if g > 1:
            x = layers.max_pooling(x, 2, f"group{g}_pool")
        features = []
        for b in range(1, count + 1):
            name = f"group{g}_block{b}"
            features.append(layers.convolution_norm(x, channels, 3, name, use_bias=True))
            x = layers.relu(features[-1], f"{name}_relu")
        groups.append(Group(f"group{g}", tuple(features), stream=features[-1]))
    logits = layers.classifier(x, num_classes)
    name = f"VGG_{depth}"
    return Network(image, groups, x, logits, spec, precision, layers.folds, name=name)
