"""What holds of every distillation method, whatever its formula."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data, methods
from dfa_tf.alpha import fixed
from dfa_tf.methods.method import NEEDS
from dfa_tf.methods.objective import pretraining_objective, student_objective, weighted_sum
from dfa_tf.training.devices import global_mean
from tests.conftest import made_examples, same, small_network, values
from tests.methods.networks import plain_network

BATCH = 8
PAIRS = {
    "wide": lambda: (small_network(22, 2, seed=1), small_network(16, 1, seed=2)),
    "plain teacher": lambda: (plain_network(seed=1), small_network(10, 1, seed=2)),
    "plain student": lambda: (small_network(16, 2, seed=1), plain_network(seed=2)),
}
METHODS = list(methods.METHODS.values())
DFA = methods.METHODS["dfa"]
OTHER_THAN_DFA = [method for method in METHODS if method is not DFA]
WITH_PRETRAINING = [methods.METHODS[name] for name in ("fitnets", "ft", "ab")]


def _of(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)


def _slow_but(*names):
    """All methods, those of other names only among the slow tests."""
    return [pytest.param(m, marks=[] if m.name in names else pytest.mark.slow) for m in METHODS]


class Made:
    """A method on one pair, and the steps' gradients."""

    def __init__(self, method, pair="wide", precision="float32"):
        teacher, student = PAIRS[pair]()
        self.student = student.copy(precision)
        self.teacher = teacher.folded(precision)
        self.recipe = method(fixed("random", teacher, 5)) if method is DFA else method()
        self.made = self.recipe.build(teacher, self.student, 3, precision)

    @property
    def variables(self):
        models = [self.student, *self.made.connectors]
        return [v for model in models for v in model.trainable_variables]

    def objective(self):
        return student_objective(self.teacher, self.student, [self.made], [1.0], self.recipe.needs)

    def pretraining(self):
        return pretraining_objective(
            self.teacher, self.student, self.made.pretraining, self.recipe.needs
        )


def _gradients(objective, variables, images, labels):
    """(loss [B], {term: [B]}, gradients of the mean) in one TensorFlow function."""

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss, _, terms = objective(images, labels)
            mean = tf.reduce_mean(loss)
        return loss, terms, tape.gradient(mean, [v.value for v in variables])

    return step(images, labels)


@_of(METHODS)
def test_loss_reaches_all_that_is_trained_and_leaves_the_teacher(method, batch):
    made = Made(method)
    assert set(made.recipe.needs) <= set(NEEDS)
    teacher, helpers = values(made.teacher.variables), made.made.helpers
    before = [values(helper.variables) for helper in helpers]
    loss, terms, gradients = _gradients(made.objective(), made.variables, *batch)
    assert loss.shape == (BATCH,)
    for value in (loss, *terms.values()):
        assert (value.dtype, value.shape) == (tf.float32, (BATCH,))
        assert np.isfinite(value).all()
    ce = made.made.cross_entropy * terms.pop("cross_entropy")
    np.testing.assert_allclose(loss, ce + weighted_sum(terms, made.made.weights), rtol=1e-5)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    assert same(teacher, values(made.teacher.variables))
    assert all(
        same(old, values(helper.variables)) for old, helper in zip(before, helpers, strict=True)
    )


@_of(_slow_but("dfa", "jacobian", "vid", "crd", "reviewkd"))
def test_bfloat16_has_the_loss_of_float32(method, batch):
    exact, _, _ = _gradients(Made(method).objective(), [], *batch)
    made = Made(method, precision="mixed_bfloat16")
    rough, _, gradients = _gradients(made.objective(), made.variables, *batch)
    np.testing.assert_allclose(np.mean(rough), np.mean(exact), rtol=0.03)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@_of(WITH_PRETRAINING)
def test_pretraining_reaches_what_it_trains(method, batch):
    made = Made(method)
    variables = made.made.pretraining.variables
    loss, _, gradients = _gradients(made.pretraining(), variables, *batch)
    assert np.isfinite(loss).all()
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@_of(OTHER_THAN_DFA)
@pytest.mark.parametrize(
    "pair", ["plain teacher", pytest.param("plain student", marks=pytest.mark.slow)]
)
def test_networks_of_other_groups_sizes_and_channels_do(method, pair, batch):
    made = Made(method, pair)
    _, _, gradients = _gradients(made.objective(), made.variables, *batch)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    if made.made.pretraining:
        variables = made.made.pretraining.variables
        _, _, gradients = _gradients(made.pretraining(), variables, *batch)
        assert all(g is not None and np.isfinite(g).all() for g in gradients)


@_of(_slow_but("dfa", "sp", "rkd", "crd"))
def test_two_replicas_have_the_terms_of_one(method, one_replica, two_replicas):
    """Methods that compare the images of a batch see all of it, on any number of replicas.

    The student runs as it would at inference, since its batch statistics are a replica's own."""
    examples = made_examples(BATCH, seed=5)
    results = [_on(strategy, method, examples) for strategy in (one_replica, two_replicas)]
    (terms, gradients), (again, of_two) = results
    for name in terms:
        np.testing.assert_allclose(again[name], terms[name], rtol=2e-4, atol=1e-6)
    for one, two in zip(gradients, of_two, strict=True):
        np.testing.assert_allclose(two, one, rtol=5e-3, atol=2e-3 * np.abs(one).max() + 1e-7)


def _on(strategy, method, examples):
    """({term: mean over the batch}, gradients of the weighted sum for the maps' network)."""
    with strategy.scope():
        made = Made(method)
        made.student.trainable = False  # which makes its batch normalization take moving statistics
        for model in (*made.made.connectors, *made.made.helpers):
            _freeze_statistics(model)
        kernels = [v.value for v in made.student.variables if v.path.endswith("kernel")]
    batches = data.training_batches(examples, BATCH, data.Augmentation(0, False), 0)
    batch = next(iter(batches))
    objective = made.objective()

    def replica(images, labels):
        images, labels = data.replica_part((images, labels))
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            loss, _, terms = objective(images, labels)
            share = global_mean(loss, BATCH)
        gradients = tape.gradient(share, kernels)
        return {n: global_mean(t, BATCH) for n, t in terms.items()}, gradients

    @tf.function
    def run(images, labels):
        made = strategy.run(replica, args=(images, labels))
        return tf.nest.map_structure(
            lambda x: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), made
        )

    terms, gradients = run(*batch)
    return {n: t.numpy() for n, t in terms.items()}, [g.numpy() for g in gradients]


def _freeze_statistics(model):
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "moving_mean"):
            layer.trainable = False


@_of(METHODS)
def test_recipes_are_told_apart_by_their_settings(method):
    """What decides whether a workdir may go on: equal settings, equal recipes."""
    assert method() == method()
    fields = {f.name: getattr(method(), f.name) for f in dataclasses.fields(method)}
    name = next(n for n, v in fields.items() if isinstance(v, float))
    assert dataclasses.replace(method(), **{name: fields[name] + 1}) != method()
