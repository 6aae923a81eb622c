"""The pathways of DistPro: which there are, their shapes, and what they train."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.hcl import Nearest
from dfa_tf.methods.pathways import Pathways, build_transform, position_pairs
from dfa_tf.objectives.objective import frozen_outputs, network_outputs, student_objective
from dfa_tf.objectives.terms import path_factors
from tests.conftest import SHAPE, same, small_network, values, with_statistics
from tests.methods.networks import plain_network
from tests.methods.numerics import convolved, enlarged, maps, normalized

STEM_PATHS = ["pathway_stem_stem", *(f"pathway_stem_group{g}" for g in (1, 2, 3))]
GROUP_PATHS = [
    "pathway_group1_group1",
    "pathway_group1_group2",
    "pathway_group1_group3",
    "pathway_group2_group2",
    "pathway_group2_group3",
    "pathway_group3_group3",
]


def _networks():
    return small_network(16, 2, seed=1), small_network(10, 1, seed=2)


@pytest.mark.parametrize(("stem", "expected"), [(True, STEM_PATHS), (False, [])])
def test_each_teacher_position_is_connected_to_the_same_and_later_positions(stem, expected):
    built = Pathways("simple", stem).build(*_networks(), 0, "float32")
    assert list(path_factors(built)) == expected + GROUP_PATHS
    assert all(len(each.weights) == len(each.connectors) == 1 for each in built)


def test_stems_are_positions_only_if_both_networks_expose_them():
    wide, plain = small_network(10), plain_network()
    assert plain.stem_shape is None
    groups = [("group1", "group2"), ("group2", "group3"), ("group3", "group4")]
    assert position_pairs(wide, plain) == groups  # paired from the last one
    assert position_pairs(wide, wide)[0] == ("stem", "stem")


@pytest.mark.parametrize("folded", [False, True])
def test_stem_is_the_output_of_the_first_convolution(folded, batch):
    network = small_network(10)
    expected = keras.Model(network.input, network.get_layer("stem").output)(batch[0])
    stem = (network.folded() if folded else network).full_outputs(batch[0])["stem"]
    assert stem.shape[1:] == network.stem_shape == (*SHAPE[:2], 16)
    np.testing.assert_array_equal(stem, expected)


@pytest.mark.parametrize("kind", ["attention", "simple"])
@pytest.mark.parametrize("target", [(8, 8, 32), (4, 4, 7), (3, 5, 8)])
def test_transform_outputs_the_shape_of_the_teacher(kind, target):
    transform = build_transform(kind, (4, 4, 16), target, "transform")
    assert transform.output_shape == (None, *target)
    assert not any("bias" in variable.path for variable in transform.variables)
    if kind == "attention":
        assert transform.get_layer("convolution1").filters == min(16, target[-1])
        assert transform.get_layer("attention").filters == 1


def test_attention_transform_equals_its_formula():
    """conv3(up(relu(conv2(h * attention(h))))), h = relu(conv1(x)); 1, 2 and 3 are normalized."""
    shape, target = (4, 4, 6), (8, 12, 5)
    transform = with_statistics(build_transform("attention", shape, target, "transform", seed=1))
    layer, x = transform.get_layer, maps(2, 3, *shape)

    def convolution(x, name):
        (kernel,) = layer(name).get_weights()
        return convolved(x, kernel)

    hidden = np.maximum(normalized(convolution(x, "convolution1"), layer("norm1")), 0)
    hidden = hidden * convolution(hidden, "attention")
    hidden = np.maximum(normalized(convolution(hidden, "convolution2"), layer("norm2")), 0)
    expected = normalized(convolution(enlarged(hidden, 2, 3), "convolution3"), layer("norm3"))
    np.testing.assert_allclose(transform(x), expected, atol=1e-4 * np.abs(expected).max())


def test_simple_transform_equals_its_formula():
    transform = with_statistics(build_transform("simple", (4, 4, 6), (8, 8, 5), "transform"))
    (kernel,) = transform.get_layer("convolution").get_weights()
    x = maps(2, 3, 4, 4, 6)
    expected = enlarged(normalized(convolved(x, kernel), transform.get_layer("norm")), 2, 2)
    np.testing.assert_allclose(transform(x), expected, atol=1e-5 * np.abs(expected).max())


def test_width_of_a_transform_is_at_most_512():
    transform = build_transform("attention", (1, 1, 640), (1, 1, 600), "transform")
    assert transform.get_layer("convolution2").filters == 512


def test_nearest_equals_the_layer_of_keras():
    for old, new in ((2, 3), (3, 2), (5, 3), (7, 16), (14, 23), (2, 4), (3, 9)):
        maps = np.random.default_rng(0).normal(size=(2, old, old, 3)).astype(np.float32)
        layer = keras.layers.Resizing(new, new, interpolation="nearest")
        np.testing.assert_array_equal(Nearest(new, new)(maps), layer(maps))


@pytest.mark.parametrize("kind", ["simple", pytest.param("attention", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_losses_are_finite_and_train_all_variables(kind, precision, batch):
    teacher, student = _networks()
    student, method = student.copy(precision), Pathways(kind, weight=0.5)
    distillations = method.build(teacher, student, 3, precision)
    frozen = teacher.folded(precision)
    before = values(frozen.variables)
    objective = student_objective(frozen, student, distillations, [1.0] * len(distillations))
    trained = [student, *(model for each in distillations for model in each.connectors)]
    variables = [v for model in trained for v in model.trainable_variables]

    paths = list(path_factors(distillations))
    stem = student.get_layer("stem").kernel.value

    @tf.function
    def run(images, labels):
        with tf.GradientTape(persistent=True) as tape:
            loss, _, measured = objective(images, labels)
            mean, of_paths = tf.reduce_mean(loss), tf.add_n([measured[path] for path in paths])
        gradients = tape.gradient(mean, [v.value for v in variables])
        return loss, measured, [*gradients, tape.gradient(of_paths, stem)]

    loss, measured, gradients = run(*batch)
    assert set(measured) == {"cross_entropy", *paths}
    for name in paths:
        assert (measured[name].dtype, measured[name].shape) == (tf.float32, (8,))
        assert np.isfinite(measured[name]).all()
        assert (measured[name].numpy() > 0).all()
    expected = measured["cross_entropy"] + 0.5 * np.sum([measured[name] for name in paths], 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert all(np.isfinite(gradient).all() and np.any(gradient) for gradient in gradients)
    assert same(before, values(frozen.variables))


def test_networks_may_differ_in_groups_sizes_and_channels(batch):
    for teacher, student in (
        (plain_network(1), small_network(10)),
        (small_network(10), plain_network(1)),
    ):
        distillations = Pathways("simple").build(teacher, student, 3, "float32")
        assert len(distillations) == 6
        outputs = frozen_outputs(teacher, *batch)
        student_outputs = network_outputs(student, *batch, training=True)
        for each in distillations:
            (loss,) = each.terms(outputs, student_outputs, batch[1]).values()
            assert np.isfinite(loss).all()


def test_networks_without_a_stem_have_no_stem_output(batch):
    assert "stem" not in plain_network().full_outputs(batch[0])
    assert network_outputs(plain_network(), *batch).stem is None
