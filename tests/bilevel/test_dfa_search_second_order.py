"""The second-order beta step of the search: its gradient, and what it changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import beta_step, bridge_loss
from dfa_tf.bilevel.dfa_search_ablation import student_loss
from dfa_tf.bilevel.dfa_search_second_order import second_order_beta_step, second_order_steps
from dfa_tf.training.optimizers import SGD, Adam
from tests.conftest import (
    freeze_statistics,
    made_examples,
    same,
    shared_out,
    small_network,
    small_supernet,
    values,
)

RATE, DECAY = 0.2, 5e-4


def _supernet(precision="float32", **options):
    teacher, student = small_network(22, 2, seed=1), small_network(10, 1, seed=2)
    networks = teacher.copy(precision), student.copy(precision)
    return small_supernet(*networks, initial="random", precision=precision, **options)


def _optimizers(supernet, group, momentum=0.9, rate=RATE):
    return (
        Adam(0.1, weight_decay=0.0).build([supernet.beta[group]], 10, 100),
        SGD(rate, momentum, momentum > 0, DECAY).build(supernet.variables(group), 10, 100),
    )


def _batches(count=8):
    made = [made_examples(count, seed) for seed in (5, 6)]
    return [(tf.constant(m.images), tf.constant(m.labels)) for m in made]


def _beta_step(supernet, group, optimizers=None):
    optimizers = optimizers or _optimizers(supernet, group)
    return tf.function(second_order_beta_step(supernet, [group], bridge_loss, *optimizers, 8))


@pytest.mark.parametrize("momentum", [0.9, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("group", "loss", "weights"),
    [
        ("group2", bridge_loss, {"gamma_st": 1.0, "gamma_ts": 1.0}),
        pytest.param(
            "group1", bridge_loss, {"gamma_st": 1.0, "gamma_ts": 0.0}, marks=pytest.mark.slow
        ),
        pytest.param(
            "group3", bridge_loss, {"gamma_st": 0.0, "gamma_ts": 1.0}, marks=pytest.mark.slow
        ),
        pytest.param("group2", student_loss, {"gamma_fd": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_gradient_is_that_of_the_validation_loss_through_the_step_of_w(
    group, loss, weights, momentum
):
    """The exact gradient by nested tapes, through SGD's step with a filled momentum buffer."""
    train, validation = _batches()
    supernet = _supernet(**weights)
    optimizers = _optimizers(supernet, group, momentum)
    steps = dict(second_order_steps(supernet, [group], loss, optimizers, 8))
    tf.function(steps["train",])(*validation)  # fills the buffer
    variables, beta = supernet.variables(group), supernet.beta[group]
    buffers = [v for v in optimizers[1]._optimizer.variables if "momentum" in v.path]
    buffers = buffers or [tf.zeros(v.shape) for v in variables]

    def mean_loss(images, labels):
        aggregations = supernet.aggregations(supernet.teacher_features([group], images))
        return tf.reduce_mean(loss(supernet, images, labels, aggregations)[0])

    @tf.function
    def exact():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner, keras.StatelessScope():
                training_loss = mean_loss(*train)
            gradients = inner.gradient(
                training_loss, [v.value for v in variables], unconnected_gradients="zero"
            )
            moved = []
            for v, m, g in zip(variables, buffers, gradients, strict=True):
                v, m = tf.convert_to_tensor(v), tf.convert_to_tensor(m)
                step = momentum * m - RATE * (g + DECAY * v)
                if momentum:
                    step = momentum * step - RATE * (g + DECAY * v)  # Nesterov
                moved.append(v + step)
            mapping = list(zip(variables, moved, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                validation_loss = mean_loss(*validation)
        return outer.gradient(validation_loss, beta), validation_loss

    gradient, validation_loss = exact()
    first_order = beta_step(supernet, [group], loss, Adam(0.0).build([beta], 10, 100), 8)
    first_order = first_order(*validation)["beta_loss_gradient"]
    measured = tf.function(steps["train", "validation"])(train, validation)
    found = measured["beta_loss_gradient"]
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(found, gradient, atol=1e-4 * scale)
    assert np.abs(found - first_order).max() > 0.02 * scale  # the second order matters here
    mean = measured["validation/" + ("student" if loss is student_loss else "bridge")]
    assert float(mean) == pytest.approx(float(validation_loss), rel=1e-4)


def test_learning_rate_of_zero_leaves_the_first_order():
    train, validation = _batches()
    supernet = _supernet()
    optimizers = _optimizers(supernet, "group2", rate=0.0)
    idle = Adam(0.0).build([supernet.beta["group2"]], 10, 100)
    first_order = beta_step(supernet, ["group2"], bridge_loss, idle, 8)(*validation)
    measured = _beta_step(supernet, "group2", optimizers=optimizers)(train, validation)
    expected = first_order["beta_loss_gradient"]
    np.testing.assert_allclose(
        measured["beta_loss_gradient"], expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_step_changes_only_beta_of_its_group():
    supernet = _supernet()
    models = [supernet.teacher, *supernet.models]
    variables = [v for model in models for v in model.variables]  # with moving statistics
    before, betas = values(variables), {g: b.numpy() for g, b in supernet.beta.items()}
    optimizers = _optimizers(supernet, "group2")
    buffers = values(optimizers[1].state)
    _beta_step(supernet, "group2", optimizers=optimizers)(*_batches())
    assert same(before, values(variables))
    assert same(buffers, values(optimizers[1].state))
    for group, beta in supernet.beta.items():
        assert np.array_equal(beta.numpy(), betas[group]) == (group != "group2")


@pytest.mark.slow
def test_bfloat16_gradient_is_close_to_float32():
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        supernet = _supernet(precision)
        optimizers = _optimizers(supernet, "group2", rate=0.02)
        step = second_order_beta_step(supernet, ["group2"], bridge_loss, *optimizers, 64)
        measured = tf.function(step)(*_batches(64))
        found[precision] = measured["beta_loss_gradient"].numpy()
    difference = found["mixed_bfloat16"] - found["float32"]
    assert np.abs(difference).max() < 0.25 * np.abs(found["float32"]).max()


def _run_replicated(strategy):
    """Gradients and beta after two steps of group 2, the batches shared out."""
    with strategy.scope():
        supernet = _supernet()
        freeze_statistics(supernet.student)
        optimizers = _optimizers(supernet, "group2")
    steps = dict(second_order_steps(supernet, ["group2"], bridge_loss, optimizers, 8))
    train, validation = (shared_out(strategy, batch) for batch in _batches())

    @tf.function
    def iterate():
        measured = strategy.run(steps["train", "validation"], (train, validation))
        strategy.run(steps["train",], train)
        return strategy.reduce("SUM", measured["beta_loss_gradient"], axis=None)

    gradients = [iterate().numpy() for _ in range(2)]
    return gradients, supernet.beta["group2"].numpy()


@pytest.mark.slow
def test_two_replicas_equal_one_without_batch_statistics(one_replica, two_replicas):
    one, two = _run_replicated(one_replica), _run_replicated(two_replicas)
    np.testing.assert_allclose(one[0], two[0], atol=2e-3 * np.abs(one[0]).max())
    np.testing.assert_allclose(one[1], two[1], atol=2e-3)
