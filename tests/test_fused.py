"""Arithmetic that XLA compiles: the same numbers as NumPy's, whatever the shape."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.fused import fused, slice_sums

DRAWS = np.random.default_rng(0)


@fused
def _products(x, y):
    return slice_sums(lambda a, b: a * b, x, y)


@pytest.mark.parametrize("shape", [(3, 4, 4, 2), (2, 3, 3, 5), (1, 1, 1, 1), (5, 2, 1, 6)])
def test_slices_add_up_to_each_examples_sum(shape):
    x, y = (DRAWS.normal(size=shape).astype(np.float32) for _ in range(2))
    sums = tf.reduce_sum(_products(x, y), 1)
    np.testing.assert_allclose(sums, (x * y).sum((1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_bfloat16_products_are_summed_in_float32():
    """4,096 times 1.0078125^2: a bfloat16 sum would stop growing at 256 terms."""
    ones = tf.fill([1, 16, 16, 16], tf.constant(1.0078125, tf.bfloat16))
    np.testing.assert_allclose(tf.reduce_sum(_products(ones, ones)), 4096 * 1.0078125**2)


def test_result_keeps_its_static_shape_in_a_graph():
    @fused
    def twice(x):
        return 2 * x

    graph = tf.function(twice).get_concrete_function(tf.TensorSpec([7, 3])).graph
    assert graph.outputs[0].shape == [7, 3]


def test_replicated_variables_of_one_shape_keep_their_values(one_replica):
    @fused
    def scaled(x, scale):
        return x * scale

    with one_replica.scope():
        scales = [tf.Variable([value]) for value in (2.0, 3.0)]
    results = [scaled(tf.constant([1.0]), scale) for scale in scales]
    np.testing.assert_array_equal(results, [[2.0], [3.0]])
