"""Update rules against plain NumPy; schedules in epochs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay, check_recipe, steps_of


class _Constant:
    def __init__(self, rate):
        self._rate = rate

    def schedule(self, steps_per_epoch, steps):
        return self._rate


def _run(optimizer, variable, gradients):
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])
    return variable.numpy()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_coupled_decay(nesterov):
    gradients = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)
    start, rate, momentum, decay = np.array([1.0, -2.0, 0.5]), 0.1, 0.9, 0.01
    variable = tf.Variable(start, dtype=tf.float32)
    recipe = SGD(_Constant(rate), momentum, nesterov, decay)
    found = _run(recipe.build([variable], 1, 5), variable, gradients)
    weight, buffer = start.copy(), np.zeros(3)
    for gradient in gradients:  # as in PyTorch
        gradient = gradient + decay * weight
        buffer = momentum * buffer + gradient
        weight -= rate * (gradient + momentum * buffer if nesterov else buffer)
    np.testing.assert_allclose(found, weight, rtol=1e-5)


def test_adam_with_coupled_decay():
    """The decay is part of the gradient that Adam normalizes (Eqn 7, DFA §3.4)."""
    gradients = 0.01 * np.random.default_rng(1).normal(0, 1, (6, 3)).astype(np.float32)
    start, rate, b1, b2, decay = np.array([1.0, -2.0, 0.5]), 1e-3, 0.5, 0.999, 0.1
    variable = tf.Variable(start, dtype=tf.float32)
    found = _run(Adam(rate, b1, b2, decay).build([variable], 1, 5), variable, gradients)
    weight, m, v = start.copy(), 0, 0
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient + decay * weight
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        weight -= rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
    np.testing.assert_allclose(found, weight, rtol=1e-5)


def test_adam_moves_a_parameter_by_its_learning_rate_at_most_to_begin_with():
    variable = tf.Variable([0.0])
    _run(Adam(0.01, weight_decay=0.0).build([variable], 1, 1), variable, [[1e-3]])
    np.testing.assert_allclose(variable, [-0.01], rtol=0.02)


def test_decay_is_counted_once_however_many_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([2.0])
        optimizer = SGD(_Constant(0.1), 0.0, False, weight_decay=0.5).build([variable], 1, 1)
    tf.function(lambda: two_replicas.run(lambda: optimizer.apply([tf.constant([0.0])])))()
    np.testing.assert_allclose(variable.numpy(), [2.0 - 0.1 * 0.5 * 2.0])


def test_gradients_are_summed_over_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([0.0])
        optimizer = SGD(_Constant(1.0), 0.0, False, weight_decay=0.0).build([variable], 1, 1)

    def replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.reshape(tf.cast(number + 1, tf.float32), [1])])

    tf.function(lambda: two_replicas.run(replica))()
    np.testing.assert_allclose(variable.numpy(), [-3.0])


def test_step_decay_changes_at_the_first_step_of_an_epoch():
    """DFA §4.1: 0.1, times 0.2 at epochs 60, 120 and 160; 390.625 steps an epoch."""
    schedule = StepDecay().schedule(50_000 / 128, 78_125)
    rate = {step: float(schedule(step)) for step in (0, 23_437, 23_438, 46_874, 46_875, 62_500)}
    expected = {0: 0.1, 23_437: 0.1, 23_438: 0.02, 46_874: 0.02, 46_875: 0.004, 62_500: 0.0008}
    assert rate == pytest.approx(expected, rel=1e-5)


def test_cosine_falls_to_zero():
    schedule = Cosine(0.2).schedule(10, 100)
    rates = [float(schedule(step)) for step in (0, 25, 50, 100)]
    expected = [0.2, 0.1 * (1 + np.sqrt(0.5)), 0.1, 0.0]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_cosine_may_rise_first():
    schedule = Cosine(0.2, warmup_epochs=2).schedule(10, 100)
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0], abs=1e-6)


def test_steps_carry_remainders_over():
    """40 epochs of CIFAR-100's 35,000 in batches of 128: 10,937.5."""
    assert steps_of(40, 35_000, 128) == 10_937
    assert steps_of(3, 35_000, 128) == 820
    assert steps_of(0.1, 1280, 128) == 1


def test_no_whole_batch_is_refused():
    with pytest.raises(UserError, match="make no batch of 128"):
        steps_of(0, 1000, 128)


@pytest.mark.parametrize("recipe", [Adam(0.02), SGD(Cosine(0.02))])
def test_learning_rate_can_be_read_under_replicas(recipe, two_replicas):
    with two_replicas.scope():
        variables = [tf.Variable([1.0])]
        optimizer = recipe.build(variables, 10, 100)
    assert optimizer.learning_rate == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Cosine(-1.0), "cosine.initial lies above 0"),
        (lambda: Cosine(0.1, -1.0), "cosine.warmup_epochs is 0 or more"),
        (lambda: StepDecay(epochs=(60, 40)), "step_decay.epochs ascend"),
        (lambda: SGD(weight_decay=-1.0), "sgd.weight_decay is 0 or more"),
        (lambda: Adam(weight_decay=-1.0), "adam.weight_decay is 0 or more"),
        (lambda: Adam("fast"), "adam.learning_rate is a number or a schedule"),
        (lambda: check_recipe(keras.optimizers.SGD()), "an optimizer is an SGD or an Adam"),
    ],
)
def test_what_no_schedule_can_be_is_told(make, told):
    with pytest.raises(UserError, match=told):
        make()


def test_adam_takes_a_schedule_as_sgd_does():
    variable = tf.Variable([0.0])
    optimizer = Adam(Cosine(0.1), weight_decay=0.0).build([variable], 1, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.learning_rate)
        optimizer.apply([tf.constant([1.0])])
    expected = [0.05 * (1 + np.cos(np.pi * k / 10)) for k in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
