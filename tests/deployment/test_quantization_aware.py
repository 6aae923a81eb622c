"""Fake quantization: its levels, its gradients, and how close the network stays to itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import models
from dfa_tf.deployment.quantization_aware import (
    RoundedMap,
    quantized_objective,
    rounded_kernel,
    with_rounded_maps,
)
from tests.conftest import made_examples, same, small_network
from tests.deployment.networks import tiny_network
from tests.methods.numerics import softmax


@pytest.mark.parametrize(
    ("kind", "shape", "axis"),
    [("Conv2D", (3, 3, 4, 6), 3), ("Dense", (20, 5), 1), ("DepthwiseConv2D", (3, 3, 7, 1), 2)],
)
def test_kernel_is_rounded_to_255_levels_of_each_channel(kind, shape, axis):
    """round(w / s) s with s = max |w| / 127 over the channel."""
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    others = tuple(k for k in range(len(shape)) if k != axis)
    step = np.abs(kernel).max(others, keepdims=True) / 127
    found = rounded_kernel(tf.constant(kernel), kind)
    np.testing.assert_allclose(found, np.round(kernel / step) * step, atol=1e-5)


def test_map_is_rounded_to_256_levels_that_include_0():
    x = np.random.default_rng(1).uniform(-1, 3, (4, 5)).astype(np.float32)
    found = RoundedMap()(x).numpy()
    step = (x.max() - x.min()) / 255
    assert np.abs(found - x).max() <= 0.51 * step
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)
    assert RoundedMap()(np.abs(x)).numpy().min() >= 0


def test_gradients_pass_the_rounding_unchanged():
    x = tf.constant([[-1.0, -0.3, 0.2, 0.9, 1.0]])  # the two extremes may be clipped
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(RoundedMap()(x) * [[1.0, 2.0, 3.0, 4.0, 5.0]])
    np.testing.assert_allclose(tape.gradient(y, x)[0, 1:4], [2, 3, 4])


def _application(name):
    return models.keras_application(name, None, num_classes=4, image_shape=(32, 32, 3))


@pytest.mark.parametrize(
    "build",
    [
        small_network,
        lambda: models.shufflenet_v2(0.5, 4),
        lambda: _application("MobileNetV3Small"),
        pytest.param(lambda: _application("EfficientNetB0"), marks=pytest.mark.slow),
    ],
)
def test_rounded_network_has_nearly_the_same_logits(build):
    network = build()
    images = made_examples(8, shape=network.image_shape).images.astype(np.float32)
    exact = network(images, training=False)["logits"].numpy()
    rounded = with_rounded_maps(network)(images, training=False).numpy()
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max() + 1e-3


def test_layers_that_tf_lite_fuses_are_not_rounded():
    """The two convolutions are fused with their ReLUs. All other outputs are stored in int8."""
    layers = with_rounded_maps(tiny_network()).layers
    rounded = [layer.input._keras_history.operation for layer in layers if _is_rounding(layer)]
    assert [type(operation).__name__ for operation in rounded] == [
        *("Rescaling", "ReLU", "ReLU", "GlobalAveragePooling2D", "Dense"),
        "Activation",  # the logits in float32
    ]


def _is_rounding(layer):
    return isinstance(layer, RoundedMap)


def test_objective_is_kd_and_cross_entropy_of_rounded_kernels_and_maps():
    """0.9 * 16 KL(teacher, student) at temperature 4, plus 0.1 times the cross entropy."""
    network, teacher = tiny_network(1), tiny_network(2)
    examples = made_examples(8)
    images, labels = tf.constant(examples.images), examples.labels
    loss, logits, _ = quantized_objective(network, teacher)(images, tf.constant(labels))

    inputs = tf.cast(images, tf.float32)
    with_exact_kernels = with_rounded_maps(network)(inputs).numpy()
    rounded = tiny_network(1)
    for layer in rounded.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            kernel = layer.kernel.numpy()
            step = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0) / 127
            layer.kernel.assign(np.round(kernel / step) * step)
    np.testing.assert_allclose(logits, with_rounded_maps(rounded)(inputs), atol=1e-4)
    assert np.abs(logits - with_exact_kernels).max() > 1e-3

    z, t = logits.numpy(), teacher(images, training=False)["logits"].numpy()
    p, q = softmax(t / 4), softmax(z / 4)
    ce = -np.log(softmax(z)[np.arange(8), labels])
    expected = 0.9 * 16 * (p * np.log(p / q)).sum(1) + 0.1 * ce
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_objective_leaves_weights_unchanged_and_every_kernel_has_a_gradient():
    network, teacher = small_network(seed=1), small_network(seed=2)
    examples = made_examples(8)
    before = network.get_weights()
    objective = quantized_objective(network, teacher.folded())
    with tf.GradientTape() as tape:
        loss, logits, _ = objective(tf.constant(examples.images), tf.constant(examples.labels))
    assert (loss.shape, logits.shape) == ((8,), (8, 4))
    assert same(before, network.get_weights())
    kernels = [v.value for v in network.trainable_variables if v.path.endswith("kernel")]
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, kernels))
