"""Shared by several test files: two logical CPUs, small made data, small networks."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data, models

ROOT = pathlib.Path(__file__).resolve().parent.parent
CIFAR100 = ROOT.parent / "shared" / "data" / "tfds"
SHAPE = (8, 8, 3)
CLASSES = 4

# Replicas need devices of their own, which are set before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def one_replica():
    return tf.distribute.MirroredStrategy(["CPU:0"])


@pytest.fixture
def quiet():
    """A runtime that prints nothing and evaluates at the end."""
    from dfa_tf.training.runtime import Runtime

    return Runtime(quiet=True, evaluate_every=1e9, log_every=3)


def small_network(depth=16, width=1, seed=0, precision="float32", **more):
    """A wide ResNet for the made data; every batch normalization has statistics of its own."""
    network = models.wide_resnet(
        depth,
        width,
        CLASSES,
        image_shape=SHAPE,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=seed,
        precision=precision,
        **more,
    )
    return with_statistics(network, seed)


def with_statistics(network, seed=0):
    """Gives each batch normalization its own parameters and statistics. Returns the network."""
    draws = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, models.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(draws.uniform(0.5, 1.5, shape))
            layer.beta.assign(draws.normal(0, 0.3, shape))
            layer.moving_mean.assign(draws.normal(0, 0.3, shape))
            layer.moving_variance.assign(draws.uniform(0.5, 1.5, shape))
    return network


def freeze_statistics(*networks):
    """Makes all batch normalizations use their moving statistics, which replicas share."""
    for network in networks:
        for layer in network._flatten_layers(include_self=False):
            if isinstance(layer, models.BatchNormalization):
                layer.trainable = False


def shared_out(strategy, batch):
    """The parts of a batch of tensors, one for each replica, in order."""
    size = len(batch[0]) // strategy.num_replicas_in_sync

    def distributed(tensor):
        def part(context):
            start = context.replica_id_in_sync_group * size
            return tensor[start : start + size]

        return strategy.experimental_distribute_values_from_function(part)

    return tuple(map(distributed, batch))


def small_supernet(teacher, student, precision="float32", seed=0, **options):
    """Both networks joined, with the defaults of a search; options: of SearchOptions."""
    from dfa_tf.bilevel.dfa_search import SearchOptions, Supernet

    return Supernet(teacher, student, SearchOptions(**options), precision=precision, seed=seed)


def made_examples(count, seed=0, shape=SHAPE, classes=CLASSES):
    """Noise whose brightness depends on the class; all classes have the same size."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    level = 40 + 150 * labels / max(1, classes - 1)
    images = draws.normal(level[:, None, None, None], 25, (count, *shape))
    return data.Examples(np.clip(images, 0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="session")
def examples():
    return made_examples(96)


@pytest.fixture(scope="session")
def batch():
    """One batch of 8 made images and labels, as tensors."""
    made = made_examples(8, seed=5)
    return tf.constant(made.images), tf.constant(made.labels)


def values(variables):
    """Returns copies of the variables' values."""
    return [np.array(tf.convert_to_tensor(variable)) for variable in variables]


def same(before, after):
    """Returns whether two lists of arrays are equal to the bit."""
    return len(before) == len(after) and all(
        np.array_equal(a, b) for a, b in zip(before, after, strict=True)
    )
