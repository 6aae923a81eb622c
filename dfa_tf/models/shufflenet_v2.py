"""ShuffleNetV2 (Ma et al., ECCV 2018) for 32x32 images, with the features of DFA (§4.2)."""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, ChannelShuffle, Layers
from dfa_tf.models.network import Group, Network, Precision, spec_of
from dfa_tf.validation import Count, checked_arguments

STEM = 24
UNITS = (4, 8, 4)
# Channels of the three stages by width. DFA's Table 3 lists others, but only these agree with the
# network sizes of its Table 4.
WIDTHS = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 2.0: (244, 488, 976)}
TAIL = 1024


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("shufflenet_v2")
def shufflenet_v2(
    width: float,
    num_classes: Count,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds ShuffleNetV2: a stem, three stages of 4, 8 and 4 units, a tail, a classifier.

    The five groups have 1, 4, 8, 4 and 1 features (DFA, Table 3). The network is of pre-activation
    form: a ReLU precedes each unit and none follows it, so the units' outputs are pre-ReLU
    features.

    Args:
        width: Width of the network: 0.5, 1.0 or 2.0.
        num_classes: Size of the logits.
        image_shape, mean, std, seed, precision, folded: See `wide_resnet`.

    Raises:
        UserError: If an argument is invalid.
    """
    if width not in WIDTHS:
        raise UserError(f"shufflenet_v2.width: expected 0.5, 1.0 or 2.0, got {width}")
    spec = spec_of(shufflenet_v2, width, num_classes, image_shape, mean, std, seed)
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.convolution_norm(x, STEM, 3, "stem", use_bias=True)
    groups = [Group("group1", (x,), stream=x)]
    for stage, (channels, units) in enumerate(zip(WIDTHS[width], UNITS, strict=True), start=2):
        outputs = []
        for unit in range(1, units + 1):
            name = f"group{stage}_block{unit}"
            x = layers.relu(x, f"{name}_relu")
            x = _halving(layers, x, channels, name) if unit == 1 else _basic(layers, x, name)
            outputs.append(x)
        groups.append(Group(f"group{stage}", tuple(outputs), stream=x))
    x = layers.relu(x, "tail_relu")
    x = layers.convolution_norm(x, int(TAIL * max(1, width)), 1, "tail", use_bias=True)
    groups.append(Group("group5", (x,), stream=x))
    x = layers.relu(x, "relu")
    logits = layers.classifier(x, num_classes)
    name = f"ShuffleNetV2_x{width:g}".replace(".", "_")
    return Network(image, groups, x, logits, spec, precision, layers.folds, name=name)


def _basic(layers, x, name):
    """Passes half of the channels through 1x1, depthwise 3x3 and 1x1 convolutions."""
    half = x.shape[-1] // 2
    changed = _branch(layers, x[..., half:], half, half, name, stride=1)
    return _shuffled(layers, x[..., :half], changed, name)


def _halving(layers, x, channels, name):
    """Halves the map in two branches that both read all channels.

    One branch is a depthwise 3x3 and a 1x1 convolution, the other one that of `_basic`.
    """
    half = channels // 2
    short = layers.convolution_norm(
        x, None, 3, f"{name}_short1", stride=2, depthwise=True, use_bias=True
    )
    short = layers.convolution_norm(short, half, 1, f"{name}_short2", use_bias=True)
    changed = _branch(layers, x, x.shape[-1], half, name, stride=2)
    return _shuffled(layers, short, changed, name)


def _branch(layers, x, middle, channels, name, stride):
    y = layers.convolution_norm(x, middle, 1, f"{name}_conv1", use_bias=True)
    y = layers.relu(y, f"{name}_relu1")
    y = layers.convolution_norm(y, None, 3, f"{name}_conv2", stride, depthwise=True, use_bias=True)
    return layers.convolution_norm(y, channels, 1, f"{name}_conv3", use_bias=True)


def _shuffled(layers, left, right, name):
    both = keras.layers.Concatenate(name=f"{name}_both", dtype=layers.precision)([left, right])
    return ChannelShuffle(name=name, dtype=layers.precision)(both)
