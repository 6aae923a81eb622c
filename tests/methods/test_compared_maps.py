"""Which maps the methods compare, in which groups, before or after the ReLU: as NumPy formulas."""

import numpy as np
import pytest
from scipy import stats

from dfa_tf.methods import METHODS
from dfa_tf.objectives.objective import frozen_outputs, network_outputs
from dfa_tf.objectives.terms import total
from tests.conftest import small_network
from tests.methods import formulas
from tests.methods.numerics import flat

GROUPS = ("group1", "group2", "group3")
SEED = 3


@pytest.fixture(scope="module")
def pair(batch):
    """The networks, their `Outputs`, and the last map of each group before its ReLU."""
    networks = small_network(10, 2, seed=1), small_network(10, 1, seed=2)
    outputs = frozen_outputs(networks[0], *batch), network_outputs(networks[1], *batch, (), True)
    before_relu = [{g: each.features[g][-1].numpy() for g in GROUPS} for each in outputs]
    return networks, outputs, before_relu


def _built(name, networks):
    return METHODS[name]().build(*networks, SEED, "float32")


def _relu(x):
    return np.maximum(x, 0)


def _embedding(before_relu):
    return _relu(before_relu["group3"]).mean((1, 2))


@pytest.mark.parametrize(
    ("name", "term", "formula"),
    [
        ("sp", "sp", lambda t, s: formulas.sp(_relu(t["group3"]), _relu(s["group3"]))),
        (
            "nst",
            "nst",
            lambda t, s: sum(formulas.nst(_relu(t[g]), _relu(s[g])) for g in GROUPS),
        ),
        (
            "at",
            "at",
            lambda t, s: sum(formulas.at_paper(_relu(t[g]), _relu(s[g])) for g in GROUPS),
        ),
        (
            "rkd",
            "rkd_distance",
            lambda t, s: formulas.rkd_distance(_embedding(t), _embedding(s)),
        ),
        ("rkd", "rkd_angle", lambda t, s: formulas.rkd_angle(_embedding(t), _embedding(s))),
    ],
)
def test_term_of_maps_without_connectors(pair, batch, name, term, formula):
    networks, outputs, before_relu = pair
    terms = _built(name, networks).terms(*outputs, batch[1])
    np.testing.assert_allclose(total(terms[term]), formula(*before_relu), rtol=1e-3, atol=1e-6)


def test_vid_predicts_the_teachers_maps_after_the_relu(pair, batch):
    """With the initial variance, 5."""
    networks, outputs, (teacher, student) = pair
    built = _built("vid", networks)
    expected = 0
    for group, predictor in zip(GROUPS, built.connectors, strict=True):
        mean = predictor.mean(_relu(student[group]), training=True).numpy()
        expected = expected + flat((_relu(teacher[group]) - mean) ** 2 / 5 + np.log(5)).mean(1) / 2
    found = total(built.terms(*outputs, batch[1])["vid"])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_ab_compares_maps_before_the_relu_and_halves_earlier_groups(pair, batch):
    networks, outputs, (teacher, student) = pair
    built = _built("ab", networks)
    expected = 0
    for group, connect, weight in zip(GROUPS, built.helpers, (0.25, 0.5, 1), strict=True):
        mapped = connect(student[group], training=True).numpy()
        expected = expected + weight * formulas.ab(teacher[group], mapped)
    found = built.pretraining.terms(*outputs, batch[1])["ab"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_margin_is_that_of_the_normalization_before_the_relu(pair, batch):
    """E[x | x < 0] of N(beta, gamma^2) for each channel: a truncated normal distribution."""
    networks, outputs, (teacher, student) = pair
    built = _built("margin", networks)
    norms = "group2_block1_norm1", "group3_block1_norm1", "norm"  # of each group's last map
    expected = 0
    for group, norm, connect, weight in zip(
        GROUPS, norms, built.connectors, (0.25, 0.5, 1), strict=True
    ):
        layer = networks[0].get_layer(norm)
        mean, deviation = layer.beta.numpy(), np.abs(layer.gamma.numpy())
        margin = stats.truncnorm(-np.inf, -mean / deviation, mean, deviation).mean()
        target = np.maximum(teacher[group], margin.astype(np.float32))
        mapped = connect(student[group], training=True).numpy()
        expected = expected + weight * formulas.above_margin(target, mapped)
    found = total(built.terms(*outputs, batch[1])["margin"])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_ft_translates_the_last_map_after_the_relu_to_the_paraphrasers_factors(pair, batch):
    networks, outputs, (teacher, student) = pair
    built = _built("ft", networks)
    (paraphraser,), (translator,) = built.helpers, built.connectors
    factors = paraphraser(_relu(teacher["group3"]), training=False)["factors"].numpy()
    assert factors.shape[-1] == teacher["group3"].shape[-1] / 2
    translated = translator(_relu(student["group3"]), training=True).numpy()
    found = built.terms(*outputs, batch[1])["ft"]
    np.testing.assert_allclose(found, formulas.ft(1)(factors, translated), rtol=1e-3)
