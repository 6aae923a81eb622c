"""Networks that expose the features of their groups."""

from dfa_tf.models.files import load
from dfa_tf.models.from_keras import from_keras
from dfa_tf.models.keras_application import keras_application
from dfa_tf.models.mobilenet_v2 import mobilenet_v2
from dfa_tf.models.network import Group, Network, from_spec
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.models.resnet import cifar_resnet, resnet
from dfa_tf.models.shufflenet_v2 import shufflenet_v2
from dfa_tf.models.vgg import vgg
from dfa_tf.models.wide_resnet import wide_resnet

NETWORKS = {
    builder.__name__: builder
    for builder in (wide_resnet, cifar_resnet, resnet, shufflenet_v2, mobilenet_v2, vgg)
}

__all__ = [
    "NETWORKS",
    "BatchNormalization",
    "Group",
    "Network",
    "from_keras",
    "from_spec",
    "keras_application",
    "load",
    *NETWORKS,
]
