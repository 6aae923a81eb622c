"""SP, RKD and CRD, which compare the images of a batch, against NumPy formulas."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.crd import crd_loss
from dfa_tf.methods.rkd import rkd_angle, rkd_distance
from dfa_tf.methods.sp import sp_loss
from tests.methods import formulas
from tests.methods.numerics import assert_equals_formula, flat, maps, unit

LABELS = np.array([0, 1, 0, 2, 1])
TAU = 0.3


def _crd(constant_z):
    """The two directions of Eqn 18, image by image. Z is a constant, because it has no gradient."""

    def formula(t, s):
        losses = np.zeros(len(LABELS))
        for anchors, others in ((s, t), (t, s)):
            for i, anchor in enumerate(anchors):
                e = np.exp(others @ anchor / TAU)
                negatives = [j for j in range(len(LABELS)) if LABELS[j] != LABELS[i]]
                h = e / (e + len(negatives) * constant_z)
                losses[i] -= np.log(h[i]) + sum(np.log(1 - h[j]) for j in negatives)
        return losses

    return formula


def test_sp_equals_its_formula():
    assert_equals_formula(sp_loss, formulas.sp, maps(1, 4, 2, 2, 5), maps(2, 4, 2, 2, 3))


def test_sp_sums_to_the_papers_frobenius_norm():
    t, s = maps(3, 4, 2, 2, 5), maps(4, 4, 2, 2, 3)
    g = [unit(flat(m) @ flat(m).T) for m in (t, s)]
    paper = np.linalg.norm(g[0] - g[1]) ** 2 / 4**2
    np.testing.assert_allclose(tf.reduce_mean(sp_loss(t, s)), paper, rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "formula"), [(rkd_distance, formulas.rkd_distance), (rkd_angle, formulas.rkd_angle)]
)
def test_rkd_equals_its_formulas(loss, formula):
    assert_equals_formula(loss, formula, maps(5, 5, 6), maps(6, 5, 3))


def test_rkd_ignores_translation_rotation_and_scale():
    """The relative distances and the angles stay the same."""
    embeddings = maps(7, 6, 3)
    turned = np.linalg.qr(maps(8, 3, 3))[0]
    moved = 4.0 * embeddings @ turned + 2.0
    for loss in (rkd_distance, rkd_angle):
        np.testing.assert_allclose(loss(embeddings, moved.astype(np.float32)), 0, atol=1e-5)


def test_rkd_of_equal_points_is_finite():
    twice = np.repeat(maps(9, 2, 3), 2, 0)
    student = tf.constant(twice)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = tf.reduce_sum(rkd_distance(maps(10, 4, 3), student))
        loss += tf.reduce_sum(rkd_angle(maps(10, 4, 3), student))
    assert np.isfinite(tape.gradient(loss, student)).all()


def test_crd_equals_its_formula():
    t, s = unit(maps(11, 5, 4)), unit(maps(12, 5, 4))
    different_class = LABELS[:, None] != LABELS
    z = np.exp(s @ t.T / TAU)[different_class].mean()
    assert_equals_formula(lambda t, s: crd_loss(t, s, tf.constant(LABELS), TAU), _crd(z), t, s)


def test_crd_is_lower_for_matching_pairs():
    t, labels = tf.constant(unit(maps(13, 6, 4))), tf.range(6)
    matching = crd_loss(t, t, labels, 0.07)
    shifted = crd_loss(t, tf.roll(t, 1, 0), labels, 0.07)
    assert float(tf.reduce_mean(matching)) < float(tf.reduce_mean(shifted))


def test_crd_of_equal_orthogonal_embeddings_is_at_its_minimum():
    """Pairs have cosine 1 and others 0, so h(i, i) -> 1 and each of the N negatives adds
    log((1 + N) / N) in each direction."""
    axes, labels = tf.eye(64), tf.range(64)
    loss = crd_loss(axes, axes, labels, 0.05)
    np.testing.assert_allclose(loss, 2 * 63 * np.log(64 / 63), rtol=1e-4)


def test_crd_of_a_single_class_is_finite():
    rows = tf.constant(unit(maps(14, 4, 3)))
    assert np.isfinite(crd_loss(rows, rows, tf.zeros(4, tf.int32), 0.07)).all()
