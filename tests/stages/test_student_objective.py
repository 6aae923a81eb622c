"""The objective of stage 2 against the paper's formulas in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.alpha import fixed
from dfa_tf.methods.dfa import DFA
from dfa_tf.objectives.objective import student_objective
from tests.conftest import same, small_network, values

GROUPS = ("group1", "group2", "group3")


@pytest.fixture(scope="module")
def parts():
    """(teacher, student, alpha, connectors, objective) with gamma_fd = 0.01."""
    teacher, student = small_network(22, 2, seed=1), small_network(16, 1, seed=2)
    alpha = fixed("random", teacher, seed=5)
    dfa = DFA(alpha, gamma_fd=0.01).build(teacher, student, 0, "float32")
    objective = student_objective(teacher, student, [dfa], [1.0], needs=())
    return teacher, student, alpha, dfa.connectors, objective


def _partial_l2(s, t, m=-1.0):
    """The three cases of the partial L2 as printed, summed for each example."""
    cases = np.where(
        t <= m,
        np.where(s > m, (s - m) ** 2, 0),
        np.where((t <= 0) & (s <= t), 0, (s - t) ** 2),
    )
    return cases.reshape(len(s), -1).sum(1)


def test_loss_is_cross_entropy_plus_weighted_distances_to_the_aggregations(parts, batch):
    teacher, student, alpha, connectors, objective = parts
    images, labels = batch
    features = teacher(images, training=False)["features"]
    outputs = student(images, training=True)
    distillation = 0
    for connector, name, weight in zip(connectors, GROUPS, (1 / 4, 1 / 2, 1), strict=True):
        maps = [t.numpy().astype(np.float64) for t in features[name]]
        assert min(t.min() for t in maps) < -1  # features are not clipped before the aggregation
        target = sum(a * t for a, t in zip(alpha[name], maps, strict=True))
        mapped = connector(outputs["features"][name][-1], training=True).numpy()
        distillation = distillation + weight * _partial_l2(mapped.astype(np.float64), target)
    logits = outputs["logits"].numpy().astype(np.float64)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    entropy = -np.log((odds / odds.sum(1, keepdims=True))[np.arange(8), labels.numpy()])

    loss, _, terms = objective(images, labels)
    np.testing.assert_allclose(terms["cross_entropy"], entropy, rtol=1e-4)
    np.testing.assert_allclose(terms["feature_distillation"], distillation, rtol=1e-4)
    np.testing.assert_allclose(loss, entropy + 0.01 * distillation, rtol=1e-4)


def test_teacher_is_unchanged_and_has_no_gradient(parts, batch):
    teacher, student, _, connectors, objective = parts
    before = values(teacher.variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective(*batch)[0])
    teacher_variables = [v.value for v in teacher.trainable_variables]
    student_variables = [v.value for m in (student, *connectors) for v in m.trainable_variables]
    gradients = tape.gradient(loss, teacher_variables + student_variables)
    assert all(gradient is None for gradient in gradients[: len(teacher_variables)])
    assert all(gradient is not None for gradient in gradients[len(teacher_variables) :])
    assert same(before, values(teacher.variables))  # its moving statistics among them
