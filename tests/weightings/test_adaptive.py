"""Adaptive Distillation: where the importances rest, and what they do to the student's gradient."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.replicas import global_mean
from dfa_tf.training.optimizers import SGD
from dfa_tf.weightings import Adaptive
from dfa_tf.weightings.adaptive import AdaptiveWeights

BATCH = 4


def _constant(losses):
    return {path: tf.fill([BATCH], tf.constant(loss)) for path, loss in losses.items()}


def _trained(losses, steps, scale=1.0):
    """The weights of constant losses after SGD, and the combined loss."""
    weights = AdaptiveWeights(list(losses), scale)
    variables = [v for layer in weights.layers for v in layer.trainable_variables]
    optimizer = SGD(0.1, 0.9, False, 0.0).build(variables, 1, steps)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            total, _ = weights(_constant(losses), 0)
            mean = tf.reduce_mean(total)
        optimizer.apply(tape.gradient(mean, [v.value for v in variables]))

    for _ in range(steps):
        step()
    total, measured = weights(_constant(losses), 0)
    return {name: float(value[0]) for name, value in measured.items()}, float(total[0])


def test_importance_of_a_constant_loss_is_its_reciprocal():
    """From both sides: the losses .2 and 5 have the importances 5 and .2 where they rest."""
    weights, total = _trained({"small": 0.2, "large": 5.0}, 400)
    assert weights["weight/small"] == pytest.approx(5, rel=1e-3)
    assert weights["weight/large"] == pytest.approx(0.2, rel=1e-3)
    # c (K + sum of ln L): 2 + ln .2 + ln 5 = 2.
    assert total == pytest.approx(2, abs=1e-3)


def test_another_weight_of_a_path_changes_the_start_alone():
    """Ten times the loss has a tenth of the importance: the product stays 1."""
    weights, total = _trained({"a": 10 * 0.2, "b": 5.0}, 400)
    assert weights["weight/a"] * 10 * 0.2 == pytest.approx(1, rel=1e-3)
    assert total == pytest.approx(2 + np.log(10), abs=1e-3)


def test_scale_multiplies_the_sum_over_the_paths():
    """At the rest 3 (1 + ln 2); the path itself is multiplied by 3 / 2."""
    weights, total = _trained({"a": 2.0}, 400, scale=3.0)
    assert total == pytest.approx(3 * (1 + np.log(2)), abs=1e-2)
    assert weights["weight/a"] == pytest.approx(1.5, rel=1e-2)


def test_all_paths_start_with_weight_one():
    losses = {"a": tf.constant([1.0, 2.0]), "b": tf.constant([3.0, 5.0])}
    total, measured = Adaptive().build(["a", "b"], 10)(losses, 0)
    np.testing.assert_allclose(total, [4.0, 7.0])
    np.testing.assert_allclose(measured["weight/a"], [1.0, 1.0])


def test_gradient_of_the_student_is_the_sum_of_weighted_gradients():
    """exp(-a) = 2 and .5 times the gradients 2 x and 3 of x^2 and 3 x at x = 1."""
    weights = AdaptiveWeights(["square", "linear"])
    weights.layers[0].a.assign([-np.log(2), np.log(2)])
    x = tf.constant([1.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total, _ = weights({"square": x**2, "linear": 3 * x}, 0)
    np.testing.assert_allclose(tape.gradient(total, x), [2 * 2 + 0.5 * 3], rtol=1e-6)


def test_replicas_count_each_importance_once(one_replica, two_replicas):
    """The gradient for a is 1 - L on any number of replicas."""
    losses = np.array([0.5, 1.5, 2.5, 3.5], np.float32)  # mean 2

    def gradient(strategy):
        with strategy.scope():
            weights = AdaptiveWeights(["a"])
        variable = weights.layers[0].a.value
        count = strategy.num_replicas_in_sync

        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            part = tf.split(tf.constant(losses), count)
            mine = tf.stack(part)[index]
            with tf.GradientTape() as tape:
                total, _ = weights({"a": mine}, 0)
                share = global_mean(total, len(losses))
            return tape.gradient(share, variable)

        return strategy.reduce("SUM", tf.function(strategy.run)(replica), axis=None)

    for strategy in (one_replica, two_replicas):
        np.testing.assert_allclose(gradient(strategy), [1 - 2.0], rtol=1e-6)
