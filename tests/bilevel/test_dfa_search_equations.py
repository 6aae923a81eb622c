"""The equations of the search, against hand-worked numbers and plain NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import bridge_loss, normalized_l2
from dfa_tf.methods.losses import cross_entropy
from tests.conftest import small_network, small_supernet
from tests.methods.numerics import assert_kernel_equals_formula

DRAWS = np.random.default_rng(0)


def _map(*shape):
    return DRAWS.normal(0, 1, shape).astype(np.float32)


def test_cross_entropy_by_hand():
    """Odds 1 : 3, true class the second: -ln(3/4); then the first: -ln(1/4) (Eqns 5, 10)."""
    logits = tf.constant([[0.0, math.log(3)], [0.0, math.log(3)]])
    np.testing.assert_allclose(
        cross_entropy(logits, tf.constant([1, 0])), [-math.log(0.75), -math.log(0.25)], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ([3.0, 4.0], 0.0),  # the same direction, five times as long
        ([-0.6, -0.8], 4.0),  # opposite
        ([-4.0, 3.0], 2.0),  # orthogonal
        # (1, 0) to (.6, .8): .4^2 + .8^2 = .8
        ([1.0, 0.0], 0.8),
    ],
)
def test_normalized_l2_by_hand(student, expected):
    aggregation = np.array([0.6, 0.8], np.float32).reshape(1, 1, 2, 1)
    loss = normalized_l2(np.array(student, np.float32).reshape(1, 1, 2, 1), aggregation)
    np.testing.assert_allclose(loss, [expected], atol=1e-6)


def test_normalized_l2_is_the_squared_distance_of_normalized_maps():
    student, aggregation = 3 * _map(5, 4, 3, 2), 0.1 * _map(5, 4, 3, 2)
    flat = [x.reshape(5, -1) for x in (student, aggregation)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    expected = np.sum((unit[0] - unit[1]) ** 2, axis=1)
    np.testing.assert_allclose(normalized_l2(student, aggregation), expected, rtol=1e-5)


def test_normalized_l2_gradient_equals_a_numerical_gradient():
    student, aggregation = _map(2, 2, 2, 2), _map(2, 2, 2, 2)
    analytic, numeric = tf.test.compute_gradient(
        lambda s, a: tf.reduce_sum(normalized_l2(s, a)), [student, aggregation], delta=1e-2
    )
    for a, n in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(a, n, atol=2e-3)


def test_normalized_l2_of_a_zero_map_is_the_squared_norm_of_the_other():
    """|0 - y/|y||^2 = 1, |0 - 0|^2 = 0, and the gradients are finite."""
    zeros, ones = tf.zeros([1, 2, 2, 1]), tf.ones([1, 2, 2, 1])
    for x, y, expected in ((zeros, ones, 1.0), (ones, zeros, 1.0), (zeros, zeros, 0.0)):
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            loss = normalized_l2(x, y)
        np.testing.assert_array_equal(loss, [expected])
        assert all(np.isfinite(g).all() for g in tape.gradient(loss, [x, y]))


@pytest.mark.parametrize(
    ("weights", "gamma_st", "gamma_ts"),
    [({}, 1e-3, 1.0), ({"gamma_st": 0.5, "gamma_ts": 3.0}, 0.5, 3.0)],
)
def test_bridge_loss_is_the_weighted_sum_of_both_paths(batch, weights, gamma_st, gamma_ts):
    """L_Bridge = gamma_ST L_ST + gamma_TS L_TS, by default 1e-3 and 1 (Eqn 12, §3.4)."""
    images, labels = batch
    networks = small_network(depth=16, seed=1), small_network(depth=10, seed=2)
    net = small_supernet(*networks, **weights)
    aggregations = net.aggregations(net.teacher_features(["group2"], images))
    value, parts = bridge_loss(net, images, labels, aggregations)
    expected = gamma_st * parts["st"].numpy() + gamma_ts * parts["ts"].numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_normalized_l2_kernel_equals_its_formula(dtype):
    maps = [tf.cast(_map(3, 4, 4, 5), dtype) for _ in range(2)]
    assert_kernel_equals_formula(lambda function, x, y: function(x, y), normalized_l2, maps)


@pytest.mark.parametrize("size", [1e-4, 1e-7])
def test_normalized_l2_kernel_equals_its_formula_for_small_maps(size):
    """The squared norm of 80 elements of 1e-7 is below the limit for normalization, 1e-12."""
    maps = [tf.constant(size * _map(3, 4, 4, 5)), tf.constant(_map(3, 4, 4, 5))]
    assert_kernel_equals_formula(lambda function, x, y: function(x, y), normalized_l2, maps)
