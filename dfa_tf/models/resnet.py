"""Residual networks (He et al., CVPR 2016) for CIFAR and for ImageNet.

The features are pre-ReLU (DFA §3.4): the sum of each block before the ReLU that follows it.
"""

from typing import Literal

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Depth, Layers
from dfa_tf.models.network import Group, Network, Precision, spec_of
from dfa_tf.validation import Count, checked_arguments

CIFAR_STEMS = {1: 16, 4: 32}  # by width, the channels of the stem; "x4" in the literature
IMAGENET = {  # by depth, the blocks of each group and whether they are bottlenecks
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("cifar_resnet")
def cifar_resnet(
    depth: Depth,
    num_classes: Count,
    width: Literal[1, 4] = 1,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds ResNet-depth for small images: a stem and three groups of (depth - 2) / 6 blocks.

    The groups have 16, 32 and 64 times `width` channels. The second and the third group halve the
    map. If a block changes the shape, its shortcut is a 1x1 convolution with batch normalization.

    Args:
        depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110 and so on.
        num_classes: Size of the logits.
        width: 1, or 4 for the literature's resnet8x4 and resnet32x4, whose stem has 32 channels.
        image_shape, mean, std, seed, precision, folded: See `wide_resnet`.

    Raises:
        UserError: If an argument is invalid.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(
            f"cifar_resnet.depth: expected 6n + 2 (8, 14, 20, 32, 56, ...), got {depth}"
        )
    spec = spec_of(cifar_resnet, depth, num_classes, width, image_shape, mean, std, seed)
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.relu(layers.convolution_norm(x, CIFAR_STEMS[width], 3, "stem"), "stem_relu")
    blocks = ((depth - 2) // 6,) * 3
    groups, x = _groups(layers, x, blocks, [w * width for w in (16, 32, 64)], _basic)
    logits = layers.classifier(x, num_classes)
    name = f"ResNet_{depth}" + (f"x{width}" if width > 1 else "")
    return Network(image, groups, x, logits, spec, precision, layers.folds, name=name)


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("resnet")
def resnet(
    depth: Literal[18, 34, 50],
    num_classes: Count,
    stem: Literal["cifar", "imagenet"] = "cifar",
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds ResNet18, 34 or 50: a stem and four groups of residual blocks.

    The groups have 64, 128, 256 and 512 channels, four times as many in ResNet50. The stride of a
    bottleneck is that of its 3x3 convolution.

    Args:
        depth: Number of layers with weights.
        num_classes: Size of the logits.
        stem: "imagenet" for a 7x7 convolution of stride 2 and max pooling, which reduce the image
            to a quarter of its size. "cifar" for a 3x3 convolution at full size.
        image_shape, mean, std, seed, precision, folded: See `wide_resnet`.

    Raises:
        UserError: If an argument is invalid.
    """
    spec = spec_of(resnet, depth, num_classes, stem, image_shape, mean, std, seed)
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    if stem == "cifar":
        x = layers.relu(layers.convolution_norm(x, 64, 3, "stem"), "stem_relu")
    else:
        x = layers.relu(layers.convolution_norm(x, 64, 7, "stem", stride=2), "stem_relu")
        x = layers.max_pooling(x, 3, "stem_pool")
    blocks, is_bottleneck = IMAGENET[depth]
    block = _bottleneck if is_bottleneck else _basic
    groups, x = _groups(layers, x, blocks, (64, 128, 256, 512), block)
    logits = layers.classifier(x, num_classes)
    name = f"ResNet_{depth}_{stem}"
    return Network(image, groups, x, logits, spec, precision, layers.folds, name=name)


def _groups(layers, x, blocks, widths, block):
    """Returns the groups, and the last map after its ReLU.

    Args:
        layers: The network's `Layers`.
        x: The output of the stem.
        blocks: The number of blocks of each group.
        widths: The channels of each group.
        block: `_basic` or `_bottleneck`.
    """
    groups = []
    for g, (count, channels) in enumerate(zip(blocks, widths, strict=True), start=1):
        features = []
        for b in range(1, count + 1):
            name = f"group{g}_block{b}"
            features.append(block(layers, x, channels, 2 if g > 1 and b == 1 else 1, name))
            x = layers.relu(features[-1], f"{name}_relu")
        groups.append(Group(f"group{g}", tuple(features), stream=features[-1]))
    return groups, x


def _basic(layers, x, channels, stride, name):
    """Adds two 3x3 convolutions to a shortcut."""
    y = layers.convolution_norm(x, channels, 3, f"{name}_conv1", stride)
    y = layers.relu(y, f"{name}_relu1")
    y = layers.convolution_norm(y, channels, 3, f"{name}_conv2")
    return _with_shortcut(layers, x, y, stride, name)


def _bottleneck(layers, x, channels, stride, name):
    """Adds 1x1, 3x3 and 1x1 convolutions to a shortcut; the last one has 4 x channels."""
    y = layers.relu(layers.convolution_norm(x, channels, 1, f"{name}_conv1"), f"{name}_relu1")
    y = layers.convolution_norm(y, channels, 3, f"{name}_conv2", stride)
    y = layers.relu(y, f"{name}_relu2")
    y = layers.convolution_norm(y, 4 * channels, 1, f"{name}_conv3")
    return _with_shortcut(layers, x, y, stride, name)


def _with_shortcut(layers, x, y, stride, name):
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = layers.convolution_norm(x, y.shape[-1], 1, f"{name}_shortcut", stride)
    return keras.layers.Add(name=name, dtype=layers.precision)([x, y])
