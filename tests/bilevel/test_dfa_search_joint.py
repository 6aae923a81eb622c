"""The joint search: its gradients against those of each group, and what its steps compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import beta_step, bridge_loss, first_order_steps, w_step
from dfa_tf.training.optimizers import SGD, Adam, Optimizer
from tests.conftest import (
    freeze_statistics,
    same,
    shared_out,
    small_network,
    small_supernet,
    values,
)

GROUPS = ("group1", "group2", "group3")
EQUAL = {"gamma_st": 1.0, "gamma_ts": 1.0}


def _supernet(precision="float32", **more):
    return small_supernet(
        small_network(depth=16, width=2, seed=1).copy(precision),
        small_network(depth=10, width=1, seed=2).copy(precision),
        initial="random",
        precision=precision,
        **EQUAL | more,
    )


class _Gradients(Optimizer):
    """Keeps the gradients that a step applies, and changes nothing."""

    def apply(self, gradients):
        self.found = gradients


def _gradients(build_step, variables, batch):
    """Gradients of one step, as arrays. `build_step` is a function of the optimizer."""
    optimizer = _Gradients(keras.optimizers.SGD(0.0), variables, weight_decay=0.0)

    @tf.function
    def run():
        build_step(optimizer)(*batch)
        return optimizer.found

    return [g.numpy() for g in run()]


def _by_groups(supernet, batch):
    """{group: gradient of beta}, and [gradients of w] as the sum over the groups in float64."""
    betas, sums = {}, {}
    for group in GROUPS:
        (betas[group],) = _gradients(
            lambda optimizer, g=group: beta_step(supernet, [g], bridge_loss, optimizer, 8),
            [supernet.beta[group]],
            batch,
        )
        of_w = _gradients(
            lambda optimizer, g=group: w_step(supernet, [g], bridge_loss, optimizer, 8),
            supernet.variables(group),
            batch,
        )
        for variable, gradient in zip(supernet.variables(group), of_w, strict=True):
            sums[id(variable)] = sums.get(id(variable), 0) + gradient.astype(np.float64)
    return betas, [sums[id(variable)] for variable in supernet.variables(*GROUPS)]


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 1e-5), pytest.param("mixed_bfloat16", 0.03, marks=pytest.mark.slow)],
)
def test_gradients_are_those_of_the_groups(batch, precision, tolerance):
    """Of each beta that of its group, of w the sum over the groups, at the same weights."""
    supernet = _supernet(precision)
    betas, sums = _by_groups(supernet, batch)
    of_beta = list(supernet.beta.values())
    found = _gradients(
        lambda optimizer: beta_step(supernet, GROUPS, bridge_loss, optimizer, 8), of_beta, batch
    )
    for gradient, group in zip(found, GROUPS, strict=True):
        scale = np.abs(betas[group]).max()
        assert scale > 0
        np.testing.assert_allclose(gradient, betas[group], atol=tolerance * scale)
    weights = supernet.variables(*GROUPS)
    found = _gradients(
        lambda optimizer: w_step(supernet, GROUPS, bridge_loss, optimizer, 8), weights, batch
    )
    for gradient, expected in zip(found, sums, strict=True):
        assert np.linalg.norm(gradient - expected) <= tolerance * np.linalg.norm(expected)


def test_weight_decay_enters_once(batch):
    """A step of plain SGD with decay d moves w by rate * d * w more than one without."""
    moved = []
    for decay in (0.0, 0.25):
        supernet = _supernet()
        weights = supernet.variables(*GROUPS)
        optimizer = SGD(0.5, 0.0, nesterov=False, weight_decay=decay).build(weights, 10, 100)
        before = values(weights)
        w_step(supernet, GROUPS, bridge_loss, optimizer, 8)(*batch)
        moved.append([b - a for b, a in zip(before, values(weights), strict=True)])
    for start, without, decayed in zip(before, *moved, strict=True):
        np.testing.assert_allclose(decayed - without, 0.5 * 0.25 * start, atol=1e-5)


def test_beta_step_changes_the_beta_of_all_groups_and_nothing_else(batch):
    supernet = _supernet()
    variables = [v for m in (supernet.teacher, *supernet.models) for v in m.variables]
    before, betas = values(variables), values(supernet.beta.values())
    optimizer = Adam().build(list(supernet.beta.values()), 10, 100)
    beta_step(supernet, GROUPS, bridge_loss, optimizer, 8)(*batch)
    assert same(before, values(variables))  # moving statistics among them
    for after, start in zip(values(supernet.beta.values()), betas, strict=True):
        assert np.all(after != start)


def test_w_step_changes_all_of_w_and_nothing_else(batch):
    supernet = _supernet()
    weights = supernet.variables(*GROUPS)
    fixed = [*supernet.beta.values(), *supernet.teacher.variables]
    before, fixed_before = values(weights), values(fixed)
    optimizer = SGD(0.1).build(weights, 10, 100)
    w_step(supernet, GROUPS, bridge_loss, optimizer, 8)(*batch)
    pairs = zip(weights, before, strict=True)
    assert [w.path for w, b in pairs if np.array_equal(w.numpy(), b)] == []
    assert same(fixed_before, values(fixed))


def test_moving_statistics_see_the_image_then_the_aggregations_in_order(batch):
    """The last normalization: m <- .9 m + .1 x for the means x of four streams, in this order."""
    images, labels = batch
    supernet = _supernet()
    student, norm = supernet.student, supernet.student.get_layer("norm")
    moving = norm.moving_mean.numpy()
    inputs, call = [], norm.call
    norm.call = lambda x, *args, **kwargs: (
        inputs.append(np.mean(x, (0, 1, 2))) or call(x, *args, **kwargs)
    )
    student.features("group3", images, training=True)
    for group in GROUPS:
        aggregation = supernet.aggregations(supernet.teacher_features([group], images))[group]
        x = supernet.ts_connectors[group](aggregation)
        student.tail(group, x, training=True, tail_input="stream")
    norm.call = call
    assert len(inputs) == 4
    for mean in inputs:
        moving = 0.9 * moving + 0.1 * mean
    supernet = _supernet()
    optimizer = SGD(0.1).build(supernet.variables(*GROUPS), 10, 100)
    tf.function(w_step(supernet, GROUPS, bridge_loss, optimizer, 8))(images, labels)
    found = supernet.student.get_layer("norm").moving_mean.numpy()
    np.testing.assert_allclose(found, moving, rtol=1e-4, atol=1e-5)


def _convolutions(function, batch):
    """Numbers of convolutions and of their two gradients that a call runs."""
    graph = tf.function(function).get_concrete_function(*batch).graph
    roots = [t.op for t in graph.outputs] + graph.get_operations()[-1].control_inputs
    waiting = roots + [op for op in graph.get_operations() if "Assign" in op.type]
    seen = {}
    while waiting:
        op = waiting.pop()
        if op.name not in seen:
            seen[op.name] = op.type
            waiting += [t.op for t in op.inputs] + list(op.control_inputs)
    types = list(seen.values())
    names = "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"
    return tuple(types.count(name) for name in names)


def test_teacher_and_student_run_once_to_the_last_group(batch):
    """Convolutions: each network once, and the later groups of the student once for each A_i."""
    supernet = _supernet()
    beta_optimizer = Adam().build(list(supernet.beta.values()), 10, 100)
    w_optimizer = SGD(0.1).build(supernet.variables(*GROUPS), 10, 100)
    optimizers = beta_optimizer, w_optimizer
    steps = dict(first_order_steps(supernet, GROUPS, bridge_loss, optimizers, 8))
    teacher = 1 + 3 * (2 * 2 + 1)  # stem; groups of two blocks and a shortcut each (width 2)
    student = 1 + 2 + 3 + 3  # stem; groups of one block, a shortcut in the second and third
    tails = (3 + 3) + 3 + 0  # behind A_1, A_2 and A_3
    connectors = 2 * 3
    forward, *backward = _convolutions(steps["validation",], batch)
    assert forward == teacher + student + tails + connectors
    assert backward == [tails + 3, 0]  # through tails and TS connectors to A_i; no weight
    forward, _, of_weights = _convolutions(steps["train",], batch)
    assert forward == teacher + student + tails + connectors
    assert of_weights == student + tails + connectors


def test_both_passes_end_at_the_last_searched_group(batch):
    """If group 3 is not searched, it runs only behind A_1 and A_2."""
    supernet = _supernet()
    for by_group in (supernet.beta, supernet.st_connectors, supernet.ts_connectors):
        del by_group["group3"]
    optimizer = Adam().build(list(supernet.beta.values()), 10, 100)
    step = beta_step(supernet, GROUPS[:2], bridge_loss, optimizer, 8)
    forward, *_ = _convolutions(step, batch)
    assert forward == (1 + 2 * 5) + (1 + 2 + 3) + (6 + 3) + 2 * 2


def _run_replicated(strategy, images, labels, steps=3):
    """Losses, beta and w after a few iterations, the batch shared out."""
    with strategy.scope():
        supernet = _supernet(gamma_st=1e-3)
        freeze_statistics(supernet.student)
        optimizers = (
            Adam(0.05).build(list(supernet.beta.values()), 10, 100),
            SGD(0.1, 0.9, True, 5e-4).build(supernet.variables(*GROUPS), 10, 100),
        )
    searched = first_order_steps(supernet, GROUPS, bridge_loss, optimizers, 8)
    parts = shared_out(strategy, (images, labels))

    @tf.function
    def iterate():
        measured = [strategy.run(step, args=parts) for _, step in searched]
        names = ("validation/bridge", "alpha"), ("train/bridge/group2",)
        return [
            strategy.reduce("SUM", measurements[name], axis=None)
            for measurements, wanted in zip(measured, names, strict=True)
            for name in wanted
        ]

    measured = [np.concatenate([np.ravel(m) for m in iterate()]) for _ in range(steps)]
    betas = np.concatenate(values(supernet.beta.values()))
    return measured, betas, values(supernet.variables(*GROUPS))


@pytest.mark.slow
def test_two_replicas_equal_one_without_batch_statistics(one_replica, two_replicas, batch):
    one, two = (_run_replicated(s, *batch) for s in (one_replica, two_replicas))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-3)
    np.testing.assert_allclose(one[1], two[1], atol=2e-3)
    for a, b in zip(one[2], two[2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
