"""The kernels of layers, compared with plain TensorFlow: value and gradient."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.models.layers import ReLU

both_dtypes = pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])


def _maps(seed, dtype, shape=(3, 4, 4, 6)):
    return tf.cast(np.random.default_rng(seed).normal(size=shape), dtype)


def _value_and_gradients(function, upstream, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = function(*inputs)
    return [y, *tape.gradient(y, inputs, upstream)]


def _plain_affine(x, scale, offset, rectify):
    y = scale * tf.cast(x, tf.float32) + offset
    return tf.cast(tf.nn.relu(y) if rectify else y, x.dtype)


@both_dtypes
def test_relu_equals_its_formula(dtype):
    x = tf.concat([_maps(0, dtype), tf.zeros((1, 4, 4, 6), dtype)], 0)
    upstream = _maps(1, dtype, x.shape)
    outputs = _value_and_gradients(kernels.relu, upstream, x)
    expected = _value_and_gradients(tf.nn.relu, upstream, x)
    for a, b in zip(outputs, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)


@both_dtypes
@pytest.mark.parametrize("rectify", [False, True])
def test_affine_equals_its_formula(dtype, rectify):
    x, upstream = _maps(0, dtype), _maps(1, dtype)
    scale, offset = _maps(2, tf.float32, (6,)), _maps(3, tf.float32, (6,))
    outputs, expected = (
        _value_and_gradients(lambda *x, f=f: f(*x, rectify), upstream, x, scale, offset)
        for f in (kernels.affine, _plain_affine)
    )
    tolerance = 1e-5 if dtype == tf.float32 else 2**-7  # one unit in the last place
    assert outputs[0].dtype == dtype
    for a, b in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(
            tf.cast(a, tf.float32), tf.cast(b, tf.float32), rtol=tolerance, atol=tolerance
        )


def test_relu_layer_and_its_gradient_of_bfloat16_maps():
    maps = tf.constant([[-2.0, 0.0, 3.0]], tf.bfloat16)
    upstream = tf.constant([[5.0, 6.0, 7.0]], tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        rectified = ReLU(dtype="mixed_bfloat16")(maps)
    np.testing.assert_array_equal(tf.cast(rectified, tf.float32), [[0, 0, 3]])
    gradient = tape.gradient(rectified, maps, upstream)
    np.testing.assert_array_equal(tf.cast(gradient, tf.float32), [[0, 0, 7]])


def _tangent(function, x, direction):
    """J v, the derivative of the gradient with respect to the upstream gradient."""
    upstream = tf.ones_like(function(x))
    with tf.GradientTape() as outer:
        outer.watch(upstream)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        gradient = tape.gradient(y, x, upstream)
    return outer.gradient(gradient, upstream, direction)


@both_dtypes
def test_tangent_of_a_relu_is_the_direction_where_the_map_is_positive(dtype):
    x, direction = _maps(0, dtype), _maps(1, dtype)
    expected = tf.where(x > 0, direction, tf.zeros_like(direction))
    np.testing.assert_array_equal(_tangent(kernels.relu, x, direction), expected)


@both_dtypes
def test_repeated_maps_have_sums_as_gradients(dtype):
    """Each element twice along H and three times along W; its gradient is the sum over the six."""
    x, upstream = _maps(0, dtype), _maps(1, dtype, (3, 8, 12, 6))
    y, gradient = _value_and_gradients(lambda x: kernels.repeated(x, 2, 3), upstream, x)
    assert y.dtype == gradient.dtype == dtype
    as_float = [np.asarray(tf.cast(m, tf.float32)) for m in (x, upstream, gradient)]
    np.testing.assert_array_equal(tf.cast(y, tf.float32), as_float[0].repeat(2, 1).repeat(3, 2))
    sums = as_float[1].reshape(3, 4, 2, 4, 3, 6).sum((2, 4))
    np.testing.assert_allclose(as_float[2], sums, atol=1e-5 if dtype == tf.float32 else 2**-6)
    tangent = _tangent(lambda x: kernels.repeated(x, 2, 3), x, x)
    np.testing.assert_array_equal(tf.cast(tangent, tf.float32), tf.cast(y, tf.float32))
