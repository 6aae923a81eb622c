"""Distillation with learnt and scheduled weights, and with several teachers."""

import json

import numpy as np
import pytest

from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods.at import AT
from dfa_tf.methods.feed import FEED
from dfa_tf.methods.kd import KD
from dfa_tf.process import Process
from dfa_tf.stages.identity import fingerprint
from dfa_tf.training.loop import Loop
from dfa_tf.weightings import Adaptive, ProcessWeighting
from tests.conftest import same, small_network
from tests.stages.conftest import Run, stop_at

PATHS = [AT(form="code", beta=1.0), KD(alpha=1.0)]
ADAPTIVE = {"methods": PATHS, "weights": Adaptive(), "ce_weight": 1.0}


def _metrics(workdir):
    return json.loads((workdir / "distill" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("adapted"))
    run.student = run.distill(**ADAPTIVE)
    return run


def test_learnt_weights_are_recorded_as_a_process(adapted):
    process = Process.load(adapted.workdir / "distill" / "process.json")
    assert (process.paths, process.at, process.steps) == (["at", "kd"], list(range(10)), 10)
    np.testing.assert_allclose(process.weights[0], [1, 1], rtol=1e-6)
    assert (process.teacher, process.student) == ("WRN_22_1", "WRN_10_1")
    metrics = _metrics(adapted.workdir)
    assert metrics["weighting"] == "adaptive"
    assert metrics["weights"] == dict(zip(process.paths, process.weights[-1], strict=True))
    assert (adapted.workdir / "distill" / "process.png").exists()


def test_interrupted_run_with_learnt_weights_resumes_to_the_same_student(
    adapted, tmp_path, monkeypatch
):
    run = Run(tmp_path)
    with monkeypatch.context() as patched:
        stop_at(patched, Loop, "_record", 2)
        with pytest.raises(Interrupted):
            run.distill(**ADAPTIVE)
    assert same(run.distill(**ADAPTIVE).get_weights(), adapted.student.get_weights())
    files = [each / "distill" / "process.json" for each in (tmp_path, adapted.workdir)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_student_that_follows_recorded_weights_equals_that_of_the_recorded_run(adapted, run):
    process = Process.load(adapted.workdir / "distill" / "process.json")
    assert np.abs(np.log(process.weights[-1])).min() > 0.05  # they have moved
    weights = ProcessWeighting(process)
    replayed = run.distill(methods=PATHS, weights=weights, ce_weight=1.0)
    pairs = zip(replayed.get_weights(), adapted.student.get_weights(), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_constant_process_equals_constant_weights(run):
    """A process of 2 for AT and .5 for KD, against the numbers (2, .5)."""
    process = Process(["at", "kd"], [0], [[2.0, 0.5]], steps=1)
    common = {"methods": PATHS, "ce_weight": 1.0}
    students = [
        run.distill(**common, weights=weights, workdir=run.workdir / name)
        for name, weights in (("process", ProcessWeighting(process)), ("numbers", (2.0, 0.5)))
    ]
    for scheduled, constant in zip(*(s.get_weights() for s in students), strict=True):
        np.testing.assert_allclose(scheduled, constant, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_path_of_weight_zero_and_one_left_out_give_the_same_student(run):
    """Two epochs. KD's weight is below the threshold in the second, in which it is not computed."""
    process = Process(["at", "kd"], [0, 9, 10, 19], [[1.0, 1.0]] * 2 + [[1.0, 0.1]] * 2, steps=20)
    zero = Process(["at", "kd"], [0, 9, 10, 19], [[1.0, 1.0]] * 2 + [[1.0, 1e-30]] * 2, steps=20)
    students = []
    for name, weighting in (
        ("skipped", ProcessWeighting(process, threshold=0.5)),
        ("zero", ProcessWeighting(zero)),
    ):
        arguments = {"methods": PATHS, "weights": weighting, "ce_weight": 1.0, "epochs": 2}
        students.append(run.distill(**arguments, workdir=run.workdir / name))
    for skipped, computed in zip(*(s.get_weights() for s in students), strict=True):
        np.testing.assert_allclose(skipped, computed, rtol=1e-4, atol=1e-6)
    followed = Process.load(run.workdir / "skipped" / "distill" / "process.json")
    np.testing.assert_allclose(followed.weights, [[1, 1]] * 10 + [[1, 0]] * 10, rtol=1e-6)
    assert _metrics(run.workdir / "skipped")["weights"] == pytest.approx({"at": 1, "kd": 0})


@pytest.mark.slow
def test_steps_without_any_path_are_recorded_with_weight_zero(run):
    process = Process(["at", "kd"], [0, 9, 10, 19], [[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 2, steps=20)
    run.distill(methods=PATHS, weights=ProcessWeighting(process), epochs=2)
    followed = Process.load(run.workdir / "distill" / "process.json")
    np.testing.assert_allclose(followed.weights, [[1, 1]] * 10 + [[0, 0]] * 10, rtol=1e-6)


@pytest.mark.slow
def test_learnt_weights_in_bfloat16_are_close_to_float32(adapted, run):
    run.distill(**ADAPTIVE, precision="mixed_bfloat16")
    exact, rough = (
        Process.load(each / "distill" / "process.json").weights
        for each in (adapted.workdir, run.workdir)
    )
    assert np.abs(np.log(exact[-1])).min() > 0.05  # both have moved
    np.testing.assert_allclose(rough[-1], exact[-1], rtol=0.05)


@pytest.mark.slow
def test_interrupted_schedule_resumes_in_its_second_part(run, tmp_path, monkeypatch):
    process = Process(["at", "kd"], [0, 9, 10, 19], [[1.0, 1.0]] * 2 + [[1.0, 0.1]] * 2, steps=20)
    arguments = {
        "methods": PATHS,
        "weights": ProcessWeighting(process, threshold=0.5),
        "ce_weight": 1.0,
        "epochs": 2,
    }
    straight = run.distill(**arguments)
    again = Run(tmp_path / "again")
    with monkeypatch.context() as patched:
        stop_at(patched, Loop, "_record", 5)
        with pytest.raises(Interrupted):
            again.distill(**arguments)
    assert same(again.distill(**arguments).get_weights(), straight.get_weights())


def test_process_of_other_paths_is_an_error(run):
    process = Process(["at", "feed"], [0], [[1.0, 1.0]], steps=1)
    with pytest.raises(UserError, match=r"at, kd.*at, feed"):
        run.distill(methods=PATHS, weights=ProcessWeighting(process))


@pytest.mark.parametrize("weights", [Adaptive(), ProcessWeighting()])
def test_plain_training_with_a_weighting_is_an_error(run, weights):
    with pytest.raises(UserError, match=r"distill\.weights"):
        run.distill(teacher=None, methods=[], weights=weights)


def test_several_teachers_are_recorded_and_leave_no_layers_in_the_student(run):
    teachers = [run.teacher, small_network(depth=10, width=2, seed=6)]
    student = run.distill(teacher=teachers, methods=[FEED()], alpha=None)
    metrics = _metrics(run.workdir)
    assert metrics["teachers"] == [fingerprint(teacher) for teacher in teachers]
    assert metrics["teacher"] == "WRN_22_1 and WRN_10_2"
    assert len(student.weights) == len(small_network(depth=10).weights)
    probabilities = 0
    for teacher in teachers:
        logits = teacher(run.test.images, training=False)["logits"].numpy()
        odds = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = probabilities + odds / odds.sum(1, keepdims=True)
    answers = student(run.test.images, training=False)["logits"].numpy().argmax(1)
    assert metrics["agreement"] == pytest.approx(np.mean(answers == probabilities.argmax(1)))


def test_one_teacher_twice_is_an_error(run):
    with pytest.raises(UserError, match=r"teacher.*number 1 and 2"):
        run.distill(teacher=[run.teacher] * 2, methods=[FEED()], alpha=None)
