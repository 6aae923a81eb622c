"""FEED and ensemble KD, which use several teachers, and the mean over teachers of other methods."""

import unittest.mock

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods import METHODS
from dfa_tf.methods.at import AT
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.ensemble_kd import EnsembleKD
from dfa_tf.methods.feed import FEED
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.methods.kd import KD
from dfa_tf.methods.method import Outputs
from dfa_tf.methods.pathways import Pathways
from dfa_tf.models import cifar_resnet
from dfa_tf.objectives.objective import frozen_outputs, network_outputs, pretraining_objective
from dfa_tf.objectives.teachers import build_method, check_method
from dfa_tf.objectives.terms import total
from tests.conftest import small_network
from tests.methods.networks import plain_network
from tests.methods.numerics import assert_equals_formula, convolved, flat, maps, softmax, unit


@pytest.fixture(scope="module")
def networks():
    """Two teachers of different widths, and a student."""
    return [small_network(10, 2, seed=1), small_network(10, 1, seed=2)], small_network(
        10, 1, seed=3
    )


def _outputs(networks, batch):
    teachers, student = networks
    return (
        tuple(frozen_outputs(teacher, *batch) for teacher in teachers),
        network_outputs(student, *batch, training=False),
    )


def test_feed_of_each_teacher_equals_its_formula(networks, batch):
    """mean |x_n / |x_n| - NTL_n(x_S) / |NTL_n(x_S)|| for each image."""
    teachers, student = networks
    (built,) = build_method(FEED(), teachers, student, 0, "float32")
    teacher_outputs, student_outputs = _outputs(networks, batch)
    term = built.terms(teacher_outputs, student_outputs, batch[1])["feed"]
    assert built.weights == {"feed": 500.0}
    assert list(term) == ["teacher1", "teacher2"] == built.parts["feed"]
    for name, outputs, layer in zip(term, teacher_outputs, built.connectors, strict=True):
        x = unit(flat(outputs.pooled_map.numpy()))
        y = unit(flat(layer(student_outputs.pooled_map).numpy()))
        np.testing.assert_allclose(term[name], np.abs(x - y).mean(1), rtol=1e-4)


def test_feed_has_three_convolutions_with_bias_for_each_teacher(networks):
    """C_S -> C_S -> C_n -> C_n with 3x3 kernels: 64, 128 and 64 channels here."""
    teachers, student = networks
    (built,) = build_method(FEED(), teachers, student, 0, "float32")
    shapes = [[tuple(w.shape) for w in layer.weights] for layer in built.connectors]
    assert shapes[0][::2] == [(3, 3, 64, 64), (3, 3, 64, 128), (3, 3, 128, 128)]
    assert shapes[1][1::2] == [(64,), (64,), (64,)]


def test_pathways_need_teachers_with_the_same_positions(networks):
    """Without a stem, the second teacher has six pathways instead of ten."""
    (first, _), student = networks
    without_stem = cifar_resnet(8, 4, image_shape=first.image_shape)
    assert without_stem.stem_shape is None
    check_method(Pathways(), [without_stem, without_stem], student)
    with pytest.raises(UserError, match=r"^pathways: .* teacher 2"):
        check_method(Pathways(), [first, without_stem], student)


def test_exchanging_feeds_teachers_exchanges_its_terms(networks, batch):
    teachers, student = networks
    teacher_outputs, student_outputs = _outputs(networks, batch)
    (built,) = build_method(FEED(kernel=1), teachers[1:] * 2, student, 0, "float32")
    for layer in built.connectors:
        layer.set_weights(built.connectors[0].get_weights())
    one, two = teacher_outputs[1], student_outputs  # two different sources of maps of one shape
    forward = built.terms((one, two), student_outputs, batch[1])["feed"]
    backward = built.terms((two, one), student_outputs, batch[1])["feed"]
    np.testing.assert_array_equal(forward["teacher1"], backward["teacher2"])
    np.testing.assert_array_equal(forward["teacher2"], backward["teacher1"])


def test_averaged_feed_divides_its_weight_by_the_number_of_teachers(networks):
    teachers, student = networks
    (averaged,) = build_method(FEED(average=True), teachers, student, 0, "float32")
    assert averaged.weights == {"feed": 250.0}


def test_shared_feed_compares_one_map_of_the_student_with_each_teacher(networks, batch):
    """mean |x_n / |x_n| - NTL(x_S) / |NTL(x_S)||, with one NTL, which runs once."""
    (_, teacher), student = networks
    teachers = [teacher, small_network(10, 1, seed=8)]
    (shared,) = build_method(FEED(shared=True), teachers, student, 0, "float32")
    (layer,) = shared.connectors
    teacher_outputs, student_outputs = _outputs((teachers, student), batch)
    with unittest.mock.patch.object(layer, "call", wraps=layer.call) as call:
        term = shared.terms(teacher_outputs, student_outputs, batch[1])["feed"]
    assert call.call_count == 1
    assert list(term) == ["teacher1", "teacher2"]
    y = unit(flat(layer(student_outputs.pooled_map).numpy()))
    for part, outputs in zip(term.values(), teacher_outputs, strict=True):
        x = unit(flat(outputs.pooled_map.numpy()))
        np.testing.assert_allclose(part, np.abs(x - y).mean(1), rtol=1e-4)


def test_shared_feed_refuses_teachers_with_maps_of_different_shapes(networks):
    teachers, student = networks
    with pytest.raises(UserError, match=r"^feed\.shared: "):
        check_method(FEED(shared=True), teachers, student)


def _ensemble(t1, t2, s):
    p, q = (softmax(t1 / 4) + softmax(t2 / 4)) / 2, softmax(s / 4)
    return 16 * (p * np.log(p / q)).sum(-1)


def test_ensemble_kd_equals_its_formula():
    terms = EnsembleKD().build((None, None), None, 0, "float32").terms

    def loss(t1, t2, s):
        teachers = tuple(Outputs(t, {}, None) for t in (t1, t2))
        return terms(teachers, Outputs(s, {}, None), None)["ensemble_kd"]

    assert_equals_formula(loss, _ensemble, *(3 * maps(k, 4, 6) for k in range(3)))


def test_ensemble_kd_of_one_teacher_is_kd():
    logits = [tf.constant(3 * maps(k, 4, 6)) for k in range(2)]
    teacher, student = (Outputs(z, {}, None) for z in logits)
    ensemble = EnsembleKD().build((None,), None, 0, "float32").terms((teacher,), student, None)
    kd = KD().build(None, None, 0, "float32").terms(teacher, student, None)
    np.testing.assert_allclose(ensemble["ensemble_kd"], kd["kd"], rtol=1e-5)


@pytest.mark.parametrize("name", ["kd", "at", "vid", "ft"])
def test_another_method_has_one_loss_for_all_teachers(networks, batch, name):
    teachers, student = networks
    (built,) = build_method(METHODS[name](), teachers, student, 0, "float32")
    teacher_outputs, student_outputs = _outputs(networks, batch)
    term = built.terms(teacher_outputs, student_outputs, batch[1])[name]
    assert total(term).shape == (8,)
    assert list(built.parts.get(name, ())) == (list(term) if name in ("at", "vid") else [])
    if name == "kd":
        each = [
            KD().build(None, None, 0, "float32").terms(outputs, student_outputs, None)["kd"]
            for outputs in teacher_outputs
        ]
        np.testing.assert_allclose(term, np.mean(each, 0), rtol=1e-5)
    if name == "ft":  # the pretraining trains both paraphrasers
        counts = [len(helper.trainable_variables) for helper in built.helpers]
        assert len(built.pretraining.variables) == sum(counts)


def test_pretraining_is_the_mean_over_the_teachers(networks, batch):
    """The hint of FitNets: the squared error of the second of three groups, after a regressor."""
    teachers, student = networks
    (built,) = build_method(FitNets(), teachers, student, 0, "float32")
    objective = pretraining_objective(teachers, student, built.pretraining)
    loss, _, _ = objective(*batch)
    student_map = student(batch[0], training=True)["features"]["group2"][-1]
    each = []
    for teacher, regressor in zip(teachers, built.helpers, strict=True):
        target = teacher(batch[0], training=False)["features"]["group2"][-1]
        error = regressor(student_map).numpy() - target.numpy()
        each.append((error**2).mean((1, 2, 3)))
    np.testing.assert_allclose(loss, (each[0] + each[1]) / 2, rtol=1e-4)


def test_each_part_of_attention_transfer_is_the_mean_over_the_teachers(networks, batch):
    teachers, student = networks
    (built,) = build_method(AT(form="code"), teachers, student, 0, "float32")
    teacher_outputs, student_outputs = _outputs(networks, batch)
    term = built.terms(teacher_outputs, student_outputs, batch[1])["at"]
    assert list(term) == ["group1", "group2", "group3"]
    for group, part in term.items():
        each = [_at(outputs, student_outputs, group, group) for outputs in teacher_outputs]
        np.testing.assert_allclose(part, (each[0] + each[1]) / 2, rtol=1e-4)


def _at(teacher, student, teacher_group, student_group):
    """mean((Q_T / |Q_T| - Q_S / |Q_S|)^2) of two groups' last features of the same size."""
    features = teacher.features[teacher_group][-1], student.features[student_group][-1]
    t, s = (unit(flat((np.maximum(feature.numpy(), 0.0) ** 2).mean(-1))) for feature in features)
    return ((t - s) ** 2).mean(1)


def test_teachers_of_different_groups_have_the_mean_of_their_terms(networks, batch):
    """The plain network has four groups; its last three are paired with those of the student."""
    (wide, _), student = networks
    teachers = [wide, plain_network(4)]
    (built,) = build_method(AT(form="code"), teachers, student, 0, "float32")
    assert built.parts == {}
    outputs, student_outputs = _outputs((teachers, student), batch)
    term = built.terms(outputs, student_outputs, batch[1])["at"]
    groups = ["group1", "group2", "group3"]
    of_wide = sum(_at(outputs[0], student_outputs, group, group) for group in groups)
    (alone,) = build_method(AT(form="code"), teachers[1:], student, 0, "float32")
    of_plain = alone.terms(outputs[1], student_outputs, batch[1])["at"]
    assert list(of_plain) == ["group2", "group3", "group4"]
    expected = (of_wide + np.sum(list(of_plain.values()), 0)) / 2
    np.testing.assert_allclose(total(term), expected, rtol=1e-4)


def test_dfa_refuses_several_teachers(networks):
    teachers, student = networks
    with pytest.raises(UserError, match="dfa"):
        check_method(DFA(), teachers, student)


def test_nonlinear_transformation_is_three_convolutions_with_leaky_relus(networks):
    """The slope of each leaky ReLU is .1."""
    teachers, student = networks
    (built,) = build_method(FEED(), teachers[1:], student, 0, "float32")
    layer, x = built.connectors[0], maps(0, 2, *student.pooled_shape)
    weights = [maps(k, *w.shape) / 10 for k, w in enumerate(layer.weights)]
    layer.set_weights(weights)
    expected = x
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        expected = convolved(expected, kernel, bias)
        expected = np.where(expected > 0, expected, 0.1 * expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(layer(x), expected, atol=1e-5 * scale)
