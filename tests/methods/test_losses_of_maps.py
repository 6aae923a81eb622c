"""FitNets, AT, Jacobian, FT, AB, Margin, NST, VID and ReviewKD against NumPy formulas."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from dfa_tf.methods.ab import ab_loss
from dfa_tf.methods.at import at_distance
from dfa_tf.methods.fitnets import hint_loss
from dfa_tf.methods.ft import ft_loss
from dfa_tf.methods.jacobian import jacobian_loss
from dfa_tf.methods.maps import area_average
from dfa_tf.methods.margin import expected_negative, l2_above_margin, margin_of
from dfa_tf.methods.nst import NST, gram_loss, nst_loss
from dfa_tf.methods.reviewkd import hcl, reviewer
from dfa_tf.methods.vid import vid_loss
from dfa_tf.objectives.objective import frozen_outputs
from tests.conftest import small_network, with_statistics
from tests.methods import formulas
from tests.methods.numerics import (
    assert_equals_formula,
    convolved,
    enlarged,
    flat,
    maps,
    normalized,
)

LOSSES = {
    "fitnets": (hint_loss, formulas.hint),
    "at, paper": (lambda t, s: at_distance(t, s, "paper"), formulas.at_paper),
    "at, code": (lambda t, s: at_distance(t, s, "code"), formulas.at_code),
    "jacobian": (jacobian_loss, formulas.jacobian),
    "ft, L1": (lambda t, s: ft_loss(t, s, 1), formulas.ft(1)),
    "ft, L2": (lambda t, s: ft_loss(t, s, 2), formulas.ft(2)),
    "ab": (ab_loss, formulas.ab),
    "margin": (lambda t, s: l2_above_margin(s, t), formulas.above_margin),
    "nst": (nst_loss, formulas.nst),
    "nst, gram": (gram_loss, formulas.gram),
}


@pytest.mark.parametrize("method", LOSSES)
def test_loss_and_gradient_equal_the_formula(method):
    loss_function, formula = LOSSES[method]
    assert_equals_formula(loss_function, formula, maps(1, 2, 4, 4, 3), maps(2, 2, 4, 4, 3))


@pytest.mark.parametrize("method", [m for m in LOSSES if m != "ab"])
def test_equal_maps_have_no_loss_and_no_gradient(method):
    loss_function, _ = LOSSES[method]
    same = tf.constant(maps(3, 2, 4, 4, 3))
    with tf.GradientTape() as tape:
        tape.watch(same)
        loss = loss_function(tf.stop_gradient(same), same)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, same), 0, atol=1e-5)


def test_ab_is_zero_if_every_neuron_is_beyond_the_margin():
    teacher = tf.constant([[[[-2.0, 0.0, 0.5, 3.0]]]])
    np.testing.assert_allclose(ab_loss(teacher, tf.constant([[[[-1.0, -7, 1, 1.5]]]])), [0])
    # Off by 1.5, 2, 1.5 and on the wrong side by 3.
    np.testing.assert_allclose(
        ab_loss(teacher, tf.constant([[[[0.5, 1, -0.5, -2]]]])), [1.5**2 + 2**2 + 1.5**2 + 3**2]
    )


@pytest.mark.parametrize("method", ["at, paper", "at, code", "nst"])
def test_maps_may_differ_in_channels(method):
    loss_function, formula = LOSSES[method]
    assert_equals_formula(loss_function, formula, maps(4, 2, 4, 4, 5), maps(5, 2, 4, 4, 3))


# Jacobian compares images of one size, and Margin matches the sizes of its maps when it is built.
@pytest.mark.parametrize("method", [m for m in LOSSES if m not in ("jacobian", "margin")])
def test_larger_map_is_averaged_down(method):
    loss_function, formula = LOSSES[method]
    large, small = maps(6, 2, 4, 4, 3), maps(7, 2, 2, 2, 3)

    def halved(m):
        return m if m.shape[1] == 2 else m.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))

    def on_halves(t, s):
        return formula(halved(t), halved(s))

    assert_equals_formula(loss_function, on_halves, large, small)
    assert_equals_formula(loss_function, on_halves, small, large)


def test_area_average_of_sizes_that_do_not_divide():
    """Three pixels to two: each new one has one and a half of the old."""
    row = tf.reshape(tf.constant([1.0, 2.0, 6.0]), [1, 1, 3, 1])
    averaged = area_average(row, 1, 2)
    np.testing.assert_allclose(averaged[0, 0, :, 0], [(1 + 1) / 1.5, (1 + 6) / 1.5], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_area_average_of_sizes_that_divide(dtype):
    """Eight rows to four and four columns to one: the mean of two by four elements."""
    x = tf.cast(maps(0, 2, 8, 4, 3), dtype)
    averaged = area_average(x, 4, 1)
    assert averaged.dtype == dtype
    expected = np.asarray(tf.cast(x, tf.float32)).reshape(2, 4, 2, 1, 4, 3).mean((2, 4))
    tolerance = 1e-6 if dtype == tf.float32 else 2**-8
    np.testing.assert_allclose(tf.cast(averaged, tf.float32), expected, atol=tolerance)


@pytest.mark.parametrize("size", [(7, 7), (6, 8)])
def test_hcl_of_sizes_that_do_not_divide(size):
    """The averages at 4x4, 2x2 and 1x1 are those of the full map, by repeating each element."""
    t, s = maps(1, 2, *size, 3), maps(2, 2, *size, 3)
    difference = (t - s).astype(np.float64)
    total = (difference**2).mean((1, 2, 3))
    for n, weight in ((4, 1 / 2), (2, 1 / 4), (1, 1 / 8)):
        cells = difference.repeat(n, 1).repeat(n, 2)  # n times the size, which n divides
        pooled = cells.reshape(2, n, size[0], n, size[1], 3).mean((2, 4))
        total += weight * (pooled**2).mean((1, 2, 3))
    np.testing.assert_allclose(hcl(tf.constant(t), tf.constant(s)), total / (15 / 8), rtol=1e-5)


@pytest.mark.parametrize(("mean", "gamma"), [(0.0, 1.0), (0.7, -0.4), (-1.5, 2.0), (2.0, 0.8)])
def test_margin_is_the_expected_negative_value(mean, gamma):
    """E[x | x < 0] of a normal x, by integration."""
    density = stats.norm(mean, abs(gamma)).pdf
    low = mean - 12 * abs(gamma)
    mass, moment = (integrate.quad(f, low, 0)[0] for f in (density, lambda x: x * density(x)))
    margin = expected_negative(np.array([mean]), np.array([gamma]))
    np.testing.assert_allclose(margin, [moment / mass], rtol=1e-4)


def test_margin_is_minus_one_without_a_batch_normalization():
    raw = small_network(10, 1, features="raw")
    assert margin_of(raw.group("group2")).tolist() == [-1.0] * 32


def test_margin_of_a_rarely_negative_channel_is_three_deviations():
    """Phi(-4) < 1e-3."""
    np.testing.assert_allclose(expected_negative(np.array([2.0]), np.array([-0.5])), [-1.5])


def test_vid_equals_its_formula():
    variance = np.array([0.5, 2.0, 4.0], np.float32)

    def formula(t, s, v):
        return flat((t - s) ** 2 / v + np.log(v)).mean(1) / 2

    arrays = maps(8, 2, 4, 4, 3), maps(9, 2, 4, 4, 3), variance
    assert_equals_formula(vid_loss, formula, *arrays, trained=1)
    assert_equals_formula(vid_loss, formula, *arrays, trained=2)


def test_vid_of_an_exact_mean_is_half_the_logarithm_of_the_variance():
    same = tf.constant(maps(10, 2, 4, 4, 3))
    np.testing.assert_allclose(vid_loss(same, same, tf.constant([9.0] * 3)), math.log(3), rtol=1e-5)


def test_context_loss_of_reviewkd_equals_its_formula():
    assert_equals_formula(hcl, formulas.hcl, maps(11, 2, 8, 8, 2), maps(12, 2, 8, 8, 2))
    same = tf.constant(maps(13, 2, 8, 8, 2))
    np.testing.assert_allclose(hcl(same, same), 0, atol=1e-7)


def test_fusion_of_reviewkd_equals_its_formula():
    """f_3 = in(x_3); f_k = a in(x_k) + b up(f_(k+1)), with (a, b) from both. Outputs are out(f_k)."""
    shapes, channels = [(8, 8, 5), (4, 4, 6), (1, 1, 7)], [3, 4, 8]
    review = with_statistics(reviewer(shapes, channels, 6, 1, "float32"))
    layer = review.get_layer
    for k in (1, 2):
        layer(f"stage{k}_attention").bias.assign([0.5, -0.3])
    x = [maps(k, 2, *shape) for k, shape in enumerate(shapes, start=1)]

    def normalized_convolution(x, name):
        return normalized(convolved(x, *layer(name).get_weights()), layer(f"{name}_norm"))

    fused = normalized_convolution(x[2], "stage3_in")
    expected = [normalized_convolution(fused, "stage3_out")]
    for k, factor in ((2, 4), (1, 2)):
        own = normalized_convolution(x[k - 1], f"stage{k}_in")
        following = enlarged(fused, factor, factor)
        both = np.concatenate([own, following], -1)
        attention = convolved(both, *layer(f"stage{k}_attention").get_weights())
        a, b = np.split(1 / (1 + np.exp(-attention)), 2, axis=-1)
        fused = a * own + b * following
        expected.insert(0, normalized_convolution(fused, f"stage{k}_out"))
    for found, formula in zip(review(x), expected, strict=True):
        np.testing.assert_allclose(found, formula, atol=1e-4 * np.abs(formula).max())


def test_gram_form_of_nst_maps_the_student_to_the_teachers_channels(batch):
    """Half the weight, as of the other form, times the Gram distance behind a 1x1 convolution."""
    teacher, student = small_network(10, 2, seed=1), small_network(10, 1, seed=2)
    built = NST(form="gram", weight=2.0).build(teacher, student, 0, "float32")
    assert built.weights == {"nst": 1.0}
    outputs, student_outputs = (frozen_outputs(each, *batch) for each in (teacher, student))
    term = built.terms(outputs, student_outputs, batch[1])["nst"]
    assert list(term) == ["group1", "group2", "group3"] == built.parts["nst"]
    for group, connect in zip(term, built.connectors, strict=True):
        kernel = connect.weights[0]
        target = outputs.activation(group).numpy()
        assert kernel.shape[:2] == (1, 1)
        assert kernel.shape[-1] == target.shape[-1] == 2 * kernel.shape[-2]
        mapped = connect(student_outputs.activation(group), training=True).numpy()
        np.testing.assert_allclose(term[group], gram_loss(target, mapped), rtol=1e-5)
