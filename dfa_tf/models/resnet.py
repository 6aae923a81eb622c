"""Residual networks [He et al., CVPR 2016]: those of CIFAR, and those of ImageNet.

The features are pre-ReLU (DFA §3.4): what a block adds up to, before the ReLU that ends it.
"""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, spec_of

CIFAR_STEMS = {1: 16, 4: 32}  # channels of the stem, by width; the distillation literature's "x4"
IMAGENET = {  # blocks of each group, and whether they are bottlenecks
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}


@keras.saving.register_keras_serializable("dfa_tf")
def cifar_resnet(
    depth,
    num_classes,
    width=1,
    image_shape=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    seed=0,
    precision="float32",
    folded=False,
):
    """ResNet-depth for small images: a stem and three groups of (depth - 2) / 6 blocks.

    The groups have 16, 32 and 64 times `width` channels and halve the map from the second on.
    Where the shape changes, the shortcut is a 1x1 convolution with batch normalization.

    depth: 6n + 2 (8, 14, 20, 32, 44, 56, 110, ...). width: 1, or 4 for the literature's
        resnet8x4 and resnet32x4, whose stem has 32 channels. The other arguments are as in
        `wide_resnet`.
    Raises UserError for another depth or width.
    """
    spec = spec_of(cifar_resnet, locals())
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise UserError(f"a CIFAR ResNet has depth 6n+2 (8, 14, 20, 32, 56, ...), not {depth!r}")
    if not isinstance(width, int) or width not in CIFAR_STEMS:
        raise UserError(f"a CIFAR ResNet has width 1 or 4, not {width!r}")
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.relu(layers.convolution_norm(x, CIFAR_STEMS[width], 3, "stem"), "stem_relu")
    blocks = ((depth - 2) // 6,) * 3
    groups, x = _groups(layers, x, blocks, [w * width for w in (16, 32, 64)], _basic)
    name = f"ResNet_{depth}" + (f"x{width}" if width > 1 else "")
    logits = layers.classifier(x, num_classes)
    return Network(image, groups, logits, spec, precision, layers.folds, name=name)


@keras.saving.register_keras_serializable("dfa_tf")
def resnet(
    depth,
    num_classes,
    stem="cifar",
    image_shape=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    seed=0,
    precision="float32",
    folded=False,
):
    """ResNet18, 34 or 50: a stem and four groups of 64, 128, 256 and 512 channels, 4x in ResNet50.

    stem: "imagenet", 7x7 with stride 2 and max pooling, a quarter of the image's size; or
        "cifar", 3x3 at full size. A bottleneck's stride is that of its 3x3 convolution.
    The other arguments are as in `wide_resnet`. Raises UserError for another depth or stem.
    """
    spec = spec_of(resnet, locals())
    if not isinstance(depth, int) or depth not in IMAGENET:
        raise UserError(f"a ResNet of ImageNet has depth 18, 34 or 50, not {depth!r}")
    if stem not in ("cifar", "imagenet"):
        raise UserError(f"the stem of a ResNet is 'cifar' or 'imagenet', not {stem!r}")
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
    return Network(
        image, groups, logits, spec, precision, layers.folds, name=f"ResNet_{depth}_{stem}"
    )


def _groups(layers, x, blocks, widths, block):
    """(the groups, the last map after its ReLU). blocks, widths: of each group."""
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
    """Two 3x3 convolutions beside a shortcut."""
    y = layers.convolution_norm(x, channels, 3, f"{name}_conv1", stride)
    y = layers.relu(y, f"{name}_relu1")
    y = layers.convolution_norm(y, channels, 3, f"{name}_conv2")
    return _with_shortcut(layers, x, y, stride, name)


def _bottleneck(layers, x, channels, stride, name):
    """1x1, 3x3 and 1x1 to four times the channels, beside a shortcut."""
    y = layers.relu(layers.convolution_norm(x, channels, 1, f"{name}_conv1"), f"{name}_relu1")
    y = layers.convolution_norm(y, channels, 3, f"{name}_conv2", stride)
    y = layers.relu(y, f"{name}_relu2")
    y = layers.convolution_norm(y, 4 * channels, 1, f"{name}_conv3")
    return _with_shortcut(layers, x, y, stride, name)


def _with_shortcut(layers, x, y, stride, name):
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = layers.convolution_norm(x, y.shape[-1], 1, f"{name}_shortcut", stride)
    return keras.layers.Add(name=name, dtype=layers.precision)([x, y])
