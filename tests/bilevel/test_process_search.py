"""DistPro's search: the weights of the paths, the meta step, and its gradient of alpha."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data
from dfa_tf.bilevel.process_search import (
    ProcessSearchNet,
    SearchProcessOptions,
    alpha_gradient,
    check_searchable,
    meta_step,
    path_weights,
)
from dfa_tf.errors import UserError
from dfa_tf.methods import DFA, METHODS, FitNets, Pathways
from dfa_tf.methods.losses import cross_entropy
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.objectives.distillation_net import DistillationNet
from dfa_tf.process import Process
from dfa_tf.training.fit import objective_step
from dfa_tf.training.optimizers import SGD, Adam
from dfa_tf.weightings import ProcessWeighting
from tests.conftest import freeze_statistics, made_examples, same, small_network, values
from tests.methods.numerics import softmax

RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4
CE_WEIGHT, FACTORS = 0.25, [0.5, 3.0]  # of the cross entropy, and lambda_k of TwoPathways
SIMPLE = Pathways("simple", stem=False)


@dataclasses.dataclass(frozen=True)
class Answers(Method):
    """Two paths: "good" pulls towards the labels, "bad" towards other classes."""

    name = "answers"

    def build(self, teacher, student, seed, precision):
        def good(teacher, student, labels):
            return {"good": cross_entropy(student.logits, labels)}

        def bad(teacher, student, labels):
            return {"bad": cross_entropy(student.logits, (labels + 1) % 4)}

        return [Distillation(good, {"good": 0.5}), Distillation(bad, {"bad": 0.5})]


@dataclasses.dataclass(frozen=True)
class TwoPathways(Method):
    """Two of the pathways, which is faster, with different lambda_k."""

    name = "two_pathways"

    def build(self, teacher, student, seed, precision):
        pathways = SIMPLE.build(teacher, student, seed, precision)[1::3]
        return [
            dataclasses.replace(pathway, weights=dict.fromkeys(pathway.weights, factor))
            for pathway, factor in zip(pathways, FACTORS, strict=True)
        ]


def _networks():
    return small_network(10, 2, seed=1), small_network(10, 1, seed=2)


def _net(methods=(TwoPathways(),), normalization="biased", precision="float32", ce_weight=1.0):
    teacher, student = _networks()
    return ProcessSearchNet(
        teacher,
        student.copy(precision),
        methods,
        SearchProcessOptions(normalization),
        ce_weight=ce_weight,
        precision=precision,
        seed=3,
    )


def _batches(count=8):
    made = [made_examples(count, seed) for seed in (5, 6)]
    return [(tf.constant(m.images), tf.constant(m.labels)) for m in made]


def _optimizers(net, alpha_rate=0.1, rate=RATE):
    sgd = SGD(rate, MOMENTUM, weight_decay=DECAY).build(net.variables, 10, 100)
    adam = Adam(alpha_rate, weight_decay=0.0).build([net.alpha], 10, 100)
    return sgd, adam


def _state(net):
    return values([v for model in net.models for v in model.variables])


def test_biased_weights_are_a_softmax_with_a_path_of_zero_loss():
    np.testing.assert_allclose(path_weights(tf.ones([6]), "biased"), 6 * [6 / 7], rtol=1e-6)
    alpha = np.array([0.3, 1.0, -2.0, 1.7], np.float32)
    odds = np.exp(alpha)
    expected = 4 * odds / (odds.sum() + np.exp(1.0))
    np.testing.assert_allclose(path_weights(tf.constant(alpha), "biased"), expected, rtol=1e-5)


def test_plain_weights_sum_to_one():
    np.testing.assert_allclose(path_weights(tf.ones([5]), "plain"), 5 * [0.2], rtol=1e-6)
    alpha = np.array([0.3, 1.0, -2.0], np.float32)
    np.testing.assert_allclose(path_weights(tf.constant(alpha), "plain"), softmax(alpha), rtol=1e-5)


@pytest.mark.parametrize("normalization", ["biased", "plain"])
def test_gradient_of_alpha_is_the_product_with_the_jacobian(normalization):
    alpha = np.array([0.3, 1.0, -2.0], np.float32)
    d = np.array([1.0, -2.0, 0.5], np.float32)
    padded = np.append(alpha, 1.0) if normalization == "biased" else alpha
    p = softmax(padded)[:3]
    scale = 3 if normalization == "biased" else 1
    jacobian = scale * (np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(
        alpha_gradient(tf.constant(alpha), tf.constant(d), normalization),
        -jacobian.T @ d,
        rtol=1e-4,
        atol=1e-6,
    )


def test_step_trains_the_student_as_a_distillation_with_the_same_weights():
    """To rounding: also the moving averages, so the other two passes record none."""
    train, validation = _batches()
    searched, alpha = _net(ce_weight=CE_WEIGHT), np.array([0.3, 1.7], np.float32)
    searched.alpha.assign(alpha)
    before, frozen = _state(searched), values(searched._teacher.variables)
    tf.function(meta_step(searched, *_optimizers(searched), 8))(train, validation)

    weights = 2 * softmax(np.append(alpha, 1.0))[:2]
    process = Process(searched.paths, [0], [weights.tolist()], steps=1)
    teacher, student = _networks()
    trained = DistillationNet(
        [teacher], student, [TwoPathways()], ProcessWeighting(process), CE_WEIGHT, steps=1, seed=3
    )
    (segment,) = trained.segments([1])
    sgd = SGD(RATE, MOMENTUM, weight_decay=DECAY).build(trained.variables, 10, 100)
    tf.function(objective_step(segment.objective, sgd, 8))(*train)

    for found, expected in zip(_state(searched), _state(trained), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not same(_state(searched), before)
    assert same(frozen, values(searched._teacher.variables))
    assert np.all(searched.alpha.numpy() != alpha)


@pytest.mark.parametrize(
    ("method", "factors", "normalization"),
    [
        (TwoPathways(), FACTORS, "biased"),
        pytest.param(SIMPLE, 6 * [1.0], "biased", marks=pytest.mark.slow),
        pytest.param(SIMPLE, 6 * [1.0], "plain", marks=pytest.mark.slow),
    ],
)
def test_gradient_of_alpha_is_that_of_the_validation_loss_through_the_step(
    method, factors, normalization
):
    """The exact gradient by nested tapes, through Nesterov's step with a momentum buffer.

    The step computes the gradient over eta (1 + mu).
    """
    train, validation = _batches()
    net = _net([method], normalization, ce_weight=CE_WEIGHT)
    sgd, adam = _optimizers(net)
    step = tf.function(meta_step(net, sgd, adam, 8))
    step(validation, train)  # fills the buffer, and moves alpha
    buffers = [v for v in sgd._optimizer.variables if "momentum" in v.path]
    variables = net.variables
    assert len(buffers) == len(variables)

    @tf.function
    def exact():
        with tf.GradientTape() as outer:
            alpha = tf.convert_to_tensor(net.alpha)
            outer.watch(alpha)
            with tf.GradientTape() as inner, keras.StatelessScope():
                outputs = net.teacher_outputs(*train)
                weights = path_weights(alpha, normalization)
                student, losses = net.path_losses(outputs, *train)
                ce = tf.nn.sparse_softmax_cross_entropy_with_logits(train[1], student.logits)
                terms = zip(tf.unstack(weights), factors, losses.values(), strict=True)
                loss = CE_WEIGHT * ce + tf.add_n([w * factor * term for w, factor, term in terms])
                mean = tf.reduce_mean(loss)
            gradients = inner.gradient(mean, [v.value for v in variables])
            moved = []
            for v, m, g in zip(variables, buffers, gradients, strict=True):
                m, g = tf.convert_to_tensor(m), g + DECAY * tf.convert_to_tensor(v)
                m = MOMENTUM * m - RATE * g
                moved.append(tf.convert_to_tensor(v) + MOMENTUM * m - RATE * g)
            mapping = list(zip(variables, moved, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                logits = net.student(validation[0], training=True)["logits"]
            upper = tf.reduce_mean(cross_entropy(logits, validation[1]))
        return outer.gradient(upper, alpha), upper, moved

    gradient, upper, moved = exact()
    measured = step(train, validation)
    for found, expected in zip(values(variables), moved, strict=True):  # the real next student
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert float(measured["validation/cross_entropy"]) == pytest.approx(float(upper), rel=1e-4)
    scale = np.abs(gradient).max()
    assert scale > 0
    np.testing.assert_allclose(
        RATE * (1 + MOMENTUM) * measured["alpha_gradient"], gradient, atol=1e-4 * scale
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pathways", "kd", "sp", "rkd", "crd", "nst", "jacobian", "margin"]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_products_of_any_method_are_those_of_its_gradients(name, frozen):
    """d_k = <grad lambda_k D_k(theta), v>, one gradient for each path. Statistics may be frozen."""
    train, validation = _batches()
    net = _net([METHODS[name]()])
    if frozen:
        freeze_statistics(*net.models)
    theta = net.student.trainable_variables

    @tf.function
    def gradients():
        outputs = net.teacher_outputs(*train)
        with tf.GradientTape(persistent=True) as tape, keras.StatelessScope():
            _, losses = net.path_losses(outputs, *train)
            means = [net.factors[path] * tf.reduce_mean(losses[path]) for path in net.paths]
        at = [variable.value for variable in theta]
        return [tape.gradient(mean, at, unconnected_gradients="zero") for mean in means]

    @tf.function
    def direction():  # at the next student
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(net.validation_loss(*validation)[0])
        at = [variable.value for variable in theta]
        return tape.gradient(loss, at, unconnected_gradients="zero")

    of_paths, alpha = gradients(), tf.convert_to_tensor(net.alpha)
    measured = tf.function(meta_step(net, *_optimizers(net), 8))(train, validation)
    v = direction()
    products = [
        sum(float(tf.reduce_sum(a * b)) for a, b in zip(g, v, strict=True)) for g in of_paths
    ]
    expected = alpha_gradient(alpha, tf.constant(products), "biased").numpy()
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(measured["alpha_gradient"], expected, atol=1e-3 * largest)


@pytest.mark.parametrize("normalization", ["biased", pytest.param("plain", marks=pytest.mark.slow)])
def test_path_that_helps_gains_weight_and_path_that_hurts_loses(normalization):
    train, validation = _batches(16)
    net = _net([Answers()], normalization)
    assert net.paths == ["good", "bad"]
    start = net.current_weights().numpy()
    step = tf.function(meta_step(net, *_optimizers(net, 0.2), 16))
    for _ in range(6):
        measured = step(train, validation)
        good, bad = measured["alpha_gradient"].numpy()
        assert good < bad
    good, bad = net.current_weights().numpy() / start
    assert good > 1.2
    assert bad < 0.8


def test_measurements_hold_the_weights_that_the_step_used():
    net = _net([Answers()])
    measured = meta_step(net, *_optimizers(net), 8)(*_batches())
    np.testing.assert_allclose(measured["weights"], 2 * [2 / 3], rtol=1e-6)
    assert np.all(measured["alpha"] == 1)
    assert {"train/loss", "train/good", "train/bad", "train/accuracy"} <= set(measured)
    assert {"validation/cross_entropy", "validation/accuracy"} <= set(measured)


def test_methods_that_cannot_be_searched_are_named():
    networks = small_network(10, 2), small_network(10)
    for methods, text in (([], r"distill\.methods"), ([DFA()], "dfa"), ([FitNets()], "fitnets")):
        with pytest.raises(UserError, match=text):
            check_searchable(*networks, methods)


@pytest.mark.slow
def test_bfloat16_step_is_close_to_float32():
    """On 128 images. On 8, rounding turns the gradient of the validation loss by 40 degrees."""
    gradients = []
    for precision in ("float32", "mixed_bfloat16"):
        net = _net(precision=precision)
        step = tf.function(meta_step(net, *_optimizers(net), 128))
        gradients.append(step(*_batches(128))["alpha_gradient"].numpy())
    exact, rough = gradients
    np.testing.assert_allclose(rough, exact, atol=0.3 * np.abs(exact).max())


def _run_replicated(strategy, steps=3, frozen=True, batches=None):
    """Alpha, weights and measurements after a few steps, the batches shared out."""
    with strategy.scope():
        net = _net([SIMPLE])
        if frozen:
            freeze_statistics(*net.models)
        optimizers = _optimizers(net)
    step = meta_step(net, *optimizers, 8)

    def replica(train, validation):
        return step(*data.replica_part((train, validation)))

    @tf.function
    def run(*batches):
        measured = strategy.run(replica, args=batches)
        return {k: strategy.reduce("SUM", v, axis=None) for k, v in measured.items()}

    measured = [run(*(batches or _batches())) for _ in range(steps)]
    return net.alpha.numpy(), values(net.variables), measured


@pytest.mark.slow
def test_two_replicas_equal_one_without_batch_statistics(one_replica, two_replicas):
    _assert_same_runs(*(_run_replicated(each) for each in (one_replica, two_replicas)))


@pytest.mark.slow
def test_two_replicas_with_the_same_images_equal_one(one_replica, two_replicas):
    """Both then have the statistics of the global batch."""
    half = [[tf.concat([t, t], 0) for t in batch] for batch in _batches(4)]
    arguments = {"steps": 2, "frozen": False, "batches": half}
    _assert_same_runs(*(_run_replicated(each, **arguments) for each in (one_replica, two_replicas)))


def _assert_same_runs(one, two):
    alpha, weights, measured = one
    alpha_of_two, weights_of_two, measured_of_two = two
    for one, two in zip(measured, measured_of_two, strict=True):
        for name in ("train/loss", "validation/cross_entropy", "weights"):
            np.testing.assert_allclose(two[name], one[name], rtol=1e-3)
        scale = np.abs(one["alpha_gradient"]).max()
        np.testing.assert_allclose(two["alpha_gradient"], one["alpha_gradient"], atol=1e-2 * scale)
    np.testing.assert_allclose(alpha_of_two, alpha, atol=5e-3)
    for one, two in zip(weights, weights_of_two, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-4)
