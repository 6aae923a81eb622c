"""The second-order gradient of Jacobian matching, against differences of the loss."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.jacobian import Jacobian, jacobian_loss
from dfa_tf.objectives.objective import network_outputs, student_objective
from tests.conftest import small_network

STEP = 2e-3
ELEMENTS = 192  # of an image: the loss is a mean over them


@pytest.fixture(scope="module")
def parts():
    teacher, student = small_network(16, 2, seed=1), small_network(10, 1, seed=2)
    distillation = Jacobian(weight=ELEMENTS).build(teacher, student, 0, "float32")
    objective = student_objective(
        teacher, student, [distillation], [1.0], Jacobian.needs, ce_weight=0.0
    )
    return teacher, student, objective


class Smooth:
    """A network without kinks, so that differences are accurate: tanh between two matrices."""

    def __init__(self, seed):
        draws = np.random.default_rng(seed)
        self.weights = [
            tf.Variable(draws.normal(0, 1 / np.sqrt(n), (n, m)), dtype=tf.float32)
            for n, m in ((192, 6), (6, 4))
        ]

    def full_outputs(self, images, training):
        x = tf.reshape(images, [-1, 192]) / 64 - 2
        logits = tf.tanh(x @ self.weights[0]) @ self.weights[1]
        return {"logits": logits, "features": {}, "pooled_map": None}


@pytest.mark.parametrize("layer", [0, 1])
def test_second_order_gradient_equals_a_numerical_gradient(batch, layer):
    """Element by element, on a network without kinks."""
    teacher, student = Smooth(seed=1), Smooth(seed=2)
    images, labels = batch

    @tf.function
    def loss():
        gradients = [
            network_outputs(network, images, labels, Jacobian.needs).input_gradient
            for network in (teacher, student)
        ]
        return ELEMENTS * tf.reduce_sum(jacobian_loss(*gradients))

    variable = student.weights[layer]
    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, variable).numpy()
    start, step = variable.numpy(), 1e-2
    for place in list(np.ndindex(gradient.shape))[:: max(1, gradient.size // 24)]:
        values = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            variable.assign(moved)
            values.append(float(loss()))
        numerical = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient[place], numerical, rtol=0.02, atol=2e-3)
    variable.assign(start)


def test_input_gradient_is_that_of_the_true_class(batch):
    """By hand: d/dx of w2[:, y] . tanh(w1 x) is (w2[:, y] (1 - tanh^2)) w1."""
    network = Smooth(seed=3)
    images, labels = batch
    gradient = network_outputs(network, images, labels, Jacobian.needs).input_gradient
    w1, w2 = (w.numpy() for w in network.weights)
    inner = np.tanh((images.numpy().reshape(-1, 192) / 64 - 2) @ w1)
    by_hand = ((1 - inner**2) * w2[:, labels.numpy()].T) @ w1.T / 64
    np.testing.assert_allclose(gradient.numpy().reshape(-1, 192), by_hand, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", ["group3_block1_conv2", "logits"])
def test_second_order_gradient_of_a_wide_resnet_equals_a_numerical_gradient(parts, batch, layer):
    """Along the gradient, and for layers without a ReLU after them: the loss contains a gradient, so
    it jumps where a ReLU switches."""
    _, student, objective = parts
    variable = student.get_layer(layer).trainable_variables[0]
    loss = tf.function(lambda: tf.reduce_mean(objective(*batch)[0]))
    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, variable.value).numpy()
    size = np.linalg.norm(gradient)
    assert size > 1e-4
    start = variable.numpy()
    values = []
    for sign in (1, -1):
        variable.assign(start + sign * STEP * gradient / size)
        values.append(float(loss()))
    variable.assign(start)
    np.testing.assert_allclose((values[0] - values[1]) / (2 * STEP), size, rtol=0.05)
