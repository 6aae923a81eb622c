"""The aggregation of features, against hand-worked numbers and its plain formula."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.aggregation import aggregate, aggregation_weights, clip
from tests.methods.numerics import assert_kernel_equals_formula

DRAWS = np.random.default_rng(0)


def _map(*shape):
    return DRAWS.normal(0, 1, shape).astype(np.float32)


def test_alpha_is_the_softmax_of_beta():
    """exp(0) : exp(ln 3) = 1 : 3 (Eqn 6)."""
    np.testing.assert_allclose(aggregation_weights(tf.constant([0.0, math.log(3)])), [0.25, 0.75])


def test_aggregation_is_the_weighted_sum():
    """0.25 * 4 + 0.75 * (-8) = -5 (Eqn 2)."""
    features = [tf.fill([1, 2, 2, 1], 4.0), tf.fill([1, 2, 2, 1], -8.0)]
    aggregation = aggregate(features, tf.constant([0.25, 0.75]))
    np.testing.assert_array_equal(aggregation, np.full((1, 2, 2, 1), -5.0))


def test_gradient_of_the_aggregation():
    """d<U, A>/d alpha_j = <U, T_j>, d<U, A>/dT_j = alpha_j U."""
    first, second, upstream = _map(2, 3, 3, 2), _map(2, 3, 3, 2), _map(2, 3, 3, 2)
    alpha = tf.constant([0.3, 0.7])
    features = [tf.constant(first), tf.constant(second)]
    with tf.GradientTape() as tape:
        tape.watch([alpha, *features])
        inner = tf.reduce_sum(upstream * aggregate(features, alpha))
    for_alpha, for_first, for_second = tape.gradient(inner, [alpha, *features])
    np.testing.assert_allclose(
        for_alpha, [np.sum(upstream * first), np.sum(upstream * second)], rtol=1e-4
    )
    np.testing.assert_allclose(for_first, 0.3 * upstream, rtol=1e-5)
    np.testing.assert_allclose(for_second, 0.7 * upstream, rtol=1e-5)


def test_clipped_aggregation_and_its_gradient():
    """.5 max(-3, -1) + .5 * 4 = 1.5; alpha's gradient sees -1 for -3, and -3 gets none."""
    features = [tf.fill([1, 1, 1, 1], -3.0), tf.fill([1, 1, 1, 1], 4.0)]
    alpha = tf.constant([0.5, 0.5])
    with tf.GradientTape() as tape:
        tape.watch([alpha, *features])
        aggregation = aggregate(features, alpha, clipped=True)
    assert aggregation.numpy().item() == 1.5
    for_alpha, low, high = tape.gradient(aggregation, [alpha, *features])
    np.testing.assert_array_equal(for_alpha, [-1.0, 4.0])
    assert (low.numpy().item(), high.numpy().item()) == (0.0, 0.5)


def test_gradient_for_alpha_is_summed_in_float32_from_bfloat16_maps():
    """32,768 ones: a bfloat16 sum would stop growing at 256."""
    features = [tf.ones([8, 16, 16, 16], tf.bfloat16)] * 2
    alpha = tf.constant([0.5, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        aggregation = aggregate(features, alpha)
    assert aggregation.dtype == tf.bfloat16
    ones = tf.ones_like(aggregation)
    np.testing.assert_allclose(tape.gradient(aggregation, alpha, ones), [32768.0, 32768.0])


def test_clip_preserves_values_no_smaller_than_minus_one():
    np.testing.assert_array_equal(
        clip(tf.constant([-3.0, -1.0, -0.5, 0.0, 7.0])), [-1.0, -1.0, -0.5, 0.0, 7.0]
    )


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("clipped", [False, True])
def test_aggregate_kernel_equals_its_formula(dtype, clipped):
    features = [tf.cast(3 * _map(3, 4, 4, 5), dtype) for _ in range(3)]
    alpha = tf.constant([0.2, 0.5, 0.3])
    assert_kernel_equals_formula(
        lambda function, alpha, *features: function(features, alpha, clipped),
        aggregate,
        [alpha, *features],
    )


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_clip_kernel_equals_its_formula(dtype):
    feature = tf.cast(3 * _map(3, 4, 4, 5), dtype)
    assert np.any(feature < -1)
    np.testing.assert_array_equal(clip(feature), clip.formula(feature))
    assert_kernel_equals_formula(lambda function, x: function(x), clip, [feature])
