"""The shared layers, compared with NumPy and with Keras."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.models import BatchNormalization
from dfa_tf.models.layers import Layers, ResidualAdd
from dfa_tf.models.normalization import fast_tangents, normalize_with_fast_tangent


def test_strided_convolution_pads_both_sides():
    """PyTorch's padding=1; Keras' "same" would shift the map by one pixel."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, Layers().convolution(inputs, 1, 3, "conv", stride=2))
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    model.get_layer("conv").kernel.assign(kernel.reshape(3, 3, 1, 1))
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    padded = np.pad(image, 1)
    expected = [[np.sum(padded[y : y + 3, x : x + 3] * kernel) for x in (0, 2)] for y in (0, 2)]
    np.testing.assert_allclose(model(image.reshape(1, 4, 4, 1))[0, ..., 0], expected)


def _with_parameters(layer, channels):
    layer.build((None, 4, 4, channels))
    layer.gamma.assign(np.linspace(0.5, 2, channels))
    layer.beta.assign(np.linspace(-1, 1, channels))
    layer.moving_mean.assign(np.linspace(-0.5, 0.5, channels))
    layer.moving_variance.assign(np.linspace(0.5, 2, channels))
    return layer


def test_fused_normalization_equals_that_of_keras():
    maps = np.random.default_rng(0).normal(1, 2, (6, 4, 4, 5)).astype(np.float32)
    fused = _with_parameters(BatchNormalization(), 5)
    stock = _with_parameters(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5), 5)
    for training in (False, True):
        np.testing.assert_allclose(
            fused(maps, training=training), stock(maps, training=training), atol=1e-5
        )


def _exact(x, gamma, beta):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def _exact_gradient(upstream, x, gamma):
    """That of <upstream, y> for x and gamma."""
    n = x[..., 0].size
    deviation = np.sqrt(x.var((0, 1, 2)) + 1e-5)
    unit = (x - x.mean((0, 1, 2))) / deviation
    for_gamma = (upstream * unit).sum((0, 1, 2))
    centred = upstream - upstream.mean((0, 1, 2)) - unit * for_gamma / n
    return gamma * centred / deviation, for_gamma


def _along(function, point, direction, step=1e-5):
    """The numerical derivative of a function along a direction, in float64."""
    ahead, behind = (
        [p + s * d for p, d in zip(point, direction, strict=True)] for s in (step, -step)
    )
    return (function(*ahead) - function(*behind)) / (2 * step)


def test_fast_tangent_and_second_derivatives_of_a_normalization_equal_numpy():
    """Against NumPy's float64: value, gradient, tangent, and the second derivative for x and gamma."""
    draws = np.random.default_rng(0)
    x, upstream, dx = (draws.normal(1, 2, (3, 4, 4, 2)) for _ in range(3))
    gamma, beta, dgamma, dbeta = draws.normal(1, 1, (4, 2))
    tensors = [tf.constant(t, tf.float32) for t in (x, gamma, beta, upstream)]

    @tf.function
    def derivatives(x, gamma, beta, upstream):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([x, gamma, upstream])
            with tf.GradientTape() as tape:
                tape.watch([x, gamma, beta])
                y = normalize_with_fast_tangent(x, gamma, beta, 1e-5)[0]
            gradients = tape.gradient(y, [x, gamma, beta], upstream)
        directions = [tf.constant(d, tf.float32) for d in (dx, dgamma, dbeta)]
        return y, gradients, outer.gradient(gradients, [upstream, x, gamma], directions)

    y, gradients, (tangent, for_x, for_gamma) = derivatives(*tensors)
    np.testing.assert_allclose(y, _exact(x, gamma, beta), atol=1e-5)
    for found, expected in zip(gradients, _exact_gradient(upstream, x, gamma), strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[2], upstream.sum((0, 1, 2)), rtol=1e-4)
    expected = _along(_exact, [x, gamma, beta], [dx, dgamma, dbeta])
    np.testing.assert_allclose(tangent, expected, atol=1e-4)

    def product(x, gamma):
        gradient_x, gradient_gamma = _exact_gradient(upstream, x, gamma)
        return np.sum(gradient_x * dx) + np.sum(gradient_gamma * dgamma)

    moved = draws.normal(size=x.shape), draws.normal(size=2)
    second = np.sum(for_x * moved[0]) + np.sum(for_gamma * moved[1])
    np.testing.assert_allclose(second, _along(product, [x, gamma], moved), rtol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_fast_tangents_change_nothing_but_the_rounding_of_tangents(precision):
    """Of a layer: the maps, the moving statistics and the gradients are equal to the bit."""
    draws = np.random.default_rng(0)
    dtype = keras.DTypePolicy(precision).compute_dtype
    maps, upstream, *directions = (
        tf.cast(draws.normal(1, 2, shape), type)
        for shape, type in [((6, 4, 4, 5), dtype)] * 3 + [(5, tf.float32)] * 2
    )
    results = []
    for scope in (contextlib.nullcontext(), fast_tangents()):
        layer = _with_parameters(BatchNormalization(dtype=precision), 5)
        inputs = [maps, layer.gamma.value, layer.beta.value]
        with tf.GradientTape() as outer:
            outer.watch(upstream)
            with tf.GradientTape() as tape, scope:
                tape.watch(maps)
                y = layer(maps, training=True)
            gradients = tape.gradient(y, inputs, upstream)
        tangent = outer.gradient(gradients, upstream, [directions[0], *directions[1:]])
        results.append(([y, *gradients, *layer.get_weights()], tf.cast(tangent, tf.float32)))
    (plain, tangent), (fast, fast_tangent) = results
    for one, two in zip(plain, fast, strict=True):
        np.testing.assert_array_equal(one, two)
    tolerance = 1e-5 if precision == "float32" else 2**-6
    largest = np.abs(tangent).max()
    np.testing.assert_allclose(fast_tangent, tangent, atol=tolerance * largest)


def test_moving_statistics_use_mean_and_unbiased_variance():
    maps = np.random.default_rng(1).normal(3, 2, (2, 2, 2, 1)).astype(np.float32)
    layer = BatchNormalization(momentum=0.9)
    layer(maps, training=True)
    np.testing.assert_allclose(layer.moving_mean, [0.1 * maps.mean()], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * maps.var(ddof=1)], rtol=1e-5)


def test_moving_statistics_are_constant_at_inference_or_frozen():
    maps = np.ones((2, 2, 2, 3), np.float32)
    layer = BatchNormalization()
    layer(maps, training=False)
    layer.trainable = False
    layer(maps, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


def test_bfloat16_maps_stay_bfloat16_and_statistics_float32():
    layer = BatchNormalization(dtype="mixed_bfloat16")
    maps = tf.cast(np.random.default_rng(2).normal(0, 1, (8, 4, 4, 3)), tf.bfloat16)
    assert layer(maps, training=True).dtype == tf.bfloat16
    assert {v.dtype for v in layer.variables} == {"float32"}


def test_replicas_have_their_own_statistics_and_their_mean_is_read(two_replicas):
    with two_replicas.scope():
        layer = BatchNormalization(momentum=0.5)
        layer.build((None, 2, 2, 1))

    def replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        layer(tf.fill([1, 2, 2, 1], 4.0 * tf.cast(number, tf.float32)), training=True)

    tf.function(lambda: two_replicas.run(replica))()
    assert [float(v[0]) for v in layer.moving_mean.value.values] == [0.0, 2.0]
    assert layer.get_weights()[2][0] == 1.0


def test_residual_add_and_its_gradient():
    x, y = (np.random.default_rng(k).normal(size=(2, 3, 3, 4)).astype(np.float32) for k in (0, 1))
    shortcut, branch = tf.constant(x), tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch([shortcut, branch])
        total = ResidualAdd()([shortcut, branch])
    np.testing.assert_array_equal(total, x + y)
    for gradient in tape.gradient(total, [shortcut, branch], tf.constant(x)):
        np.testing.assert_array_equal(gradient, x)
