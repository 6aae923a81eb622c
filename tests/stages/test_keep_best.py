"""The student or teacher of the best evaluation, chosen on validation examples."""

import dataclasses
import json

import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.keep_best import BestNetwork
from dfa_tf.training.optimizers import SGD
from tests.conftest import same, small_network
from tests.stages.conftest import Run, stop_at

STAGES = {
    "train_teacher": ("teacher/model.keras", {"network": small_network(depth=10)}),
    "distill": ("distill/student.keras", {"teacher": None, "methods": []}),
}
ACCURACIES = {7: 0.5, 14: 0.9, 21: 0.9}  # by step: 84 examples in batches of 12, 3 epochs


@pytest.fixture
def given_accuracies(monkeypatch):
    """Makes the validation accuracies of a run of 3 epochs those of ACCURACIES."""
    evaluate, count = Evaluator.__call__, []

    def evaluate_as_given(self, trained):
        tally = evaluate(self, trained)
        if len(self._examples) == 36:  # the validation examples
            count.append(1)
            accuracy = list(ACCURACIES.values())[(len(count) - 1) % 3]
            metrics = tally.metrics() | {"accuracy": accuracy}
            tally.metrics = lambda: metrics
        return tally

    monkeypatch.setattr(Evaluator, "__call__", evaluate_as_given)


def _train(
    folder, stage="distill", epochs=3, keep="best", evaluate_every=1.0, strategy=None, **changes
):
    """Trains at a constant rate, so that a shorter run is the start of a longer one."""
    run = Run(folder)
    validation = {"validation": run.validation} if keep == "best" else {}
    return getattr(run, stage)(
        **STAGES[stage][1],
        train=run.train,
        epochs=epochs,
        optimizer=SGD(0.05),
        keep=keep,
        runtime=dataclasses.replace(run.runtime, evaluate_every=evaluate_every, strategy=strategy),
        **validation | changes,
    )


def _metrics(folder, stage="distill"):
    return json.loads((folder / STAGES[stage][0]).with_name("metrics.json").read_text())


def _accuracy(network, examples):
    logits = network(examples.images, training=False)["logits"]
    return np.mean(np.argmax(logits, -1) == examples.labels)


@pytest.mark.parametrize(
    "stage", ["distill", pytest.param("train_teacher", marks=pytest.mark.slow)]
)
def test_best_network_is_that_of_a_run_that_ends_there(tmp_path, given_accuracies, stage):
    best = _train(tmp_path / "best", stage)
    shorter = _train(tmp_path / "shorter", stage, epochs=2, keep="last")
    assert same(best.get_weights(), shorter.get_weights())
    saved = models.load(tmp_path / "best" / STAGES[stage][0])
    assert same(saved.get_weights(), best.get_weights())
    metrics = _metrics(tmp_path / "best", stage)
    assert metrics["evaluated_on"] == "validation"
    assert [[step, accuracy] for step, accuracy, _ in metrics["curve"]] == [
        [step, accuracy] for step, accuracy in ACCURACIES.items()
    ]
    assert metrics["best"] == {"accuracy": 0.9, "step": 14}
    assert (metrics["kept_step"], metrics["steps"]) == (14, 21)
    assert metrics["last"]["accuracy"] == pytest.approx(_accuracy(best, Run(tmp_path).test))
    other = _metrics(tmp_path / "shorter", stage)
    assert (other["evaluated_on"], other["kept_step"]) == ("test", 14)
    assert metrics["last"] == other["last"]


def test_evaluations_during_the_training_are_of_validation_examples(tmp_path):
    student = _train(tmp_path)
    metrics, run = _metrics(tmp_path), Run(tmp_path)
    assert metrics["best"]["accuracy"] == pytest.approx(_accuracy(student, run.validation))
    assert (metrics["train_examples"], metrics["test_examples"]) == (84, 37)


@pytest.mark.parametrize("at", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_interrupted_run_keeps_the_same_student(tmp_path, monkeypatch, given_accuracies, at):
    """It is interrupted at the best evaluation, or after it."""
    straight = _train(tmp_path / "straight")
    with monkeypatch.context() as patched:
        stop_at(patched, BestNetwork, "update", at)
        with pytest.raises(Interrupted):
            _train(tmp_path / "killed")
    assert not (tmp_path / "killed/distill/student.keras").exists()
    resumed = _train(tmp_path / "killed")
    assert same(resumed.get_weights(), straight.get_weights())
    first, second = _metrics(tmp_path / "straight"), _metrics(tmp_path / "killed")
    for entry in ("curve", "best", "last", "kept_step"):
        assert first[entry] == second[entry]


@pytest.mark.slow
def test_interrupted_run_of_two_replicas_keeps_the_same_student(
    tmp_path, monkeypatch, given_accuracies, two_replicas
):
    straight = _train(tmp_path / "straight", strategy=two_replicas)
    with monkeypatch.context() as patched:
        stop_at(patched, BestNetwork, "update", 3)
        with pytest.raises(Interrupted):
            _train(tmp_path / "killed", strategy=two_replicas)
    resumed = _train(tmp_path / "killed", strategy=two_replicas)
    assert same(resumed.get_weights(), straight.get_weights())
    assert _metrics(tmp_path / "killed")["kept_step"] == 14


def test_what_determines_the_best_student_is_recorded(tmp_path):
    _train(tmp_path, epochs=1)
    with pytest.raises(UserError, match=r"runtime\.evaluate_every"):
        _train(tmp_path, epochs=1, evaluate_every=0.5)
    with pytest.raises(UserError, match=r"distill\.keep"):
        _train(tmp_path, epochs=1, keep="last")
    other = Run(tmp_path).validation.select(range(20))
    with pytest.raises(UserError, match=r"input validation"):
        _train(tmp_path, epochs=1, validation=other)


@pytest.mark.parametrize("stage", STAGES)
def test_best_network_needs_validation_examples(run, stage):
    with pytest.raises(UserError, match=rf"{stage}\.keep"):
        getattr(run, stage)(**STAGES[stage][1], keep="best")
    assert not list(run.workdir.iterdir())
