"""The three stages from Python: their files, their errors, and resumption."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfa_tf import models
from dfa_tf.alpha import Alpha, fixed, initial_beta
from dfa_tf.bilevel.dfa_search import SearchOptions
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods.connectors import check_same_groups
from dfa_tf.stages import folder as folders
from dfa_tf.stages.search_record import SearchRecord
from dfa_tf.training.loop import Diverged, Loop
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from dfa_tf.training.runtime import Runtime
from tests.conftest import CLASSES, made_examples, same, small_network
from tests.stages.conftest import Run, stop_at

METRICS = {
    "stage", "seed", "steps", "epochs", "train_examples", "test_examples", "last", "best",
    "seconds", "images_per_second", "parameters", "peak_memory_bytes", "versions", "device",
}  # fmt: skip


def _json(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("stage", ["teacher", "search", "distill"])
def test_stage_writes_the_files_of_the_contract(finished, stage):
    folder = finished.workdir / stage
    artifacts = {
        "teacher": ["model.keras"],
        "search": ["alpha.json", "alpha.png"],
        "distill": ["student.keras", "alpha.json"],
    }
    for name in (*artifacts[stage], "metrics.json", "config.gin", "checkpoints"):
        assert (folder / name).exists()
    assert list(folder.glob("events.out.tfevents.*"))
    metrics = _json(folder / "metrics.json")
    assert set(metrics) >= METRICS
    assert metrics["stage"] == stage
    assert not list(folder.glob(".*"))  # neither locks nor unfinished files


def test_metrics_count_all_test_examples_and_parameters(finished):
    metrics = _json(finished.workdir / "distill" / "metrics.json")
    assert metrics["steps"] == 10
    assert (metrics["train_examples"], metrics["test_examples"]) == (120, 37)
    assert metrics["parameters"] == sum(
        np.prod(v.shape) for v in finished.student.trainable_variables
    )
    logits = finished.student(finished.test.images, training=False)["logits"]
    accuracy = np.mean(np.argmax(logits, -1) == finished.test.labels)
    assert metrics["last"]["accuracy"] == pytest.approx(accuracy)
    assert metrics["best"] == {"accuracy": metrics["last"]["accuracy"], "step": 10}


def test_saved_student_is_the_returned_one_without_connectors(finished):
    saved = models.load(finished.workdir / "distill" / "student.keras")
    assert same(saved.get_weights(), finished.student.get_weights())
    assert saved.spec == small_network(depth=10, seed=3).spec
    assert len(saved.weights) == len(small_network(depth=10).weights)  # no connector


def test_alpha_file_holds_history_loss_gradient_and_decay(finished):
    alpha = Alpha.load(finished.workdir / "search" / "alpha.json")
    assert alpha == finished.alpha
    assert (alpha.dataset, alpha.teacher, alpha.student) == ("made", "WRN_22_1", "WRN_10_1")
    assert alpha.steps == 3 * 7  # 84 examples in batches of 12, three groups
    for group in alpha.groups:
        assert group.features == [f"{group.name}_block{j}" for j in (1, 2, 3)]
        odds = np.exp(np.array(group.beta, np.float32))
        np.testing.assert_allclose(group.alpha, odds / odds.sum(), rtol=1e-5)
        assert [step for step, _ in group.history] == [0, 4, 7]
        np.testing.assert_allclose(group.history[0][1], [0.005, 0.005, 0.99], rtol=1e-5)
        assert group.history[-1][1] == group.alpha
        # Softmax does not change with a common shift of beta: the gradient sums to 0.
        assert sum(group.mean_loss_gradient) == pytest.approx(0, abs=1e-6)
        assert np.any(np.array(group.mean_loss_gradient) != 0)
    # beta starts at (0, 0, ln 198): the decay on the last is lambda times about that at first.
    assert 0 < alpha.groups[0].mean_decay[-1] <= 1e-3 * np.log(198)


def test_distillation_records_the_weights_that_it_used(finished):
    used = Alpha.load(finished.workdir / "distill" / "alpha.json")
    for group, searched in zip(used.groups, finished.alpha.groups, strict=True):
        assert (group.name, group.alpha) == (searched.name, searched.alpha)
        assert not group.history


STILL = SGD(0.0, weight_decay=0.0)


def _with_other_examples(run, search):
    """The results of a search, with other training examples, and with other validation examples."""
    return [
        search(workdir=run.workdir / name, **changes)
        for name, changes in (
            ("same", {}),
            ("train", {"train": made_examples(len(run.train), 3)}),
            ("validation", {"validation": made_examples(len(run.validation), 4)}),
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"joint": True}])
def test_validation_examples_alone_train_beta(run, options):
    """With a constant student, of whose training alpha is independent."""
    search = functools.partial(run.search, options=SearchOptions(**options), optimizer=STILL)
    alpha, of_train, of_validation = (
        [group.alpha for group in result.groups] for result in _with_other_examples(run, search)
    )
    assert of_train == alpha
    assert of_validation != alpha


@pytest.mark.slow
def test_training_examples_alone_train_the_student_of_a_search(run, monkeypatch):
    """With constant beta: the loss of each training batch depends on the student before it."""
    losses, add = [], SearchRecord.add

    def added(record, groups, block):
        losses.extend(block.measurements["train/bridge"].tolist())
        add(record, groups, block)

    def search(**arguments):
        losses.clear()
        run.search(options=SearchOptions(joint=True), beta_optimizer=STILL, **arguments)
        return list(losses)

    monkeypatch.setattr(SearchRecord, "add", added)
    loss, of_train, of_validation = _with_other_examples(run, search)
    assert len(set(loss)) > 1
    assert of_validation == loss
    assert of_train != loss


@pytest.mark.slow
def test_stages_do_not_change_their_networks(run):
    teacher, student = run.teacher, small_network(depth=10, seed=2)
    before = teacher.get_weights(), student.get_weights()
    alpha = run.search(student=student)
    run.distill(student=student, alpha=alpha)
    assert same(before[0], teacher.get_weights())
    assert same(before[1], student.get_weights())


def test_finished_stage_does_not_run_again(finished, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("ran again")

    monkeypatch.setattr(Loop, "run", fail)
    assert same(finished.train_teacher().get_weights(), finished.trained.get_weights())
    assert finished.search() == finished.alpha
    again = finished.distill(alpha=finished.alpha)
    assert same(again.get_weights(), finished.student.get_weights())


def test_fresh_restarts_the_stage(run):
    run.distill(seed=1)
    with pytest.raises(UserError, match=r"distill\.seed.* 1, .* 2"):
        run.distill(seed=2)
    fresh = Runtime(quiet=True, log_every=4, evaluate_every=1e9, fresh=True)
    run.distill(seed=2, runtime=fresh)
    assert _json(run.workdir / "distill" / "metrics.json")["seed"] == 2


def test_other_config_is_an_error_that_names_the_differences(finished):
    with pytest.raises(
        UserError,
        match=r"(?=.*train_teacher\.epochs)(?=.*train_teacher\.batch_size)",
    ):
        finished.train_teacher(batch_size=6, epochs=2)
    with pytest.raises(UserError, match=r"search\.gamma_st.*0\.001.*0\.1") as caught:
        finished.search(options=SearchOptions(gamma_st=0.1))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="input teacher"):
        finished.search(teacher=small_network(depth=22, seed=8))


@pytest.mark.parametrize(
    "at", [5, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 8))]
)  # blocks of the three groups
def test_interrupted_search_resumes_to_the_same_alpha(finished, tmp_path, monkeypatch, at):
    run = Run(tmp_path)
    with monkeypatch.context() as patched:
        stop_at(patched, SearchRecord, "add", at)
        with pytest.raises(Interrupted):
            run.search()
    assert not (tmp_path / "search" / "alpha.json").exists()
    assert run.search() == finished.alpha
    straight = (finished.workdir / "search" / "alpha.json").read_bytes()
    assert (tmp_path / "search" / "alpha.json").read_bytes() == straight


@pytest.mark.slow
def test_interrupted_search_of_second_order_resumes_to_the_same_alpha(tmp_path, monkeypatch):
    arguments = {"options": SearchOptions(order=2), "beta_optimizer": Adam(0.1)}
    straight, run = (Run(tmp_path / name) for name in ("straight", "run"))
    alpha = straight.search(**arguments)
    with monkeypatch.context() as patched:
        stop_at(patched, SearchRecord, "add", 5)
        with pytest.raises(Interrupted):
            run.search(**arguments)
    assert run.search(**arguments) == alpha
    assert alpha != Run(tmp_path / "first").search(beta_optimizer=Adam(0.1))


def test_interrupted_distillation_resumes_to_the_same_student(finished, tmp_path, monkeypatch):
    run = Run(tmp_path)
    arguments = {"alpha": finished.alpha}
    with monkeypatch.context() as patched:
        stop_at(patched, Loop, "_record", 3)
        with pytest.raises(Interrupted):
            run.distill(**arguments)
    student = run.distill(**arguments)
    assert same(student.get_weights(), finished.student.get_weights())


@pytest.mark.slow
def test_divergence_before_the_first_checkpoint_allows_another_config(run):
    with pytest.raises(Diverged):
        run.train_teacher(optimizer=SGD(1e30))
    assert run.train_teacher(optimizer=SGD(0.05)).name
    assert len(list((run.workdir / "teacher").glob("events*"))) == 1
    with pytest.raises(UserError, match=r"optimizer"):
        run.train_teacher(optimizer=SGD(0.01))


def test_nan_loss_names_the_step_and_leaves_no_result(run):
    with pytest.raises(Diverged, match=r"train/loss .* step \d+"):
        run.distill(optimizer=SGD(Cosine(1e12)))
    assert not (run.workdir / "distill" / "student.keras").exists()


@pytest.mark.slow
def test_metrics_name_the_fixed_aggregation_of_the_student(run):
    for aggregation in ("last", "random", "none"):
        if aggregation == "none":
            arguments = {"teacher": None, "methods": []}
        else:
            arguments = {"alpha": fixed(aggregation, run.teacher)}
        student = run.distill(**arguments, workdir=run.workdir / aggregation)
        assert student.num_classes == CLASSES
        metrics = _json(run.workdir / aggregation / "distill" / "metrics.json")
        assert metrics["aggregation"] == aggregation


def test_alpha_of_another_teacher_is_an_error(finished, run):
    path = str(finished.workdir / "search" / "alpha.json")
    with pytest.raises(UserError, match=r"alpha\.json.* 2 .*group1.*WRN_16_1.* 3"):
        run.distill(teacher=small_network(depth=16), alpha=path)
    assert not (run.workdir / "distill").exists()


EVERY_STEP = Runtime(quiet=True, log_every=1, evaluate_every=1e9)


@pytest.mark.slow
def test_uniform_search_starts_with_equal_weights_and_ends_with_their_mean(run):
    """The mean is over the iterations, each with the alpha before its step."""
    options = SearchOptions(initial="uniform", final="mean")
    alpha = run.search(options=options, runtime=EVERY_STEP)
    for group in alpha.groups:
        weights = [weights for _, weights in group.history]
        np.testing.assert_allclose(weights[0], [1 / 3] * 3, rtol=1e-5)
        np.testing.assert_allclose(group.alpha, np.mean(weights[:-1], 0), rtol=1e-5)
        odds = np.exp(group.beta)
        np.testing.assert_allclose(odds / odds.sum(), group.alpha, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"joint": True}])
def test_recorded_gradients_are_those_that_moved_beta(run, options):
    """Seven steps of plain gradient descent move beta by the rate times the sum of gradients."""
    descent = SGD(0.5, momentum=0.0, nesterov=False, weight_decay=0.01)
    alpha = run.search(options=SearchOptions(**options), beta_optimizer=descent)
    for group in alpha.groups:
        moved = (initial_beta("last", 3) - group.beta) / (0.5 * 7)
        recorded = np.add(group.mean_loss_gradient, group.mean_decay)
        np.testing.assert_allclose(recorded, moved, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_learning_rate_of_each_group_has_a_schedule_of_its_own(run):
    """A cosine from .05 to 0 over the seven steps of each of the three groups."""
    run.search(runtime=EVERY_STEP)
    events = EventAccumulator(str(run.workdir / "search"), {"tensors": 0}).Reload()
    logged = events.Tensors("learning_rate/w")
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in logged]
    one_group = 0.025 * (1 + np.cos(np.pi * np.arange(1, 8) / 7))
    np.testing.assert_allclose(rates, np.tile(one_group, 3), atol=1e-6)


@pytest.mark.slow
def test_interrupted_float16_search_and_distillation_resume_to_the_same_student(
    tmp_path, monkeypatch
):
    """With overflows at the start, whose steps are not taken."""
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=2.0**36)
    monkeypatch.setattr("keras.optimizers.LossScaleOptimizer", scaled)
    straight, run = (Run(tmp_path / name) for name in ("straight", "stopped"))
    alpha = straight.search(precision="mixed_float16")
    student = straight.distill(alpha=alpha, precision="mixed_float16")
    for stage, target, name, arguments in (
        ("search", SearchRecord, "add", {}),
        ("distill", Loop, "_record", {"alpha": alpha}),
    ):
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            stop_at(patched, target, name, 3)
            getattr(run, stage)(precision="mixed_float16", **arguments)
        result = getattr(run, stage)(precision="mixed_float16", **arguments)
        if stage == "search":
            assert result == alpha
            assert all(np.isfinite(group.mean_loss_gradient).all() for group in alpha.groups)
        else:
            assert same(result.get_weights(), student.get_weights())


@pytest.mark.slow
def test_without_loss_gradient_the_decay_alone_moves_beta(run):
    """With both gammas 0, Adam follows the sign of lambda * beta; only the last beta is not 0."""
    alpha = run.search(options=SearchOptions(gamma_st=0.0, gamma_ts=0.0), beta_optimizer=Adam(0.1))
    for group in alpha.groups:
        assert group.beta[:2] == [0.0, 0.0]
        assert group.beta[2] == pytest.approx(np.log(198) - 7 * 0.1, abs=0.02)
        assert group.mean_loss_gradient == [0.0] * 3


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        (lambda: {"batch_size": 1000}, "batch_size"),
        (lambda: {"epochs": 0.01}, "epochs"),
        (lambda: {"epochs": 0}, "epochs"),
        (lambda: {"options": SearchOptions(initial="best")}, r"search\.initial"),
        (lambda: {"options": SearchOptions(final="first")}, r"search\.final"),
        (lambda: {"options": SearchOptions(loss="best")}, r"search\.loss"),
        (lambda: {"options": SearchOptions(order=3)}, r"search\.order"),
        (lambda: {"options": SearchOptions(order=2), "optimizer": Adam()}, r"search\.optimizer"),
        (lambda: {"options": SearchOptions(tail_input="x")}, r"search\.tail_input"),
    ],
)
def test_wrong_search_setting_is_named_and_nothing_is_written(run, changes, setting):
    with pytest.raises(UserError, match=setting):
        run.search(**changes())
    assert not (run.workdir / "search" / "alpha.json").exists()


def _network(image_shape=(8, 8, 3), classes=CLASSES):
    return models.wide_resnet(10, 1, classes, image_shape=image_shape)


@pytest.mark.parametrize(
    ("student", "difference"),
    [
        (lambda: _network(image_shape=(16, 16, 3)), r"\(8, 8, 3\).*\(16, 16, 3\)"),
        (lambda: _network(classes=7), r"\b4\b.*\b7\b"),
    ],
)
def test_teacher_and_student_of_different_tasks_are_an_error(run, student, difference):
    with pytest.raises(UserError, match=difference):
        run.search(student=student())
    with pytest.raises(UserError, match=difference):
        run.distill(student=student())


def test_groups_of_different_sizes_are_named(run):
    class Other:
        """A network with other groups, as far as `check_same_groups` looks at it."""

        def __init__(self, groups):
            teacher = run.teacher
            self.name, self.image_shape, self.num_classes = "other", teacher.image_shape, CLASSES
            self.group_names = tuple(groups)
            self.group = lambda name: type("Group", (), {"feature_shape": groups[name]})

    sizes = {"group1": (8, 8, 16), "group2": (4, 4, 32), "group3": (2, 2, 64)}
    check_same_groups(run.teacher, Other(sizes))
    with pytest.raises(UserError, match=r"8, 4, 2 and .*8, 4\b"):
        check_same_groups(run.teacher, Other({k: sizes[k] for k in ("group1", "group2")}))
    with pytest.raises(UserError, match=r"8, 4, 2 and .*8, 2, 2"):
        check_same_groups(run.teacher, Other(sizes | {"group2": (2, 2, 32)}))


def test_unwritable_workdir_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/distill"):
        run.distill(workdir=tmp_path / "file")


def test_workdir_of_another_process_is_named(run):
    folder = folders.StageFolder(run.workdir, "distill", "student.keras", {})
    again = folders.StageFolder(run.workdir, "distill", "student.keras", {})
    with folder.work(), pytest.raises(UserError, match=r"distill: .*process"), again.work():
        pass


@pytest.mark.parametrize("stage", ["train_teacher", "distill"])
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"image_shape": (16, 16, 3)}, r"\(16, 16, 3\).*\(8, 8, 3\)"),
        ({"classes": 3}, "3 classes"),
    ],
)
def test_network_that_does_not_fit_the_examples_is_an_error(run, stage, change, difference):
    plain = {} if stage == "train_teacher" else {"teacher": None, "methods": []}
    name = "network" if stage == "train_teacher" else "student"
    arguments = {name: _network(**change)} | plain
    with pytest.raises(UserError, match=difference):
        getattr(run, stage)(**arguments)
    assert not list(run.workdir.iterdir())


def test_alpha_may_be_the_path_of_a_file(finished, tmp_path):
    path = finished.workdir / "search" / "alpha.json"
    one = finished.distill(alpha=path, workdir=tmp_path / "one")
    assert same(one.get_weights(), finished.student.get_weights())


def test_missing_picture_is_drawn_again(finished):
    picture = finished.workdir / "search" / "alpha.png"
    before = picture.read_bytes()
    picture.unlink()
    finished.search()
    assert picture.read_bytes() == before


@pytest.mark.slow
def test_mixed_precision_runs_through_all_stages(run):
    precision = {"precision": "mixed_bfloat16"}
    alpha = run.search(**precision)
    student = run.distill(alpha=alpha, **precision)
    assert student.precision == "float32"
    assert {v.dtype for v in student.variables} == {"float32"}
    for group in alpha.groups:
        assert np.isfinite(group.beta).all()


@pytest.mark.slow
def test_two_replicas_run_search_and_distillation(run, two_replicas):
    runtime = Runtime(strategy=two_replicas, quiet=True, log_every=4, evaluate_every=1e9)
    alpha = run.search(runtime=runtime)
    student = run.distill(runtime=runtime, alpha=alpha)
    assert alpha.steps == 21
    assert _json(run.workdir / "distill" / "metrics.json")["test_examples"] == 37
    assert np.isfinite(student.get_weights()[0]).all()


@pytest.mark.slow
def test_interrupted_search_of_two_replicas_resumes_to_the_same_alpha(
    run, two_replicas, tmp_path, monkeypatch
):
    runtime = Runtime(strategy=two_replicas, quiet=True, log_every=4, evaluate_every=1e9)
    straight = run.search(runtime=runtime, workdir=tmp_path / "straight")
    with monkeypatch.context() as patched:
        stop_at(patched, SearchRecord, "add", 6)
        with pytest.raises(Interrupted):
            run.search(runtime=runtime)
    assert run.search(runtime=runtime) == straight
