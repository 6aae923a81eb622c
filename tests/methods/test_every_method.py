"""Facts that hold for every distillation method."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data, methods
from dfa_tf.alpha import fixed
from dfa_tf.comparison.titles import TITLES
from dfa_tf.methods.method import ALPHA, INPUT_GRADIENT, LABELS, TEACHERS, Method
from dfa_tf.methods.replicas import global_mean
from dfa_tf.objectives.objective import (
    network_outputs,
    pretraining_objective,
    student_objective,
)
from dfa_tf.objectives.teachers import build_method
from tests.conftest import freeze_statistics, made_examples, same, small_network, values
from tests.methods.networks import plain_network

BATCH = 8
PAIRS = {
    "wide": lambda: (small_network(22, 2, seed=1), small_network(16, 1, seed=2)),
    "shallow": lambda: (small_network(10, 2, seed=1), small_network(10, 1, seed=2)),
    "plain teacher": lambda: (plain_network(seed=1), small_network(10, 1, seed=2)),
    "plain student": lambda: (small_network(16, 2, seed=1), plain_network(seed=2)),
}
METHODS = list(methods.METHODS.values())
DFA = methods.METHODS["dfa"]
OTHERS = [method for method in METHODS if method is not DFA]
PRETRAINED = [methods.METHODS[name] for name in ("fitnets", "ft", "ab")]


def _for(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)


def _slow_but(*names):
    """All methods; those with other names are slow tests."""
    return [pytest.param(m, marks=[] if m.name in names else pytest.mark.slow) for m in METHODS]


def _pair(name):
    """The networks of a pair. `Built` copies them.

    Variables belong to the strategy in whose scope they are created, and so do these networks.
    """
    return PAIRS[name]() if tf.distribute.has_strategy() else _pair_without_strategy(name)


@functools.cache
def _pair_without_strategy(name):
    return PAIRS[name]()


class Built:
    """A method built for a pair of networks."""

    def __init__(self, method, pair="wide", precision="float32"):
        teacher, student = _pair(pair)
        self.student = student.copy(precision)
        self.teacher = teacher.folded(precision)
        self.method = method(fixed("random", teacher, 5)) if method is DFA else method()
        self.distillations = build_method(self.method, [teacher], self.student, 3, precision)

    @property
    def variables(self):
        models = [self.student, *self.connectors]
        return [v for model in models for v in model.trainable_variables]

    @property
    def connectors(self):
        return [model for each in self.distillations for model in each.connectors]

    @property
    def helpers(self):
        return [model for each in self.distillations for model in each.helpers]

    @property
    def weights(self):
        return {name: w for each in self.distillations for name, w in each.weights.items()}

    @property
    def phase(self):
        """The pretraining, or None."""
        return self.distillations[0].pretraining

    def objective(self):
        return student_objective(
            self.teacher,
            self.student,
            self.distillations,
            [1.0] * len(self.distillations),
            self.method.needs,
        )

    def pretraining(self):
        return pretraining_objective(self.teacher, self.student, self.phase, self.method.needs)


def _gradients(objective, variables, images, labels):
    """(loss [B], {term: [B]}, gradients of the mean) in one TensorFlow function."""

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss, _, terms = objective(images, labels)
            mean = tf.reduce_mean(loss)
        return loss, terms, tape.gradient(mean, [v.value for v in variables])

    return step(images, labels)


@_for(METHODS)
def test_loss_trains_all_variables_and_leaves_the_teacher_unchanged(method, batch):
    built = Built(method)
    assert set(built.method.needs) <= {ALPHA, INPUT_GRADIENT, LABELS, TEACHERS}
    teacher, helpers = values(built.teacher.variables), built.helpers
    before = [values(helper.variables) for helper in helpers]
    loss, terms, gradients = _gradients(built.objective(), built.variables, *batch)
    assert loss.shape == (BATCH,)
    for value in (loss, *terms.values()):
        assert (value.dtype, value.shape) == (tf.float32, (BATCH,))
        assert np.isfinite(value).all()
    ce = built.distillations[0].cross_entropy * terms.pop("cross_entropy")
    for name in [name for name in terms if "/" in name]:  # a part of another term
        del terms[name]
    assert set(terms) == set(built.weights)
    weighted = [built.weights[name] * term for name, term in terms.items()]
    np.testing.assert_allclose(loss, np.sum([ce, *weighted], 0), rtol=1e-5)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    assert same(teacher, values(built.teacher.variables))
    assert all(
        same(old, values(helper.variables)) for old, helper in zip(before, helpers, strict=True)
    )


@_for(METHODS)
def test_each_term_and_part_trains_the_first_convolution_of_the_student(method, batch):
    """Without the cross entropy, which trains it in any case."""
    built = Built(method, "shallow")
    kernel = built.student.get_layer("stem").kernel.value
    with tf.GradientTape(persistent=True) as tape:
        _, _, terms = built.objective()(*batch)
        if built.phase and built.phase.uses_student:
            terms |= built.pretraining()(*batch)[2]
    del terms["cross_entropy"]
    gradients = {
        n: tape.gradient(t, kernel, unconnected_gradients="zero") for n, t in terms.items()
    }
    assert gradients
    assert [name for name, gradient in gradients.items() if not np.any(gradient)] == []


@_for(_slow_but("dfa", "jacobian", "reviewkd"))
def test_bfloat16_loss_is_close_to_float32(method, batch):
    exact, _, _ = _gradients(Built(method).objective(), [], *batch)
    built = Built(method, precision="mixed_bfloat16")
    rough, _, gradients = _gradients(built.objective(), built.variables, *batch)
    np.testing.assert_allclose(np.mean(rough), np.mean(exact), rtol=0.03)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@pytest.mark.slow
@_for(methods.METHODS[name] for name in ("dfa", "ab", "at", "nst", "reviewkd", "rkd", "sp", "vid"))
def test_float16_loss_is_close_to_float32(method, batch):
    exact, _, _ = _gradients(Built(method).objective(), [], *batch)
    built = Built(method, precision="mixed_float16")
    rough, _, _ = _gradients(built.objective(), built.variables, *batch)
    np.testing.assert_allclose(np.mean(rough), np.mean(exact), rtol=0.01)


@pytest.mark.slow
@_for(METHODS)
def test_terms_depend_on_the_labels_if_the_method_says_so(method, batch):
    images, labels = batch
    objective = tf.function(Built(method).objective())
    _, _, terms = objective(images, labels)
    _, _, others = objective(images, labels // 2)  # other labels, and more that are equal
    changed = {name for name, term in terms.items() if not np.allclose(term, others[name], 1e-4)}
    assert bool(changed - {"cross_entropy"}) == (LABELS in method.needs)


class _LogitsAlone:
    """Outputs of a network that has nothing but logits."""

    def __init__(self, logits):
        self.logits = logits

    def __getattr__(self, name):
        raise AssertionError(f"the method reads {name} of the teacher")


def _reads_logits_alone(method, batch):
    images, labels = batch
    built = Built(method)
    teacher = _LogitsAlone(built.teacher(images, training=False)["logits"])
    outputs = network_outputs(built.student, images, labels, built.method.needs)
    try:
        for each in built.distillations:
            each.terms([teacher] if each.all_teachers else teacher, outputs, labels)
    except AssertionError:
        return False
    return built.phase is None


@_for(_slow_but(*(method.name for method in METHODS if method.logits_only)))
def test_method_says_whether_it_reads_the_logits_of_the_teacher_alone(method, batch):
    assert _reads_logits_alone(method, batch) == method.logits_only


@_for(method for method in METHODS if method.logits_only)
def test_cached_logits_of_the_teacher_replace_it(method, batch):
    """The objective is that with the teacher, which is then not run."""
    images, labels = batch
    built = Built(method, "shallow")
    logits = built.teacher(images, training=False)["logits"]
    expected = built.objective()(images, labels)
    built.teacher = None
    found = built.objective()(images, labels, teacher_logits=logits[:, None])
    assert found[2].keys() == expected[2].keys() > {"cross_entropy"}
    tf.nest.map_structure(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected
    )


def test_methods_that_read_logits_alone_are_kd_dkd_dist_logits_and_ensemble_kd():
    found = {method.name for method in METHODS if method.logits_only}
    assert found == {"kd", "dkd", "dist", "logits", "ensemble_kd"}


@_for([DFA, *(methods.METHODS[name] for name in ("margin", "at", "vid", "nst"))])
def test_parts_of_the_groups_add_up_to_the_term(method, batch):
    _, terms, _ = _gradients(Built(method).objective(), [], *batch)
    (name,) = {name.split("/")[0] for name in terms if "/" in name}
    parts = [terms[f"{name}/group{g}"] for g in (1, 2, 3)]
    np.testing.assert_allclose(terms[name], np.sum(parts, 0), rtol=1e-6)


@_for(PRETRAINED)
def test_pretraining_trains_its_variables(method, batch):
    built = Built(method)
    variables = built.phase.variables
    loss, _, gradients = _gradients(built.pretraining(), variables, *batch)
    assert np.isfinite(loss).all()
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


@_for(OTHERS)
@pytest.mark.parametrize(
    "pair", ["plain teacher", pytest.param("plain student", marks=pytest.mark.slow)]
)
def test_networks_may_differ_in_groups_sizes_and_channels(method, pair, batch):
    built = Built(method, pair)
    _, _, gradients = _gradients(built.objective(), built.variables, *batch)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    if built.phase:
        variables = built.phase.variables
        _, _, gradients = _gradients(built.pretraining(), variables, *batch)
        assert all(g is not None and np.isfinite(g).all() for g in gradients)


@_for(_slow_but("dfa", "sp"))
def test_two_replicas_equal_one(method, one_replica, two_replicas):
    """Methods that compare the images of a batch see the global batch on any number of replicas.

    The student runs in inference mode, because batch statistics differ between replicas."""
    examples = made_examples(BATCH, seed=5)
    results = [_run_under(strategy, method, examples) for strategy in (one_replica, two_replicas)]
    (terms, gradients), (terms_of_two, gradients_of_two) = results
    for name in terms:
        np.testing.assert_allclose(terms_of_two[name], terms[name], rtol=2e-4, atol=1e-6)
    for one, two in zip(gradients, gradients_of_two, strict=True):
        np.testing.assert_allclose(two, one, rtol=5e-3, atol=2e-3 * np.abs(one).max() + 1e-7)


def _run_under(strategy, method, examples):
    """Returns ({term: mean over the batch}, gradients of the loss for the student's kernels)."""
    with strategy.scope():
        built = Built(method)
        built.student.trainable = False  # batch normalization then uses moving statistics
        for model in (*built.connectors, *built.helpers):
            freeze_statistics(model)
        kernels = [v.value for v in built.student.variables if v.path.endswith("kernel")]
    batches = data.training_batches(examples, BATCH, data.Augmentation(0, False), 0)
    batch = next(iter(batches))
    objective = built.objective()

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
        results = strategy.run(replica, args=(images, labels))
        return tf.nest.map_structure(
            lambda x: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), results
        )

    terms, gradients = run(*batch)
    return {n: t.numpy() for n, t in terms.items()}, [g.numpy() for g in gradients]


@_for(METHODS)
def test_methods_are_equal_if_their_settings_are(method):
    """This decides whether a workdir can be resumed."""
    assert method() == method()
    fields = {f.name: getattr(method(), f.name) for f in dataclasses.fields(method)}
    name = next(n for n, v in fields.items() if isinstance(v, float))
    assert dataclasses.replace(method(), **{name: fields[name] + 1}) != method()


def test_every_method_of_the_package_is_listed_under_its_own_name():
    defined = [m for m in Method.__subclasses__() if m.__module__.startswith("dfa_tf.")]
    assert {method.name: method for method in defined} == methods.METHODS
    assert set(methods.METHODS) <= set(TITLES)  # for tables
    assert len({method.name for method in defined}) == len(defined)
