"""Networks that expose group features."""

from dfa_tf.models.network import Group, Network, from_spec, load
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.models.wide_resnet import wide_resnet

__all__ = ["BatchNormalization", "Group", "Network", "from_spec", "load", "wide_resnet"]
