"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016) with the features of DFA (§3.4)."""

from typing import Literal

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Depth, Layers
from dfa_tf.models.network import Group, Network, Precision, spec_of
from dfa_tf.validation import Count, checked_arguments


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("wide_resnet")
def wide_resnet(
    depth: Depth,
    width: Count,
    num_classes: Count,
    features: Literal["normalized", "raw"] = "normalized",
    image_shape: tuple[int, int, int] = (32, 32, 3),
    mean: tuple[float, ...] = CIFAR_MEAN,
    std: tuple[float, ...] = CIFAR_STD,
    seed: int = 0,
    precision: Precision = "float32",
    folded: bool = False,
) -> Network:
    """Builds WRN-depth-width: a stem, three groups of pre-activation blocks, a classifier.

    Each group has (depth - 4) / 6 blocks. The groups have 16, 32 and 64 times `width` channels. The
    second and the third group halve the map.

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40 and so on.
        width: Factor of the channels.
        num_classes: Size of the logits.
        features: "normalized" for the pre-ReLU features of DFA (§3.4): each block's output after
            the next batch normalization. "raw" for the block's output itself.
        image_shape: (height, width, channels).
        mean: Mean of the pixels per channel, as fractions of 255; by default CIFAR-10's.
        std: Standard deviation of the pixels per channel, as fractions of 255.
        seed: Seed of the initial weights.
        precision: Keras dtype policy.
        folded: Whether to build the form for inference only, see `Network.folded`.

    Raises:
        UserError: If an argument is invalid.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UserError(
            f"wide_resnet.depth: expected 6n + 4 (10, 16, 22, 28, 40, ...), got {depth}"
        )
    spec = spec_of(wide_resnet, depth, width, num_classes, features, image_shape, mean, std, seed)
    blocks_per_group = (depth - 4) // 6
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = stem = layers.convolution(x, 16, 3, "stem")

    outputs = []  # of all blocks
    normalized = []  # the input of each batch normalization that begins a block, normalized
    for g, (channels, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        for b in range(1, blocks_per_group + 1):
            name = f"group{g}_block{b}"
            feature, activated = layers.normalization_and_relu(x, f"{name}_norm1", f"{name}_relu1")
            normalized.append(feature)
            x = _block(layers, x, activated, channels * width, stride if b == 1 else 1, name)
            outputs.append(x)
    feature, activated = layers.normalization_and_relu(x, "norm", "relu")
    normalized.append(feature)
    logits = layers.classifier(activated, num_classes)

    # The first normalization follows the stem, not a block.
    maps = normalized[1:] if features == "normalized" else outputs
    groups = []
    for g in range(3):
        blocks = slice(g * blocks_per_group, (g + 1) * blocks_per_group)
        groups.append(Group(f"group{g + 1}", tuple(maps[blocks]), stream=outputs[blocks][-1]))
    name = f"WRN_{depth}_{width}"
    return Network(image, groups, activated, logits, spec, precision, layers.folds, stem, name=name)


def _block(layers, x, activated, channels, stride, name):
    """Adds BN-ReLU-conv3x3-BN-ReLU-conv3x3 to a shortcut.

    Args:
        layers: The network's `Layers`.
        x: The block's input.
        activated: The input after the first batch normalization and ReLU. If the block changes the
            shape, the shortcut is a 1x1 convolution of it.
        channels: Output channels.
        stride: Stride of the first convolution.
        name: Prefix of the layers' names.
    """
    y = layers.convolution_norm(
        activated, channels, 3, f"{name}_conv1", stride, norm=f"{name}_norm2"
    )
    y = layers.relu(y, f"{name}_relu2")
    y = layers.convolution(y, channels, 3, f"{name}_conv2")
    if stride == 1 and x.shape[-1] == channels:
        shortcut = x
    else:
        shortcut = layers.convolution(activated, channels, 1, f"{name}_shortcut", stride)
    return layers.add(shortcut, y, name)
