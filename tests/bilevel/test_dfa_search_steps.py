"""The two steps of Algorithm 1: what each minimises, changes and computes."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import beta_step, bridge_loss, w_step
from dfa_tf.bilevel.dfa_search_ablation import student_loss
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from tests.conftest import (
    freeze_statistics,
    made_examples,
    same,
    shared_out,
    small_network,
    small_supernet,
    values,
)

GROUPS = ("group1", "group2", "group3")


def _supernet(initial="uniform", precision="float32", **more):
    return small_supernet(
        small_network(depth=22, width=2, seed=1).copy(precision),
        small_network(depth=16, width=1, seed=2).copy(precision),
        initial=initial,
        precision=precision,
        **more,
    )


def _sgd(rate=0.1, momentum=0.0, decay=0.0):
    return SGD(Cosine(rate), momentum, nesterov=momentum > 0, weight_decay=decay)


def _beta_step(supernet, group):
    optimizer = Adam().build([supernet.beta[group]], 10, 100)
    return beta_step(supernet, [group], bridge_loss, optimizer, 8)


def _w_step(supernet, group, loss=bridge_loss):
    optimizer = _sgd().build(supernet.variables(group), 10, 100)
    return w_step(supernet, [group], loss, optimizer, 8)


def _everything(supernet):
    """All variables by owner, but for beta."""
    return {
        "teacher": values(supernet.teacher.variables),
        "w": values([v for model in supernet.models for v in model.variables]),
    }


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (bridge_loss, {"gamma_st": 1.0, "gamma_ts": 0.0}),
        (bridge_loss, {"gamma_st": 0.0, "gamma_ts": 1.0}),
        (student_loss, {"gamma_fd": 1.0}),
    ],
    ids=["ST", "TS", "student"],
)
def test_gradient_for_beta_equals_a_numerical_gradient(group, loss, weights):
    # Many examples, so that the kinks of the ReLUs average out of the difference quotient.
    made = made_examples(256, seed=5)
    images, labels = tf.constant(made.images), tf.constant(made.labels)
    supernet = _supernet(initial="random", **weights)
    beta = supernet.beta[group]
    idle = Adam(learning_rate=0.0).build([beta], 10, 100)
    measured = beta_step(supernet, [group], loss, idle, 256)(images, labels)
    start = beta.numpy()

    def at(values):
        beta.assign(values)
        aggregations = supernet.aggregations(supernet.teacher_features([group], images))
        values_of_loss, _ = loss(supernet, images, labels, aggregations)
        return np.mean(values_of_loss.numpy().astype(np.float64))

    steps = 0.003 * np.eye(3)
    numeric = [(at(start + step) - at(start - step)) / 0.006 for step in steps]
    scale = np.abs(numeric).max()
    np.testing.assert_allclose(measured["beta_loss_gradient"], numeric, atol=0.02 * scale)


@pytest.mark.parametrize("group", GROUPS)
def test_beta_step_changes_only_beta_of_its_group(group, batch):
    supernet = _supernet()
    before, betas = _everything(supernet), {g: b.numpy() for g, b in supernet.beta.items()}
    tf.function(_beta_step(supernet, group))(*batch)
    after = _everything(supernet)
    assert same(before["teacher"], after["teacher"])
    assert same(before["w"], after["w"])  # batch normalization's moving statistics among them
    for other, beta in supernet.beta.items():
        assert np.array_equal(beta.numpy(), betas[other]) == (other != group)


@pytest.mark.parametrize("group", GROUPS)
def test_w_step_leaves_beta_and_teacher_unchanged(group, batch):
    supernet = _supernet()
    before, betas = _everything(supernet), values(supernet.beta.values())
    tf.function(_w_step(supernet, group))(*batch)
    after = _everything(supernet)
    assert same(betas, values(supernet.beta.values()))
    assert same(before["teacher"], after["teacher"])  # its moving statistics among them
    assert not same(before["w"], after["w"])


def test_w_step_trains_all_weights_of_the_group(batch):
    supernet = _supernet()
    weights = supernet.variables("group2")
    before = values(weights)
    tf.function(_w_step(supernet, "group2"))(*batch)
    unchanged = [
        w.path for w, b in zip(weights, before, strict=True) if np.array_equal(w.numpy(), b)
    ]
    assert unchanged == []


def _changed_by_w_step(loss, batch, **weights):
    """The weights that a step of group 2 changes: a set of (model, path)."""
    supernet = _supernet(**weights)
    models = {
        "student": supernet.student,
        "st": supernet.st_connectors["group2"],
        "ts": supernet.ts_connectors["group2"],
    }
    before = {name: values(model.trainable_variables) for name, model in models.items()}
    tf.function(_w_step(supernet, "group2", loss))(*batch)
    return {
        (name, variable.path)
        for name, model in models.items()
        for variable, b in zip(model.trainable_variables, before[name], strict=True)
        if not np.array_equal(variable.numpy(), b)
    }


def test_ts_path_trains_only_later_groups(batch):
    """With gamma_ST = 0 nothing before the student's second group gets a gradient (Fig 3 b)."""
    changed = _changed_by_w_step(bridge_loss, batch, gamma_st=0.0)
    assert changed == {
        ("ts", "convolution/kernel"),
        *(("student", path) for path in _student_paths("group3", "norm/", "logits")),
    }


def test_st_path_trains_only_earlier_groups(batch):
    """With gamma_TS = 0 nothing after the student's second group gets a gradient (Fig 3 c)."""
    changed = _changed_by_w_step(bridge_loss, batch, gamma_st=1.0, gamma_ts=0.0)
    # S_2 is normalized by the third group's first normalization: a part of the path.
    path_to_feature = _student_paths("stem", "group1", "group2", "group3_block1_norm1")
    assert changed == {
        ("st", "convolution/kernel"),
        *(("student", path) for path in path_to_feature),
    }


def _student_paths(*prefixes):
    """Paths of the student's trainable variables that start with one of the prefixes."""
    paths = [v.path for v in small_network(depth=16, width=1).trainable_variables]
    return [path for path in paths if path.startswith(prefixes)]


def test_student_loss_is_cross_entropy_and_the_weighted_distance_of_one_group(batch):
    """Eqn 4 by NumPy: group 2 of 3 counts a half; both maps clipped at -1."""
    images, labels = batch
    supernet = _supernet(initial="random", gamma_fd=0.01)
    aggregations = supernet.aggregations(supernet.teacher_features(["group2"], images))
    loss, _ = student_loss(supernet, images, labels, aggregations)
    aggregation = aggregations["group2"].numpy()
    outputs = supernet.student(images, training=True)
    feature = np.maximum(outputs["features"]["group2"][-1].numpy(), -1)
    mapped = np.maximum(supernet.st_connectors["group2"](feature).numpy(), -1)
    logits = outputs["logits"].numpy()
    odds = np.exp(logits)
    ce = -np.log(odds[np.arange(8), labels] / odds.sum(1))
    fd = 0.5 * ((mapped - aggregation) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(loss, ce + 0.01 * fd, rtol=1e-4)


def test_normalized_connectors_have_maps_of_mean_0_and_variance_1(batch):
    supernet = _supernet(connector_normalization=True)
    for group, connector in supernet.st_connectors.items():
        for model in (connector, supernet.ts_connectors[group]):
            assert len(model.trainable_variables) == 3  # the kernel, gamma and beta
        feature = supernet.student(batch[0], training=True)["features"][group][-1]
        mapped = connector(feature, training=True).numpy()
        np.testing.assert_allclose(mapped.mean((0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(mapped.var((0, 1, 2)), 1, rtol=1e-2)
    assert all(len(c.variables) == 1 for c in _supernet().st_connectors.values())


def test_student_loss_trains_the_student_and_no_ts_connector(batch):
    changed = _changed_by_w_step(student_loss, batch)
    assert changed == {
        ("st", "convolution/kernel"),
        *(("student", path) for path in _student_paths("")),
    }


def _run_ops(function, *arguments):
    """Types of the operations that a call of a tf.function runs, nested functions included."""
    graph = function.get_concrete_function(*arguments).graph
    roots = [t.op for t in graph.outputs] + graph.get_operations()[-1].control_inputs
    roots += [op for op in graph.get_operations() if "Assign" in op.type]
    seen, waiting = {}, roots
    while waiting:
        op = waiting.pop()
        if op.name not in seen:
            seen[op.name] = op
            waiting += [t.op for t in op.inputs] + list(op.control_inputs)
    return list(seen.values())


@pytest.mark.parametrize("group", GROUPS)
def test_beta_step_computes_no_gradient_of_a_weight(group, batch):
    supernet = _supernet()
    ops = _run_ops(tf.function(_beta_step(supernet, group)), *batch)
    types = [op.type for op in ops]
    assert "Conv2DBackpropInput" in types  # through the student's tail
    assert "Conv2DBackpropFilter" not in types
    # Convolutions: the teacher's and the student's up to the group, the tail, two connectors.
    n = GROUPS.index(group) + 1
    teacher = 1 + 3 * 2 * n + n  # stem, three blocks of two, a shortcut each (width 2)
    student = 1 + 2 * 2 * n + (n - 1)
    tail = 2 * 2 * (3 - n) + (3 - n)
    assert types.count("Conv2D") == teacher + student + tail + 2


def test_w_step_sends_no_gradient_through_the_aggregation(batch):
    supernet = _supernet()
    ops = _run_ops(tf.function(_w_step(supernet, "group1")), *batch)
    types = [op.type for op in ops]
    # Weights with a gradient: the student's 14 convolutions, and two connectors.
    student_convolutions = 1 + 2 * 6 + 2
    assert types.count("Conv2DBackpropFilter") == student_convolutions + 2


def test_groups_with_one_feature_are_skipped():
    supernet = small_supernet(small_network(depth=10), small_network(depth=10))
    assert supernet.beta == {}
    assert supernet.models == [supernet.student]


def _run_replicated(strategy, images, labels, freeze, steps=3):
    """Losses, beta and w after a few iterations of group 2, the batch shared out."""
    with strategy.scope():
        supernet = _supernet()
        if freeze:
            freeze_statistics(supernet.student)
        beta_optimizer = Adam(learning_rate=0.05).build([supernet.beta["group2"]], 10, 100)
        w_optimizer = _sgd(0.1, momentum=0.9, decay=5e-4).build(
            supernet.variables("group2"), 10, 100
        )
    phases = [
        beta_step(supernet, ["group2"], bridge_loss, beta_optimizer, 8),
        w_step(supernet, ["group2"], bridge_loss, w_optimizer, 8),
    ]
    parts = shared_out(strategy, (images, labels))

    @tf.function
    def iterate(parts):
        measured = [strategy.run(phase, args=parts) for phase in phases]
        return [
            {k: strategy.reduce("SUM", v, axis=None) for k, v in each.items()} for each in measured
        ]

    measured = [iterate(parts) for _ in range(steps)]
    losses = [[float(m[0]["validation/bridge"]), float(m[1]["train/bridge"])] for m in measured]
    return losses, supernet.beta["group2"].numpy(), values(supernet.variables("group2"))


def test_two_replicas_equal_one_without_batch_statistics(one_replica, two_replicas, batch):
    one = _run_replicated(one_replica, *batch, freeze=True)
    two = _run_replicated(two_replicas, *batch, freeze=True)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-4)
    np.testing.assert_allclose(one[1], two[1], atol=2e-3)
    for a, b in zip(one[2], two[2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_two_replicas_report_the_mean_over_the_global_batch(one_replica, two_replicas, batch):
    """With batch statistics each half is normalized alone: the loss is the mean of the halves'."""
    images, labels = batch
    two = _run_replicated(two_replicas, images, labels, freeze=False, steps=1)[0][0][0]
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        supernet = _supernet()
        aggregations = supernet.aggregations(supernet.teacher_features(["group2"], images[part]))
        bridge, _ = bridge_loss(supernet, images[part], labels[part], aggregations)
        halves.append(float(tf.reduce_mean(bridge)))
    assert two == pytest.approx(np.mean(halves), rel=1e-4)


def test_bfloat16_steps_are_close_to_float32_steps(batch):
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        supernet = _supernet(precision=precision)
        measured = tf.function(_beta_step(supernet, "group2"))(*batch)
        assert supernet.beta["group2"].dtype == tf.float32
        assert {v.dtype for v in measured.values()} == {tf.float32}
        found[precision] = measured
    for name in ("validation/st", "validation/ts"):
        assert float(found["mixed_bfloat16"][name]) == pytest.approx(
            float(found["float32"][name]), rel=0.02
        )


@pytest.mark.parametrize("clip", [True, False])
def test_search_aggregates_features_clipped_at_minus_one(batch, clip):
    """§3.4: A_i of the clipped features, with that resolution switched on and off."""
    supernet = _supernet(initial="random", clip=clip)
    features = supernet.teacher_features(["group2"], batch[0])["group2"]
    beta = supernet.beta["group2"].numpy()
    maps = np.stack([feature.numpy() for feature in features])
    assert maps.min() < -1
    if clip:
        maps = np.where(maps < -1, -1, maps)
    expected = np.tensordot(np.exp(beta) / np.exp(beta).sum(), maps, 1)
    np.testing.assert_allclose(
        supernet.aggregation("group2", features), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("clip", [True, False])
def test_st_path_reads_the_clipped_last_feature_of_the_student(batch, clip):
    images, labels = batch
    supernet = _supernet(clip=clip)
    connector = {model.name: model for model in supernet.models}["group2_st"]
    draws = np.random.default_rng(0)
    aggregation = draws.normal(size=(8, *connector.output_shape[1:])).astype(np.float32)
    aggregations = {"group2": tf.constant(aggregation)}
    st = bridge_loss(supernet, images, labels, aggregations)[1]["st"]
    feature = supernet.student(images, training=True)["features"]["group2"][-1].numpy()
    assert feature.min() < -1
    if clip:
        feature = np.where(feature < -1, -1, feature)
    mapped = connector(feature).numpy()

    def unit(maps):
        flat = maps.reshape(8, -1).astype(np.float64)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    np.testing.assert_allclose(st, ((unit(mapped) - unit(aggregation)) ** 2).sum(1), rtol=1e-4)


def _ts_logits(supernet, images, aggregation):
    """The logits of the TS path, recovered from its cross entropies with every class."""
    columns = []
    for k in range(4):
        labels = tf.fill([8], k)
        _, parts = bridge_loss(supernet, images, labels, {"group2": aggregation})
        columns.append(-parts["ts"].numpy())
    return np.stack(columns, 1)  # log-probabilities


def test_ts_path_enters_the_student_at_tail_input(batch):
    images, _ = batch
    logits = {}
    for tail_input in ("stream", "feature"):
        supernet = _supernet(tail_input=tail_input)
        connector = {model.name: model for model in supernet.models}["group2_ts"]
        aggregation = supernet.teacher_features(["group2"], images)["group2"][0]
        logits[tail_input] = _ts_logits(supernet, images, aggregation)
        entering = connector(aggregation, training=True)
        if tail_input == "stream":
            # A feature is the stream as the next normalization gives it, and the third group's
            # first block, which changes the shape, sees nothing else.
            norm = supernet.student.get_layer("group3_block1_norm1")
            entering = norm(entering, training=True)
        expected = supernet.student.tail("group2", entering, training=True, tail_input="feature")
        np.testing.assert_allclose(
            logits[tail_input], tf.nn.log_softmax(expected), rtol=1e-3, atol=1e-4
        )
    assert not np.allclose(logits["stream"], logits["feature"], atol=1e-2)
