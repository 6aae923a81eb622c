"""KD, DKD and DIST: hand-worked numbers, and NumPy forms of the formulas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.dist import DIST, inter_class, intra_class
from dfa_tf.methods.dkd import DKD, dkd_terms
from dfa_tf.methods.kd import KD, kd_loss, standardize_logits
from dfa_tf.methods.logits import logits_loss
from dfa_tf.methods.method import Outputs
from dfa_tf.methods.srrl import SRRL
from dfa_tf.objectives.objective import frozen_outputs
from tests.conftest import freeze_statistics, small_network
from tests.methods.numerics import assert_equals_formula, maps, softmax

TAU = 4.0


def test_kd_of_two_classes_by_hand():
    """At tau = 4 the teacher's logits (4 ln 3, 0) are 3/4 : 1/4; the student has 1/2 : 1/2."""
    expected = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))  # 2.0930
    loss = kd_loss(tf.constant([[4 * math.log(3), 0.0]]), tf.constant([[1.0, 1.0]]), TAU)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)


def test_kd_has_the_common_weights():
    """.1 CE + .9 tau^2 KL, tau = 4."""
    kd = KD().build(None, None, 0, "float32")
    assert (kd.cross_entropy, kd.weights) == (0.1, {"kd": 0.9})
    assert KD().temperature == 4.0


def _kd(teacher, student):
    p, q = softmax(teacher / TAU), softmax(student / TAU)
    return TAU**2 * (p * np.log(p / q)).sum(-1)


def test_kd_equals_its_formula():
    assert_equals_formula(
        lambda t, s: kd_loss(t, s, TAU), _kd, 3 * maps(0, 4, 6), 3 * maps(1, 4, 6)
    )


def _tckd(teacher, student, labels):
    rows = np.arange(len(labels))
    p, q = softmax(teacher / TAU)[rows, labels], softmax(student / TAU)[rows, labels]
    return TAU**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def _nckd(teacher, student, labels):
    losses = []
    for t, s, label in zip(teacher, student, labels, strict=True):
        p, q = (softmax(np.delete(z, label) / TAU) for z in (t, s))
        losses.append(TAU**2 * (p * np.log(p / q)).sum())
    return np.array(losses)


@pytest.mark.parametrize(("term", "formula"), [("tckd", _tckd), ("nckd", _nckd)])
def test_dkd_equals_its_formulas(term, formula):
    labels = np.array([0, 5, 2, 2])
    assert_equals_formula(
        lambda t, s: dkd_terms(t, s, tf.constant(labels), TAU)[term],
        lambda t, s: formula(t, s, labels),
        3 * maps(2, 4, 6),
        3 * maps(3, 4, 6),
    )


def test_kd_is_tckd_plus_weighted_nckd():
    """Eqn 7 of DKD's paper with alpha = 1 and beta = 1 - p_t is KD."""
    teacher, student, labels = maps(4, 5, 7), maps(5, 5, 7), np.array([1, 0, 6, 3, 3])
    terms = dkd_terms(tf.constant(teacher), tf.constant(student), tf.constant(labels), TAU)
    weight = 1 - softmax(teacher / TAU)[np.arange(5), labels]
    combined = terms["tckd"] + weight.astype(np.float32) * terms["nckd"]
    np.testing.assert_allclose(combined, _kd(teacher, student), rtol=1e-4)


def test_logits_equals_its_formula():
    """The mean over classes: (1, 4) for the differences (1, -1) and (0, 2 sqrt 2) of two classes."""
    teacher, student = [[1.0, 2.0], [3.0, 0.0]], [[2.0, 1.0], [3.0, 8**0.5]]
    np.testing.assert_allclose(
        logits_loss(tf.constant(teacher), tf.constant(student)), [1.0, 4.0], rtol=1e-6
    )


def test_srrl_regresses_the_teachers_logits_through_its_classifier(batch):
    """If the connectors give the teacher's own averages, both terms are 0."""
    teacher, student = small_network(10, 1, seed=1), small_network(10, 1, seed=2)
    built = SRRL().build(teacher, student, 0, "float32")
    outputs = frozen_outputs(teacher, *batch)
    for connect in built.connectors:  # the identity, in inference mode nearly so
        kernel, gamma, beta, mean, variance = connect.get_weights()
        identity = np.eye(kernel.shape[-1], dtype=np.float32)[None, None]
        connect.set_weights([identity, gamma, beta, mean, variance])
        freeze_statistics(connect)
    terms = built.terms(outputs, outputs, batch[1])
    np.testing.assert_allclose(terms["srrl_regression"], 0, atol=1e-4)
    for part in terms["srrl_feature"].values():
        np.testing.assert_allclose(part, 0, atol=1e-4)
    other = built.terms(outputs, frozen_outputs(student, *batch), batch[1])
    embedding = frozen_outputs(student, *batch).embedding
    kernel, bias = teacher.classifier.get_weights()
    expected = np.mean((embedding.numpy() @ kernel + bias - outputs.logits.numpy()) ** 2, 1)
    np.testing.assert_allclose(other["srrl_regression"], expected, rtol=1e-2)
    means = [
        np.maximum(each.features["group1"][-1].numpy(), 0).mean((1, 2))
        for each in (outputs, frozen_outputs(student, *batch))
    ]
    expected = np.mean((means[0] - means[1]) ** 2, 1)
    np.testing.assert_allclose(other["srrl_feature"]["group1"], expected, rtol=1e-2, atol=1e-5)


def test_gradient_of_logits_is_that_of_its_formula():
    assert_equals_formula(
        logits_loss, lambda t, s: ((t - s) ** 2).mean(1), maps(0, 4, 6), maps(1, 4, 6)
    )


def test_equal_logits_have_no_loss():
    logits, labels = tf.constant(maps(6, 3, 5)), tf.constant([0, 1, 2])
    np.testing.assert_allclose(kd_loss(logits, logits, TAU), 0, atol=1e-5)
    for term in dkd_terms(logits, logits, labels, TAU).values():
        np.testing.assert_allclose(term, 0, atol=1e-5)


def test_standardized_logits_by_hand():
    """(1, 2, 6) has mean 3 and squares 4 + 1 + 9 = 14 over n - 1 = 2; a constant row becomes 0."""
    result = standardize_logits(tf.constant([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    expected = np.array([[-2, -1, 3], [0, 0, 0]]) / math.sqrt(7)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def _standardized(z):
    return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)


def _term(method, name, labels=None):
    """A function of the two networks' logits that returns a term of the built method."""
    terms = method.build(None, None, 0, "float32").terms

    def function(teacher, student):
        teacher, student = (Outputs(z, {}, None) for z in (teacher, student))
        return terms(teacher, student, labels)[name]

    return function


def test_standardized_kd_equals_its_formula():
    assert_equals_formula(
        _term(KD(temperature=TAU, standardize=True), "kd"),
        lambda t, s: _kd(_standardized(t), _standardized(s)),
        3 * maps(7, 4, 6),
        3 * maps(8, 4, 6),
    )


@pytest.mark.parametrize(("term", "formula"), [("tckd", _tckd), ("nckd", _nckd)])
def test_standardized_dkd_equals_its_formulas(term, formula):
    labels = np.array([0, 5, 2, 2])
    assert_equals_formula(
        _term(DKD(temperature=TAU, standardize=True), term, tf.constant(labels)),
        lambda t, s: formula(_standardized(t), _standardized(s), labels),
        3 * maps(9, 4, 6),
        3 * maps(10, 4, 6),
    )


def test_standardized_kd_ignores_the_mean_and_the_scale_of_the_logits():
    teacher = 3 * maps(11, 4, 6)
    loss = _term(KD(standardize=True), "kd")(tf.constant(teacher), tf.constant(0.5 * teacher + 7))
    np.testing.assert_allclose(loss, 0, atol=1e-5)


def test_gradient_of_constant_logits_is_finite_if_standardized():
    student = tf.constant(np.full((2, 5), 3.0, np.float32))
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = _term(KD(standardize=True), "kd")(tf.constant(maps(12, 2, 5)), student)
    assert np.isfinite(tape.gradient(loss, student)).all()


def test_inter_class_correlation_of_three_classes_by_hand():
    """Centred, (.5, .3, .2) is (5, -1, -4) / 30 and (.2, .5, .3) is (-4, 5, -1) / 30: -21 / 42."""
    loss = inter_class(tf.constant([[0.5, 0.3, 0.2]]), tf.constant([[0.2, 0.5, 0.3]]))
    np.testing.assert_allclose(loss, [1.5], rtol=1e-5)


def test_intra_class_correlation_of_two_examples_by_hand():
    """Two examples correlate by 1 or -1. Of three classes one has the opposite order: mean 1/3."""
    teacher, student = [[0.5, 0.3, 0.2], [0.3, 0.2, 0.5]], [[0.6, 0.1, 0.3], [0.4, 0.2, 0.4]]
    loss = intra_class(tf.constant(teacher), tf.constant(student))
    np.testing.assert_allclose(loss, [2 / 3, 2 / 3], rtol=1e-5)


def _inter(teacher, student):
    pairs = zip(softmax(teacher / TAU), softmax(student / TAU), strict=True)
    return TAU**2 * (1 - np.array([np.corrcoef(p, q)[0, 1] for p, q in pairs]))


def _intra(teacher, student):
    pairs = zip(softmax(teacher / TAU).T, softmax(student / TAU).T, strict=True)
    mean = np.mean([np.corrcoef(p, q)[0, 1] for p, q in pairs])
    return np.full(len(teacher), TAU**2 * (1 - mean))


@pytest.mark.parametrize(("term", "formula"), [("dist_inter", _inter), ("dist_intra", _intra)])
def test_dist_equals_its_formulas(term, formula):
    method = DIST(temperature=TAU)
    assert_equals_formula(_term(method, term), formula, 3 * maps(13, 5, 6), 3 * maps(14, 5, 6))


def test_dist_has_the_weights_of_cifar100():
    built = DIST().build(None, None, 0, "float32")
    assert (built.cross_entropy, built.weights) == (1.0, {"dist_inter": 2.0, "dist_intra": 2.0})
