"""The metrics that a training writes to metrics.json and TensorBoard."""

import dataclasses
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfa_tf import data
from dfa_tf.stages import distill as stage
from dfa_tf.stages.evaluate import evaluate
from tests.stages.conftest import Run

METRICS = {"accuracy", "loss", "macro_accuracy", "calibration_error"}  # top-5 needs 6 classes


def _plain_run(workdir):
    """A run that trains a student plainly for 10 steps and evaluates it at steps 5 and 10."""
    run = Run(workdir)
    run.runtime = dataclasses.replace(run.runtime, evaluate_every=0.5)
    return run


def _train(run):
    run.distill(teacher=None, methods=[])
    return json.loads((run.workdir / "distill/metrics.json").read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run = _plain_run(tmp_path_factory.mktemp("straight"))
    run.metrics = _train(run)
    return run


def test_last_metrics_are_those_of_the_saved_student(straight):
    dataset = data.Dataset("made", straight.train, straight.test, tuple("abcd"), (0,), (1,))
    saved = evaluate(straight.workdir / "distill/student.keras", dataset).metrics
    assert set(straight.metrics["last"]) == METRICS
    assert straight.metrics["last"] == pytest.approx(saved, rel=1e-5)


def test_curve_and_best_hold_the_accuracy_alone(straight):
    assert [len(entry) for entry in straight.metrics["curve"]] == [3, 3]
    assert set(straight.metrics["best"]) == {"accuracy", "step"}
    _, *last = straight.metrics["curve"][-1]
    assert last == [straight.metrics["last"][name] for name in ("accuracy", "loss")]


def test_tensorboard_has_all_metrics_of_each_evaluation_and_the_last_confusion(straight):
    events = EventAccumulator(str(straight.workdir / "distill"), {"tensors": 0, "images": 0})
    events.Reload()
    for name in METRICS:
        assert [event.step for event in events.Tensors(f"test/{name}")] == [5, 10]
    (image,) = events.Tensors("test/confusion")
    assert image.step == 10


def _killed_before_it_wrote_metrics(workdir, monkeypatch):
    """A run whose last checkpoint contains its last evaluation."""

    def kill(*args, **kwargs):
        raise KeyboardInterrupt

    run = _plain_run(workdir)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "write_metrics", kill)
        with pytest.raises(KeyboardInterrupt):
            _train(run)
    return run


def test_run_killed_after_its_last_evaluation_has_the_metrics_of_a_straight_one(
    straight, tmp_path, monkeypatch
):
    resumed = _train(_killed_before_it_wrote_metrics(tmp_path, monkeypatch))
    for entry in ("last", "best", "curve"):
        assert resumed[entry] == straight.metrics[entry]
