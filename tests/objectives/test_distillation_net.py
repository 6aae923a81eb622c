"""The networks of a distillation: the weights of losses, and paths that are left out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.methods.at import AT
from dfa_tf.methods.ensemble_kd import EnsembleKD
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.methods.kd import KD
from dfa_tf.methods.margin import Margin
from dfa_tf.methods.pathways import Pathways
from dfa_tf.objectives.distillation_net import DistillationNet
from dfa_tf.process import Process
from dfa_tf.weightings import Adaptive, ProcessWeighting
from tests.conftest import small_network
from tests.methods.numerics import softmax

STEPS = 4


def _net(methods, weights=None, ce_weight=None):
    teacher, student = small_network(10, 2, seed=1), small_network(10, 1, seed=2)
    return DistillationNet([teacher], student, methods, weights, ce_weight, steps=STEPS, seed=3)


def _objective(net):
    (segment,) = net.segments([2, STEPS])
    assert segment.last == STEPS
    return segment.objective


@pytest.mark.parametrize(
    ("weights", "ce_weight", "expected"),
    [(None, None, 0.1), ([1.0], None, 0.1), (Adaptive(), None, 1.0), (Adaptive(), 0.5, 0.5)],
)
def test_weight_of_the_cross_entropy_is_one_with_a_weighting(batch, weights, ce_weight, expected):
    """Otherwise it is the method's: .1 of KD, whose loss has the weight .9."""
    loss, _, measured = _objective(_net([KD()], weights, ce_weight))(*batch)
    kd = 0.9 * measured["kd"]
    np.testing.assert_allclose(loss, expected * measured["cross_entropy"] + kd, rtol=1e-5)


def test_weights_of_several_methods_multiply_their_losses(batch):
    """Each loss counts alpha times its weight: .9 * 2 and .5 * 3; the cross entropy .2 * .3."""
    methods = [KD(gamma=0.2), EnsembleKD(alpha=0.5, gamma=0.3)]
    loss, _, measured = _objective(_net(methods, [2.0, 3.0]))(*batch)
    kd, ensemble = measured["kd"], measured["ensemble_kd"]
    expected = 0.06 * measured["cross_entropy"] + 1.8 * kd + 1.5 * ensemble
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_class_weights_multiply_the_cross_entropy_of_a_distillation(batch):
    class_weights = np.array([1, 2, 4, 8], np.float32)
    net = _net([KD()])
    (segment,) = net.segments([STEPS], class_weights=class_weights)
    loss, logits, measured = segment.objective(*batch)
    labels = batch[1].numpy()
    ce = -np.log(softmax(logits.numpy())[np.arange(8), labels])
    expected = 0.1 * class_weights[labels] * ce + 0.9 * measured["kd"]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


AT_PARTS = ["at/group1", "at/group2", "at/group3"]


@pytest.mark.parametrize(
    ("layerwise", "paths", "factors"),
    [(False, ["kd", "at"], [0.5, 20.0]), (True, ["kd", *AT_PARTS], [0.5, 20.0, 20.0, 20.0])],
)
def test_adaptive_importance_of_a_term_or_part_follows_its_weighted_loss(
    batch, layerwise, paths, factors
):
    """Each a_k has the derivative 1 - exp(-a_k) lambda_k L_k."""
    methods = [KD(alpha=0.5), AT(form="code", beta=20.0)]
    net = _net(methods, Adaptive(layerwise=layerwise))
    assert net.paths == paths
    variable = net.variables[-1]
    a = np.linspace(-0.7, 0.4, len(paths)).astype(np.float32)
    variable.assign(a)
    with tf.GradientTape() as tape:
        loss, _, measured = _objective(net)(*batch)
        mean = tf.reduce_mean(loss)
    weighted = [
        np.exp(-exponent) * factor * measured[path].numpy()
        for path, factor, exponent in zip(paths, factors, a, strict=True)
    ]
    expected = measured["cross_entropy"] + np.sum(weighted, 0) + a.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    derivative = tape.gradient(mean, variable.value)
    np.testing.assert_allclose(derivative, 1 - np.mean(weighted, 1), rtol=1e-4, atol=1e-5)


def _ids(*models):
    return {id(variable) for model in models for variable in model.trainable_variables}


def test_variables_are_those_of_student_connectors_and_weighting():
    """Margin has a connector of three variables for each group; its loss and KD's have an importance."""
    plain, net = _net([]), _net([Margin(), KD()], Adaptive())
    assert {id(v) for v in plain.variables} == _ids(plain.student)
    student, *connectors, importances = net.models
    assert student is net.student
    assert {id(v) for v in net.variables} == _ids(*net.models)
    assert [len(model.trainable_variables) for model in connectors] == [3, 3, 3]
    assert [v.shape for v in importances.trainable_variables] == [(2,)]


def test_helpers_of_a_pretraining_are_saved_but_not_trained_with_the_student():
    net = _net([FitNets()])
    student, regressor = net.models
    assert {id(v) for v in net.variables} == _ids(student)
    ((method, phase),) = net.pretrainings
    assert method.name == "fitnets"
    assert _ids(regressor) < {id(v) for v in phase.variables} < _ids(student, regressor)


@pytest.fixture(scope="module")
def pathways():
    """Nets with six pathways, of which all have a weight, or the first alone."""
    method = Pathways("simple", stem=False)
    paths = _net([method], Adaptive()).paths
    assert len(paths) == 6
    process = Process(paths, [0], [[0.5] + 5 * [1e-30]], steps=1)
    nets = [
        _net([method], ProcessWeighting(process, threshold=threshold)) for threshold in (0.0, 0.1)
    ]
    return nets, paths[0]


def test_pathway_that_is_left_out_gives_the_gradient_of_weight_zero(pathways, batch):
    results = []
    for net in pathways[0]:
        variables = [v.value for v in net.student.trainable_variables]
        objective = _objective(net)

        @tf.function
        def run(images, labels, objective=objective, variables=variables):
            with tf.GradientTape() as tape:
                loss, _, _ = objective(images, labels)
            return loss, tape.gradient(loss, variables)

        results.append(run(*batch))
    (computed, gradients), (skipped, skipped_gradients) = results
    np.testing.assert_allclose(skipped, computed, rtol=1e-6)
    for found, expected in zip(skipped_gradients, gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_of_a_pathway_that_is_left_out_are_not_in_the_graph(pathways, batch):
    counts = []
    for net in pathways[0]:
        graph = tf.function(_objective(net)).get_concrete_function(*batch).graph
        counts.append(sum(op.type == "Conv2D" for op in graph.get_operations()))
    net, used = pathways[0][0], pathways[1]
    connectors = [model for model in net.models if model is not net.student]
    convolutions = {
        model.name: sum(isinstance(each, keras.layers.Conv2D) for each in model._flatten_layers())
        for model in connectors
    }
    assert len(convolutions) == 6
    (own,) = [name for name in convolutions if used in name]
    assert counts[0] - counts[1] == sum(convolutions.values()) - convolutions[own] > 0


def test_plain_training_needs_no_teacher(batch):
    student = small_network(10, 1, seed=2)
    net = DistillationNet([], student, [], steps=STEPS)
    loss, _, _ = _objective(net)(*batch)
    log_p = tf.nn.log_softmax(student(batch[0], training=True)["logits"]).numpy()
    np.testing.assert_allclose(loss, -log_p[np.arange(len(loss)), batch[1]], rtol=1e-4)
    assert net.paths == []
