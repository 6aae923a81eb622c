"""Class weights: their values by hand, and that they weigh the cross entropy alone."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods import KD
from dfa_tf.methods.losses import cross_entropy, plain_objective
from dfa_tf.objectives.class_weights import weight_of_each_class
from dfa_tf.objectives.objective import student_objective
from tests.conftest import small_network

NAME = "distill.class_weights"
WEIGHTS = np.array([1, 2, 4, 8], np.float32)


def test_balanced_weights_by_hand():
    """Six images of three classes: 6 / (3 * 3), 6 / (3 * 2) and 6 / (3 * 1)."""
    weights = weight_of_each_class("balanced", np.array([0, 1, 0, 2, 1, 0]), 3, NAME)
    np.testing.assert_allclose(weights, [2 / 3, 1, 2], rtol=1e-6)


def test_listed_weights_are_used_as_they_are():
    weights = weight_of_each_class([0.5, 3], np.array([0]), 2, NAME)
    np.testing.assert_array_equal(weights, [0.5, 3])
    assert weight_of_each_class(None, np.array([0]), 2, NAME) is None


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], [1.0, 2.0, 0.0], [1.0, 2.0, -1.0], "equal", 2.0, [1, 2, "3"], "balanced"]
)
def test_wrong_weights_are_named_in_one_line(value):
    """There are three classes, and the last one does not have images."""
    with pytest.raises(UserError, match=r"distill\.class_weights") as caught:
        weight_of_each_class(value, np.array([0, 1, 1]), 3, NAME)
    assert "\n" not in str(caught.value)


def test_cross_entropy_is_multiplied_by_the_weight_of_the_label():
    """Uniform logits of two classes: ln 2 for each example, times 1 or 3."""
    weights = np.array([1, 3], np.float32)
    ce = cross_entropy(tf.zeros([3, 2]), tf.constant([1, 0, 1]), weights)
    np.testing.assert_allclose(ce, np.log(2) * np.array([3, 1, 3]), rtol=1e-6)


def test_plain_loss_is_the_weighted_cross_entropy(batch):
    network = small_network(depth=10)
    plain, weighted = (plain_objective(network, w)(*batch)[0] for w in (None, WEIGHTS))
    np.testing.assert_allclose(weighted, plain * WEIGHTS[batch[1].numpy()], rtol=1e-6)


def test_losses_of_methods_are_not_weighted(batch):
    """The loss is 0.1 CE plus 0.9 times KD's term: the weights change the first part only."""
    teacher, student = small_network(depth=16, seed=1), small_network(depth=10, seed=2)
    distillation = KD(alpha=0.9, gamma=0.1).build(teacher, student, 0, "float32")

    def results(class_weights):
        objective = student_objective(
            teacher, student, [distillation], [1.0], class_weights=class_weights
        )
        loss, _, terms = objective(*batch)
        return loss, terms["cross_entropy"], terms["kd"]

    loss, ce, kd = results(None)
    weighted_loss, weighted_ce, weighted_kd = results(WEIGHTS)
    factors = WEIGHTS[batch[1].numpy()]
    np.testing.assert_array_equal(weighted_kd, kd)
    np.testing.assert_allclose(weighted_ce, ce * factors, rtol=1e-6)
    np.testing.assert_allclose(weighted_loss - loss, 0.1 * ce * (factors - 1), rtol=1e-4, atol=1e-5)
