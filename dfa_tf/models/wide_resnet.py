"""Wide residual networks [Zagoruyko and Komodakis, BMVC 2016], with the features DFA takes."""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, spec_of


@keras.saving.register_keras_serializable("dfa_tf")
def wide_resnet(
    depth,
    width,
    num_classes,
    features="normalized",
    image_shape=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    seed=0,
    precision="float32",
    folded=False,
):
    """WRN-depth-width: a stem, three groups of (depth - 4) / 6 pre-activation blocks, a classifier.

    The groups have 16, 32 and 64 times `width` channels and halve the map from the second on.
    The feature of a block is pre-ReLU (DFA §3.4): its output as the next batch normalization
    gives it.

    depth: 6n + 4. width: factor of the channels. num_classes: size of the logits.
    features: "normalized", as above, or "raw", the block's output itself.
    image_shape: (height, width, channels). mean, std: per channel, as fractions of 255; by
        default CIFAR's.
    seed: of the initial weights. precision: Keras dtype policy. folded: see `Network.folded`.
    Raises UserError for a depth that is not 6n + 4.
    """
    spec = spec_of(wide_resnet, locals())
    if features not in ("normalized", "raw"):
        raise UserError(f"features of a wide ResNet are 'normalized' or 'raw', not {features!r}")
    if not isinstance(width, int) or width < 1:
        raise UserError(f"a wide ResNet has a whole width, 1 or more, not {width!r}")
    if not isinstance(depth, int) or depth < 10 or (depth - 4) % 6:
        raise UserError(f"a wide ResNet has depth 6n+4 (10, 16, 22, 28, 40, ...), not {depth!r}")
    blocks_per_group = (depth - 4) // 6
    layers = Layers(precision, seed, folded)
    image, x = layers.image(image_shape, mean, std)
    x = layers.convolution(x, 16, 3, "stem")

    outputs = []  # what each block adds up to, group by group
    normalized = []  # the same, as the next batch normalization gives it
    for g, (channels, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        for b in range(1, blocks_per_group + 1):
            name = f"group{g}_block{b}"
            shown, activated = layers.normalization_and_relu(x, f"{name}_norm1", f"{name}_relu1")
            normalized.append(shown)
            x = _block(layers, x, activated, channels * width, stride if b == 1 else 1, name)
            outputs.append(x)
    shown, activated = layers.normalization_and_relu(x, "norm", "relu")
    normalized.append(shown)
    logits = layers.classifier(activated, num_classes)

    # The first normalization follows the stem, not a block.
    shown = normalized[1:] if features == "normalized" else outputs
    groups = []
    for g in range(3):
        of_group = slice(g * blocks_per_group, (g + 1) * blocks_per_group)
        groups.append(Group(f"group{g + 1}", tuple(shown[of_group]), stream=outputs[of_group][-1]))
    return Network(
        image, groups, logits, spec, precision, layers.folds, name=f"WRN_{depth}_{width}"
    )


def _block(layers, x, activated, channels, stride, name):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3 beside a shortcut; `activated` comes of the first BN-ReLU.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
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
