"""A small network of each builder."""

import functools

from dfa_tf import models
from tests.conftest import with_statistics

SMALL = {  # one network for each kind of block, stem and shortcut
    "WRN_10_1": (models.wide_resnet, {"depth": 10, "width": 1}),
    "ResNet_8": (models.cifar_resnet, {"depth": 8}),
    "ResNet_8x4": (models.cifar_resnet, {"depth": 8, "width": 4}),
    "ResNet_18_cifar": (models.resnet, {"depth": 18}),
    "ResNet_50_imagenet": (models.resnet, {"depth": 50, "stem": "imagenet"}),
    "VGG_8": (models.vgg, {"depth": 8}),
    "MobileNetV2_x0_5": (models.mobilenet_v2, {}),
    "ShuffleNetV2_x0_5": (models.shufflenet_v2, {"width": 0.5}),
}


@functools.cache
def small(name):
    """The network of that name in SMALL, for ten classes, with statistics of its own."""
    build, arguments = SMALL[name]
    return with_statistics(build(num_classes=10, **arguments))
