"""Update rules against plain NumPy, and schedules in epochs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay
from dfa_tf.training.recipe import Training
from tests.conftest import same


def _run(optimizer, variable, gradients):
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])
    return variable.numpy()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_adds_the_decay_to_the_gradient(nesterov):
    gradients = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)
    start, rate, momentum, decay = np.array([1.0, -2.0, 0.5]), 0.1, 0.9, 0.01
    variable = tf.Variable(start, dtype=tf.float32)
    recipe = SGD(rate, momentum, nesterov, decay)
    found = _run(recipe.build([variable], 1, 5), variable, gradients)
    weight, buffer = start.copy(), np.zeros(3)
    for gradient in gradients:  # as in PyTorch
        gradient = gradient + decay * weight
        buffer = momentum * buffer + gradient
        weight -= rate * (gradient + momentum * buffer if nesterov else buffer)
    np.testing.assert_allclose(found, weight, rtol=1e-5)


@pytest.mark.parametrize(("nesterov", "momentum"), [(True, 0.9), (False, 0.9), (False, 0.0)])
def test_lookahead_is_the_next_step(nesterov, momentum):
    gradients = np.random.default_rng(0).normal(0, 1, (3, 2)).astype(np.float32)
    variable = tf.Variable([1.0, -2.0])
    optimizer = SGD(Cosine(0.1), momentum, nesterov, weight_decay=0.01).build([variable], 1, 5)
    _run(optimizer, variable, gradients[:2])
    before = variable.numpy()
    (ahead,), factor = optimizer.lookahead([tf.constant(gradients[2])])
    (further,), _ = optimizer.lookahead([tf.constant(gradients[2] + 1.0)])
    np.testing.assert_allclose(further - ahead, -float(factor) * np.ones(2), rtol=1e-4)
    assert same([before], [variable.numpy()])
    np.testing.assert_allclose(ahead, _run(optimizer, variable, gradients[2:]), rtol=1e-5)


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


def test_first_adam_step_moves_a_parameter_by_the_learning_rate():
    variable = tf.Variable([0.0])
    _run(Adam(0.01, weight_decay=0.0).build([variable], 1, 1), variable, [[1e-3]])
    np.testing.assert_allclose(variable, [-0.01], rtol=0.02)


def test_decay_does_not_depend_on_the_number_of_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([2.0])
        optimizer = SGD(0.1, 0.0, False, weight_decay=0.5).build([variable], 1, 1)
    tf.function(lambda: two_replicas.run(lambda: optimizer.apply([tf.constant([0.0])])))()
    np.testing.assert_allclose(variable.numpy(), [2.0 - 0.1 * 0.5 * 2.0])


def test_gradients_are_summed_over_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([0.0])
        optimizer = SGD(1.0, 0.0, False, weight_decay=0.0).build([variable], 1, 1)

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


def test_cosine_warms_up():
    schedule = Cosine(0.2, warmup_epochs=2).schedule(10, 100)
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.0], abs=1e-6)


def test_remainders_of_epochs_carry_over():
    """40 epochs of CIFAR-100's 35,000 in batches of 128: 10,937.5."""
    assert Training(40).steps(35_000) == 10_937
    assert Training(3).steps(35_000) == 820
    assert Training(0.1).steps(1280) == 1


def test_run_shorter_than_a_batch_is_an_error():
    with pytest.raises(UserError, match="epochs"):
        Training(0.1).steps(1000)


@pytest.mark.parametrize("recipe", [Adam(0.02), SGD(Cosine(0.02))])
def test_learning_rate_is_readable_with_replicas(recipe, two_replicas):
    with two_replicas.scope():
        variables = [tf.Variable([1.0])]
        optimizer = recipe.build(variables, 10, 100)
    assert optimizer.learning_rate == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: Cosine(-1.0), r"cosine\.initial"),
        (lambda: Cosine(0.1, -1.0), r"cosine\.warmup_epochs"),
        (lambda: StepDecay(epochs=(60, 40)), r"step_decay\.epochs"),
        (lambda: SGD(weight_decay=-1.0), r"sgd\.weight_decay"),
        (lambda: Adam(weight_decay=-1.0), r"adam\.weight_decay"),
        (lambda: Adam("fast"), r"adam\.learning_rate"),
        (lambda: Training(optimizer=keras.optimizers.SGD()), r"training\.optimizer"),
        (lambda: Training(optimizer=SGD), r"training\.optimizer"),
        (lambda: SGD(momentum=1.5), r"sgd\.momentum"),
        (lambda: SGD(float("nan")), r"sgd\.learning_rate"),
    ],
)
def test_wrong_setting_is_named(make, setting):
    with pytest.raises(UserError, match=setting):
        make()


def test_adam_follows_a_schedule():
    variable = tf.Variable([0.0])
    optimizer = Adam(Cosine(0.1), weight_decay=0.0).build([variable], 1, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.learning_rate)
        optimizer.apply([tf.constant([1.0])])
    expected = [0.05 * (1 + np.cos(np.pi * k / 10)) for k in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_schedule_of_a_recipe_counts_its_own_epochs():
    """Three epochs of 100 examples in batches of 10; the rate falls after epochs 1 and 2."""
    sgd = SGD(StepDecay(1.0, 0.1, (1, 2)), momentum=0.0, nesterov=False, weight_decay=0.0)
    recipe = Training(epochs=3, batch_size=10, optimizer=sgd)
    optimizer = recipe.build_optimizer([tf.Variable([0.0])], 100)
    rates = []
    for _ in range(30):
        rates.append(optimizer.learning_rate)
        optimizer.apply([tf.constant([0.0])])
    assert rates == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
