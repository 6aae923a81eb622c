"""MobileNetV2 (Sandler et al., CVPR 2018) for small images, as in Tian et al. (ICLR 2020)."""

from typing import Annotated, Literal

import keras

from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, Precision, spec_of
from dfa_tf.validation import Count, Interval, checked_arguments

STAGES = (  # expansion, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("mobilenet_v2")
def mobilenet_v2(
    num_classes: Count,
    width: Annotated[float, Interval(0.1, 4)] = 0.5,
    stem_stride: Literal[1, 2] = 2,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds MobileNetV2: a stem, seventeen inverted residual blocks, a head of 1x1 convolution.

    Each of the four groups has one spatial size: 16, 8, 4 and 2 for 32x32 images. The features are
    the outputs of the blocks of the group's last width, which have one shape. No ReLU follows a
    block.

    Args:
        num_classes: Size of the logits.
        width: Factor of all channels but the head's, from 0.1 to 4.
        stem_stride: Stride of the stem. With 1, all maps are twice as large.
        image_shape, mean, std, seed, precision, folded: See `wide_resnet`.

    Raises:
        UserError: If an argument is invalid.
    """
    spec = spec_of(mobilenet_v2, num_classes, width, stem_stride, image_shape, mean, std, seed)
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.convolution_norm(x, int(STEM * width), 3, "stem", stem_stride)
    x = layers.relu(x, "stem_relu")
    sizes = []  # the outputs of the blocks of each spatial size
    for expansion, channels, count, first_stride in STAGES:
        if first_stride > 1 or not sizes:
            sizes.append([])
        for b in range(count):
            name = f"group{len(sizes)}_unit{len(sizes[-1]) + 1}"
            stride = first_stride if b == 0 else 1
            x = _inverted_residual(layers, x, int(channels * width), expansion, stride, name)
            sizes[-1].append(x)
    groups = [
        Group(f"group{g}", tuple(m for m in maps if m.shape == maps[-1].shape), stream=maps[-1])
        for g, maps in enumerate(sizes, start=1)
    ]
    x = layers.convolution_norm(x, int(HEAD * max(1, width)), 1, "head")
    x = layers.relu(x, "head_relu")
    logits = layers.classifier(x, num_classes)
    name = f"MobileNetV2_x{width:g}".replace(".", "_")
    return Network(image, groups, x, logits, spec, precision, layers.folds, name=name)


def _inverted_residual(layers, x, channels, expansion, stride, name):
    """Applies 1x1, depthwise 3x3 and 1x1 convolutions; adds the input if the shapes are equal.

    The first convolution multiplies the channels by `expansion`.
    """
    wide = x.shape[-1] * expansion
    y = layers.relu(layers.convolution_norm(x, wide, 1, f"{name}_expand"), f"{name}_relu1")
    y = layers.convolution_norm(y, None, 3, f"{name}_depthwise", stride, depthwise=True)
    y = layers.convolution_norm(layers.relu(y, f"{name}_relu2"), channels, 1, f"{name}_project")
    if stride > 1 or x.shape[-1] != channels:
        return y
    return keras.layers.Add(name=name, dtype=layers.precision)([x, y])
