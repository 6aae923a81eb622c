"""KD and DKD: hand-worked numbers, and NumPy forms of the formulas."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.dkd import dkd_terms
from dfa_tf.methods.kd import KD, kd_loss
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


def test_equal_logits_have_no_loss():
    logits, labels = tf.constant(maps(6, 3, 5)), tf.constant([0, 1, 2])
    np.testing.assert_allclose(kd_loss(logits, logits, TAU), 0, atol=1e-5)
    for term in dkd_terms(logits, logits, labels, TAU).values():
        np.testing.assert_allclose(term, 0, atol=1e-5)
