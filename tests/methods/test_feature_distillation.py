"""L_fd against the table of its cases and plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods import feature_distillation as fd
from tests.methods.numerics import assert_kernel_equals_formula

# s, t and the term by hand, margin -1.
CASES = [
    (0.5, -3.0, 1.5**2),  # t <= m and s > m: to m
    (-1.5, -3.0, 0.0),  # t <= m and s < m: nothing
    (-0.2, -0.6, 0.4**2),  # m < t <= 0 and s > t: to t
    (-0.9, -0.6, 0.0),  # m < t <= 0 and s < t: nothing
    (0.0, -1.0, 1.0),  # t at the margin
    (0.3, 0.0, 0.3**2),  # t at zero: only from above
    (-0.3, 0.0, 0.0),
    (2.0, 0.5, 1.5**2),  # t > 0: from both sides
    (-2.0, 0.5, 2.5**2),
]


@pytest.mark.parametrize(("student", "target", "expected"), CASES)
def test_partial_l2_case_by_case(student, target, expected):
    loss = fd.partial_l2(tf.fill([1, 1, 1, 1], student), tf.fill([1, 1, 1, 1], target))
    np.testing.assert_allclose(loss, [expected], atol=1e-6)


def _numpy_partial_l2(s, t, m):
    terms = np.zeros_like(s)
    terms += np.where((t <= m) & (s > m), (s - m) ** 2, 0)
    terms += np.where((t > m) & (t <= 0) & (s > t), (s - t) ** 2, 0)
    terms += np.where(t > 0, (s - t) ** 2, 0)
    return terms.sum((1, 2, 3))


@pytest.mark.parametrize("margin", [-1.0, -0.3])
def test_partial_l2_sums_over_each_examples_elements(margin):
    draws = np.random.default_rng(0)
    s, t = (draws.normal(-0.3, 1.5, (4, 5, 6, 7)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(
        fd.partial_l2(s, tf.constant(t), margin), _numpy_partial_l2(s, t, margin), rtol=1e-5
    )


def test_partial_l2_gradient_is_twice_the_difference():
    s = tf.constant([[c[0] for c in CASES]])[:, tf.newaxis, tf.newaxis]
    t = tf.constant([[c[1] for c in CASES]])[:, tf.newaxis, tf.newaxis]
    with tf.GradientTape() as tape:
        tape.watch(s)
        loss = fd.partial_l2(s, t)
    expected = [2 * 1.5, 0, 2 * 0.4, 0, 2 * 1.0, 2 * 0.3, 0, 2 * 1.5, 2 * -2.5]
    np.testing.assert_allclose(tape.gradient(loss, s)[0, 0, 0], expected, atol=1e-6)


def test_student_equal_to_the_target_has_no_loss():
    maps = tf.constant(np.random.default_rng(1).uniform(-1, 3, (2, 3, 3, 4)).astype(np.float32))
    np.testing.assert_array_equal(fd.partial_l2(maps, maps), [0, 0])
    np.testing.assert_array_equal(fd.clipped_l2(maps, maps), [0, 0])


def test_clipped_l2_clips_both_maps():
    """(-2, -3) -> (-1, -1); (0.5, -4) -> 1.5; (-4, 2) -> 3: 0 + 2.25 + 9."""
    s = tf.constant([-2.0, 0.5, -4.0])[tf.newaxis, tf.newaxis, tf.newaxis]
    t = tf.constant([-3.0, -4.0, 2.0])[tf.newaxis, tf.newaxis, tf.newaxis]
    np.testing.assert_allclose(fd.clipped_l2(s, t), [11.25])


def test_group_weights_are_a_quarter_a_half_and_one():
    """Terms 4, 4 and 4 of three groups: 1, 2 and 4."""
    groups = ("group1", "group2", "group3")
    maps = {group: tf.fill([1, 1, 1, 1], 3.0) for group in groups}
    targets = {group: tf.fill([1, 1, 1, 1], 1.0) for group in groups}
    parts = fd.feature_distillation_loss(maps, targets)
    assert {name: part.numpy().tolist() for name, part in parts.items()} == {
        "group1": [1.0], "group2": [2.0], "group3": [4.0],
    }  # fmt: skip
    assert [fd.group_weight(g, 5) for g in range(1, 6)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_partial_l2_kernel_equals_its_formula(dtype):
    draws = np.random.default_rng(2)
    maps = [tf.cast(draws.normal(-0.3, 1.5, (3, 4, 4, 5)), dtype) for _ in range(2)]
    assert_kernel_equals_formula(lambda function, s, t: function(s, t), fd.partial_l2, maps)
