"""Label smoothing and mixup: numbers by hand, and what they refuse."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import methods
from dfa_tf.errors import UserError
from dfa_tf.methods.losses import cross_entropy, plain_objective
from dfa_tf.methods.method import LABELS
from dfa_tf.objectives.targets import Targets, beta, mixed, smoothed
from tests.conftest import CLASSES, small_network

ONE = np.zeros(1, int)  # labels


def test_smoothed_labels_by_hand():
    """With 0.1 over four classes: 0.9 + 0.025 for the label and 0.025 for the others."""
    found = smoothed(tf.constant([2, 0]), 4, 0.1)
    np.testing.assert_allclose(
        found, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6
    )


def test_neighbours_are_mixed_by_hand():
    rows = tf.constant([[0.0, 8.0], [4.0, 0.0], [1.0, 1.0], [3.0, 5.0]])
    found = mixed(rows, tf.constant(0.75))
    np.testing.assert_allclose(found, [[1.0, 6.0], [3.0, 2.0], [1.5, 2.0], [2.5, 4.0]])


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 1 / 5.6), (1.0, 1 / 12), (4.0, 1 / 36)])
def test_mixing_weights_have_the_moments_of_the_beta_distribution(alpha, variance):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    draw = tf.function(lambda step: beta(alpha, tf.stack([5, step])))
    draws = np.array([draw(tf.constant(k)) for k in range(1500)])
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(variance / 1500)
    assert draws.var() == pytest.approx(variance, rel=0.15)


def test_cross_entropy_of_probabilities_by_hand():
    """-0.75 ln 0.5 - 0.25 ln 0.25; with the class weights 1, 1 and 2, the last term counts twice."""
    logits = tf.math.log([[0.5, 0.25, 0.25]])
    targets = tf.constant([[0.75, 0.0, 0.25]])
    first, second = 0.75 * np.log(2), 0.25 * np.log(4)
    np.testing.assert_allclose(cross_entropy(logits, targets), [first + second], rtol=1e-6)
    weights = np.array([1, 1, 2], np.float32)
    weighted = cross_entropy(logits, targets, weights)
    np.testing.assert_allclose(weighted, [first + 2 * second], rtol=1e-6)


def test_one_hot_targets_have_the_cross_entropy_of_the_labels():
    logits = tf.random.stateless_normal([6, 4], [1, 2])
    labels = tf.constant([0, 1, 2, 3, 2, 1])
    found = cross_entropy(logits, tf.one_hot(labels, 4))
    np.testing.assert_allclose(found, cross_entropy(logits, labels), rtol=1e-5)


def test_mixed_loss_is_the_mean_of_both_losses_of_the_mixed_image(batch):
    """CE is linear in the target: weight * CE(label) + (1 - weight) * CE(the partner's label)."""
    images, labels = batch
    network, step = small_network(depth=10), tf.constant(3)
    targets = Targets(mixup=0.4).build(CLASSES, seed=9)
    loss, logits, _ = plain_objective(network, targets=targets)(images, labels, step)
    weight = float(beta(0.4, tf.constant([9, 3], tf.int64)))
    count = len(labels)
    order = [k + 1 if k % 2 == 0 else k - 1 for k in range(count)]
    mixed_images = weight * tf.cast(images, tf.float32) + (1 - weight) * tf.cast(
        tf.gather(images, order), tf.float32
    )
    expected_logits = small_network(depth=10)(mixed_images, training=True)["logits"]
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    expected = weight * cross_entropy(logits, labels)
    expected += (1 - weight) * cross_entropy(logits, tf.gather(labels, order))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_mixing_weight_follows_from_seed_and_step(batch):
    images, labels = batch

    def mixture(seed, step):
        return Targets(mixup=1.0).build(CLASSES, seed)(images, labels, tf.constant(step))[1]

    np.testing.assert_array_equal(mixture(1, 5), mixture(1, 5))
    assert not np.array_equal(mixture(1, 5), mixture(1, 6))
    assert not np.array_equal(mixture(1, 5), mixture(2, 5))


def test_defaults_leave_labels_and_images_as_they_are():
    assert Targets().build(CLASSES, seed=0) is None


def test_odd_number_of_images_on_a_replica_cannot_be_mixed():
    Targets(mixup=0.2).check("distill", ONE, 1, 12, replicas=2)
    for batch_size, replicas in ((7, 1), (10, 2)):
        with pytest.raises(UserError, match=r"distill\.mixup"):
            Targets(mixup=0.2).check("distill", ONE, 1, batch_size, replicas)


@pytest.mark.parametrize("name", ["dkd", "crd", "jacobian"])
def test_methods_of_one_true_label_refuse_mixup(name):
    assert LABELS in methods.METHODS[name].needs
    with pytest.raises(UserError, match=rf"distill\.mixup.*{name}"):
        Targets(mixup=0.2).check("distill", ONE, 1, 8, 1, [methods.METHODS[name]()])
    Targets(label_smoothing=0.1).check("distill", ONE, 1, 8, 1, [methods.METHODS[name]()])


@pytest.mark.parametrize(
    "settings",
    [
        {"mixup": -1},
        {"mixup": "0.2"},
        {"label_smoothing": 1.0},
        {"class_weights": "equal"},
        {"class_weights": [1.0, 0.0]},
    ],
)
def test_senseless_setting_is_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=name):
        Targets(**settings)
