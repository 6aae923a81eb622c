"""VGG [Simonyan and Zisserman, ICLR 2015] with batch normalization, as distillation compares it."""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import CIFAR_MEAN, CIFAR_STD, Layers
from dfa_tf.models.network import Group, Network, spec_of

CONVOLUTIONS = {8: (1, 1, 1, 2), 13: (2, 2, 2, 4)}  # of each group
WIDTHS = (64, 128, 256, 512)


@keras.saving.register_keras_serializable("dfa_tf")
def vgg(
    depth,
    num_classes,
    image_shape=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    seed=0,
    precision="float32",
    folded=False,
):
    """VGG-8 or VGG-13 for small images: four groups of 3x3 convolutions, pooling between them.

    The literature's fourth and fifth stage work at one size and width and are one group here. The
    feature of each convolution is its batch normalization's output, pre-ReLU (DFA §3.4). One
    dense layer tells the classes.

    depth: 8 or 13. The other arguments are as in `wide_resnet`. Raises UserError for another depth.
    """
    spec = spec_of(vgg, locals())
    if not isinstance(depth, int) or depth not in CONVOLUTIONS:
        raise UserError(f"VGG's depth is 8 or 13, not {depth!r}")
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
    return Network(image, groups, logits, spec, precision, layers.folds, name=f"VGG_{depth}")
