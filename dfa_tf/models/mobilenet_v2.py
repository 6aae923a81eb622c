"""MobileNetV2 [Sandler et al., CVPR 2018] for small images, as distillation compares it."""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, spec_of

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
def mobilenet_v2(
    num_classes,
    width=0.5,
    stem_stride=2,
    image_shape=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    seed=0,
    precision="float32",
    folded=False,
):
    """MobileNetV2: a stem, seventeen inverted residual blocks, a head of 1x1 convolution.

    A group is of one spatial size, four in all. Its features are what blocks give, which no ReLU
    follows here, where they can be added: from the blocks of the size's last width. With a stem
    of stride 2, 32x32 images make maps of 16, 8, 4 and 2.

    width: factor of all channels but the head's. stem_stride: 2, or 1 for maps twice as large.
    The other arguments are as in `wide_resnet`. Raises UserError for a width or a stride that is
    none.
    """
    spec = spec_of(mobilenet_v2, locals())
    if not isinstance(width, int | float) or not 0.1 <= width <= 4:
        raise UserError(f"MobileNetV2's width lies between 0.1 and 4, not at {width!r}")
    if not isinstance(stem_stride, int) or stem_stride not in (1, 2):
        raise UserError(f"MobileNetV2's stem_stride is 1 or 2, not {stem_stride!r}")
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.convolution_norm(x, int(STEM * width), 3, "stem", stem_stride)
    x = layers.relu(x, "stem_relu")
    sizes = []  # the blocks' outputs, by spatial size
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
    logits = layers.classifier(layers.relu(x, "head_relu"), num_classes)
    name = f"MobileNetV2_x{width:g}".replace(".", "_")
    return Network(image, groups, logits, spec, precision, layers.folds, name=name)


def _inverted_residual(layers, x, channels, expansion, stride, name):
    """1x1 to `expansion` times the channels, depthwise 3x3, 1x1; added to x where shapes agree."""
    wide = x.shape[-1] * expansion
    y = layers.relu(layers.convolution_norm(x, wide, 1, f"{name}_expand"), f"{name}_relu1")
    y = layers.convolution_norm(y, None, 3, f"{name}_depthwise", stride, depthwise=True)
    y = layers.convolution_norm(layers.relu(y, f"{name}_relu2"), channels, 1, f"{name}_project")
    if stride > 1 or x.shape[-1] != channels:
        return y
    return keras.layers.Add(name=name, dtype=layers.precision)([x, y])
