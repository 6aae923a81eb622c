"""The three stages from Python: what they leave, what they refuse, that they go on."""

import json
import os
import signal

import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.alpha import Alpha
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.stages import folder as folders
from dfa_tf.stages.checks import check_same_groups
from dfa_tf.stages.search_record import SearchRecord
from dfa_tf.training import fit as fitting
from dfa_tf.training.loop import Diverged, Runtime
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from tests.conftest import CLASSES, same, small_network
from tests.stages.conftest import Run

METRICS = {
    "stage", "seed", "steps", "epochs", "train_examples", "test_examples", "last", "best",
    "seconds", "images_per_second", "parameters", "peak_memory_bytes", "versions", "device",
}  # fmt: skip


def _json(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("stage", ["teacher", "search", "distill"])
def test_stage_leaves_what_the_contract_says(finished, stage):
    folder = finished.workdir / stage
    artifacts = {
        "teacher": ["model.keras"],
        "search": ["alpha.json", "alpha.png"],
        "distill": ["student.keras"],
    }
    for name in (*artifacts[stage], "metrics.json", "config.gin", "checkpoints"):
        assert (folder / name).exists()
    assert list(folder.glob("events.out.tfevents.*"))
    metrics = _json(folder / "metrics.json")
    assert set(metrics) >= METRICS
    assert metrics["stage"] == stage
    assert not list(folder.glob(".*"))  # neither locks nor halves of files


def test_metrics_count_every_test_example_and_every_parameter(finished):
    metrics = _json(finished.workdir / "distill" / "metrics.json")
    assert metrics["steps"] == 10
    assert (metrics["train_examples"], metrics["test_examples"]) == (120, 37)
    assert metrics["parameters"] == sum(
        np.prod(v.shape) for v in finished.student.trainable_variables
    )
    logits = finished.student(finished.test.images, training=False)["logits"]
    right = np.mean(np.argmax(logits, -1) == finished.test.labels)
    assert metrics["last"]["accuracy"] == pytest.approx(right)
    assert metrics["best"] == {"accuracy": metrics["last"]["accuracy"], "step": 10}


def test_saved_student_is_the_one_returned_and_alone(finished):
    saved = models.load(finished.workdir / "distill" / "student.keras")
    assert same(saved.get_weights(), finished.student.get_weights())
    assert saved.spec == small_network(depth=10, seed=3).spec
    assert len(saved.weights) == len(small_network(depth=10).weights)  # no connector


def test_searched_alpha_is_recorded_with_its_history_and_both_forces(finished):
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
        # Softmax is blind to a common shift of beta: its gradient sums up to nothing.
        assert sum(group.mean_loss_gradient) == pytest.approx(0, abs=1e-6)
        assert np.any(np.array(group.mean_loss_gradient) != 0)
    # beta starts at (0, 0, ln 198): the decay on the last is lambda times about that at first.
    assert 0 < alpha.groups[0].mean_decay[-1] <= 1e-3 * np.log(198)


def test_stages_leave_their_networks_as_they_were(run):
    teacher, student = run.teacher, small_network(depth=10, seed=2)
    before = teacher.get_weights(), student.get_weights()
    alpha = run.search(student=student)
    run.distill(student=student, alpha=alpha)
    assert same(before[0], teacher.get_weights())
    assert same(before[1], student.get_weights())


def test_finished_stage_is_not_run_again(finished, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("ran again")

    monkeypatch.setattr(fitting.Loop, "run", fail)
    assert same(finished.train_teacher().get_weights(), finished.trained.get_weights())
    assert finished.search() == finished.alpha
    again = finished.distill(alpha=finished.alpha, aggregation="search")
    assert same(again.get_weights(), finished.student.get_weights())


def test_fresh_begins_anew(run):
    run.distill(seed=1)
    with pytest.raises(UserError, match="seed was 1, is 2"):
        run.distill(seed=2)
    fresh = Runtime(quiet=True, log_every=4, evaluate_every=1e9, fresh=True)
    run.distill(seed=2, runtime=fresh)
    assert _json(run.workdir / "distill" / "metrics.json")["seed"] == 2


def test_other_config_is_refused_with_the_differences(finished):
    with pytest.raises(
        UserError, match=r"batch_size was 12, is 6; train_teacher\.epochs was 1, is 2"
    ):
        finished.train_teacher(batch_size=6, epochs=2)
    with pytest.raises(UserError, match=r"search\.gamma_st was 0\.001, is 0\.1") as caught:
        finished.search(gamma_st=0.1)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"input teacher was WRN_22_1 \w+, is WRN_22_1 \w+"):
        finished.search(teacher=small_network(depth=22, seed=8))


def _stop_at(monkeypatch, target, name, count):
    """Sends SIGTERM to this process at the `count`-th call of a function."""
    original, calls = getattr(target, name), []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, stopping)


@pytest.mark.parametrize("at", [2, 9, 14])
def test_stopped_search_goes_on_to_the_same_alpha(finished, tmp_path, monkeypatch, at):
    run = Run(tmp_path)
    with monkeypatch.context() as patched:
        _stop_at(patched, SearchRecord, "step", at)
        with pytest.raises(Interrupted):
            run.search()
    assert not (tmp_path / "search" / "alpha.json").exists()
    assert run.search() == finished.alpha
    straight = (finished.workdir / "search" / "alpha.json").read_bytes()
    assert (tmp_path / "search" / "alpha.json").read_bytes() == straight


def test_stopped_distillation_goes_on_to_the_same_student(finished, tmp_path, monkeypatch):
    run = Run(tmp_path)
    arguments = {"alpha": finished.alpha, "aggregation": "search"}
    with monkeypatch.context() as patched:
        _stop_at(patched, fitting.Loop, "_add_to_means", 5)
        with pytest.raises(Interrupted):
            run.distill(**arguments)
    student = run.distill(**arguments)
    assert same(student.get_weights(), finished.student.get_weights())


def test_loss_that_is_no_number_names_the_step_and_leaves_no_result(run):
    with pytest.raises(Diverged, match=r"train/loss is nan at step \d+"):
        run.distill(optimizer=SGD(Cosine(1e12)))
    assert not (run.workdir / "distill" / "student.keras").exists()


def test_fixed_aggregations_and_plain_training(run):
    for aggregation in ("last", "random", "none"):
        teacher = None if aggregation == "none" else run.teacher
        student = run.distill(
            teacher=teacher, aggregation=aggregation, workdir=run.workdir / aggregation
        )
        assert student.num_classes == CLASSES
        metrics = _json(run.workdir / aggregation / "distill" / "metrics.json")
        assert metrics["aggregation"] == aggregation


def test_another_runs_alpha_file_is_taken(finished, run):
    path = str(finished.workdir / "search" / "alpha.json")
    student = run.distill(aggregation=path)
    assert same(student.get_weights(), finished.student.get_weights())


def test_alpha_of_another_teacher_is_refused(finished, run):
    path = str(finished.workdir / "search" / "alpha.json")
    with pytest.raises(
        UserError, match=r"alpha\.json has 3 weights for group1, where the teacher WRN_16_1 has 2"
    ):
        run.distill(teacher=small_network(depth=16), aggregation=path)
    assert not (run.workdir / "distill").exists()


def test_uniform_start_and_mean_alpha(run):
    alpha = run.search(initial="uniform", final="mean")
    for group in alpha.groups:
        np.testing.assert_allclose(group.history[0][1], [1 / 3] * 3, rtol=1e-5)
        assert group.alpha != group.history[-1][1]
        assert sum(group.alpha) == pytest.approx(1)


def test_without_loss_gradient_the_decay_alone_moves_beta(run):
    """gammas 0: Adam follows the sign of lambda * beta, and only the last beta is not 0."""
    alpha = run.search(gamma_st=0.0, gamma_ts=0.0, beta_optimizer=Adam(0.1), epochs=1)
    for group in alpha.groups:
        assert group.beta[:2] == [0.0, 0.0]
        assert group.beta[2] == pytest.approx(np.log(198) - 7 * 0.1, abs=0.02)
        assert group.mean_loss_gradient == [0.0] * 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 1000}, "a batch of 1000 is larger than the split"),
        ({"epochs": 0}, "make no batch"),
        ({"initial": "best"}, "beta starts from"),
        ({"final": "first"}, "search.final is"),
    ],
)
def test_search_refuses_what_it_cannot_do_and_writes_nothing(run, changes, told):
    with pytest.raises(UserError, match=told):
        run.search(**changes)
    assert not (run.workdir / "search" / "alpha.json").exists()


def _network(image_shape=(8, 8, 3), classes=CLASSES):
    return models.wide_resnet(10, 1, classes, image_shape=image_shape)


@pytest.mark.parametrize(
    ("student", "told"),
    [
        (lambda: _network(image_shape=(16, 16, 3)), "take images"),
        (lambda: _network(classes=7), "tell 4 and 7 classes"),
    ],
)
def test_teacher_and_student_of_other_tasks_are_refused(run, student, told):
    with pytest.raises(UserError, match=told):
        run.search(student=student())
    with pytest.raises(UserError, match=told):
        run.distill(student=student())


def test_groups_that_do_not_correspond_are_named(run):
    class Other:
        """What `check_same_groups` looks at, of a network of another layout."""

        def __init__(self, groups):
            teacher = run.teacher
            self.name, self.image_shape, self.num_classes = "other", teacher.image_shape, CLASSES
            self.group_names = tuple(groups)
            self.group = lambda name: type("Group", (), {"feature_shape": groups[name]})

    sizes = {"group1": (8, 8, 16), "group2": (4, 4, 32), "group3": (2, 2, 64)}
    check_same_groups(run.teacher, Other(sizes))
    with pytest.raises(UserError, match="of 8, 4, 2 and of 8, 4;"):
        check_same_groups(run.teacher, Other({k: sizes[k] for k in ("group1", "group2")}))
    with pytest.raises(UserError, match="of 8, 4, 2 and of 8, 2, 2;"):
        check_same_groups(run.teacher, Other(sizes | {"group2": (2, 2, 32)}))


def test_workdir_that_cannot_be_written_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run.distill(workdir=tmp_path / "file")


def test_workdir_that_another_process_works_in_is_told(run):
    folder = folders.StageFolder(run.workdir, "distill", "student.keras", {})
    again = folders.StageFolder(run.workdir, "distill", "student.keras", {})
    with folder.work(), pytest.raises(UserError, match="another process works in"), again.work():
        pass


@pytest.mark.parametrize("stage", ["train_teacher", "distill"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_shape": (16, 16, 3)}, r"takes images \(16, 16, 3\), the examples' are"),
        ({"classes": 3}, "tells 3 classes, the examples have labels up to 3: build it for 4"),
    ],
)
def test_network_that_does_not_fit_the_examples_is_told(run, stage, change, told):
    name, plain = (
        ("network", {}) if stage == "train_teacher" else ("student", {"aggregation": "none"})
    )
    arguments = {name: _network(**change)} | plain
    with pytest.raises(UserError, match=told):
        getattr(run, stage)(**arguments)
    assert not list(run.workdir.iterdir())


def test_alpha_may_be_the_path_of_a_file(finished, tmp_path):
    path = finished.workdir / "search" / "alpha.json"
    one = finished.distill(alpha=path, workdir=tmp_path / "one", aggregation="search")
    assert same(one.get_weights(), finished.student.get_weights())


def test_picture_that_was_removed_is_drawn_again(finished):
    picture = finished.workdir / "search" / "alpha.png"
    before = picture.read_bytes()
    picture.unlink()
    finished.search()
    assert picture.read_bytes() == before


def test_mixed_precision_runs_through_all_stages(run):
    precision = {"precision": "mixed_bfloat16"}
    alpha = run.search(**precision)
    student = run.distill(alpha=alpha, **precision)
    assert student.precision == "float32"
    assert {v.dtype for v in student.variables} == {"float32"}
    for group in alpha.groups:
        assert np.isfinite(group.beta).all()


def test_two_replicas_go_through_search_and_distillation(run, two_replicas):
    runtime = Runtime(strategy=two_replicas, quiet=True, log_every=4, evaluate_every=1e9)
    alpha = run.search(runtime=runtime)
    student = run.distill(runtime=runtime, alpha=alpha)
    assert alpha.steps == 21
    assert _json(run.workdir / "distill" / "metrics.json")["test_examples"] == 37
    assert np.isfinite(student.get_weights()[0]).all()


def test_two_replicas_stopped_and_resumed(run, two_replicas, tmp_path, monkeypatch):
    runtime = Runtime(strategy=two_replicas, quiet=True, log_every=4, evaluate_every=1e9)
    straight = run.search(runtime=runtime, workdir=tmp_path / "straight")
    with monkeypatch.context() as patched:
        _stop_at(patched, SearchRecord, "step", 9)
        with pytest.raises(Interrupted):
            run.search(runtime=runtime)
    assert run.search(runtime=runtime) == straight
