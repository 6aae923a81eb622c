"""Distillation methods in the stage: what is saved, and resumption after a kill."""

import json

import numpy as np
import pytest

from dfa_tf import methods, models
from dfa_tf.errors import UserError
from dfa_tf.methods.ab import AB
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.methods.ft import FT
from dfa_tf.methods.kd import KD
from dfa_tf.methods.vid import VID
from dfa_tf.objectives.objective import student_objective
from dfa_tf.training.loop import Loop
from dfa_tf.training.runtime import Runtime
from tests.conftest import same, small_network, values
from tests.methods.networks import plain_network

TEACHER = {"depth": 16, "width": 2, "seed": 1}


def _metrics(run):
    return json.loads((run.workdir / "distill" / "metrics.json").read_text())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("ft", "vid") else pytest.mark.slow)
        for name in methods.METHODS
    ],
)
def test_student_is_saved_alone_and_the_teacher_is_unchanged(run, name):
    teacher = small_network(**TEACHER)
    before = values(teacher.variables)
    student = run.distill(teacher=teacher, methods=[methods.METHODS[name]()], epochs=0.5)
    assert same(before, values(teacher.variables))
    saved = models.load(run.workdir / "distill" / "student.keras")
    assert same(saved.get_weights(), student.get_weights())
    assert saved.count_params() == small_network(depth=10, seed=3).count_params()
    assert not same(saved.get_weights(), small_network(depth=10, seed=3).get_weights())
    metrics = _metrics(run)
    assert metrics["method"] == name
    assert all(np.isfinite(weight).all() for weight in student.get_weights())


def test_several_methods_share_one_loss(run):
    chosen = [DFA(), KD(), VID()]
    run.distill(teacher=small_network(**TEACHER), methods=chosen, weights=[1, 0.5, 0.1], epochs=0.5)
    metrics = _metrics(run)
    assert (metrics["method"], metrics["aggregation"]) == ("dfa+kd+vid", "average")


class _Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 12, 23])  # in the first pretraining, the second, the training
def test_run_resumed_during_pretraining_equals_a_straight_one(run, tmp_path, monkeypatch, at):
    """Ten steps each of FT's and FitNets' first stages and of the training."""
    chosen = {
        "teacher": small_network(**TEACHER),
        "methods": [FT(paraphraser_epochs=1.0), FitNets(hint_epochs=1.0)],
        "runtime": Runtime(quiet=True, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.0),
    }
    straight = run.distill(**chosen)

    steps = 0
    record = Loop._record

    def counted(self, measurements):
        nonlocal steps
        steps += len(next(iter(measurements.values())))
        if steps > at:
            raise _Killed
        record(self, measurements)

    monkeypatch.setattr(Loop, "_record", counted)
    with pytest.raises(_Killed):
        run.distill(**chosen, workdir=tmp_path / "killed")
    monkeypatch.undo()
    resumed = run.distill(**chosen, workdir=tmp_path / "killed")
    assert same(straight.get_weights(), resumed.get_weights())


def test_equal_names_of_terms_are_numbered(batch):
    teacher, student = small_network(**TEACHER), small_network(depth=10, seed=3)
    made = [m.build(teacher, student, 0, "float32") for m in (FitNets(), KD())]
    _, _, measured = student_objective(teacher, student, made, [1, 1], ())(*batch)
    assert set(measured) == {"cross_entropy", "kd", "kd_2"}


def test_metrics_include_the_pretraining(run):
    run.distill(teacher=small_network(**TEACHER), methods=[AB(epochs=0.5)], epochs=0.5)
    (phase,) = _metrics(run)["pretraining"]
    assert (phase["method"], phase["steps"], phase["epochs"]) == ("ab", 5, 0.5)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"methods": [KD(), KD()]}, r"distill\.methods"),
        ({"methods": [KD(), DFA()], "weights": [1.0]}, r"distill\.weights"),
        ({"methods": ["kd"]}, r"distill\.methods"),
        ({"methods": [KD]}, r"distill\.methods"),
        ({"methods": KD()}, r"distill\.methods"),
        ({"methods": [KD()], "weights": 0.5}, r"distill\.weights"),
        ({"methods": [KD()], "weights": ["1"]}, r"distill\.weights"),
        ({"methods": [KD()], "weights": [-1.0]}, r"distill\.weights"),
        ({"methods": [KD()], "ce_weight": "1"}, r"distill\.ce_weight"),
        ({"methods": [KD()], "teacher": None}, "teacher"),
        ({"methods": [DFA()], "alpha": None}, "alpha"),
    ],
)
def test_wrong_methods_are_named(run, changes, setting):
    with pytest.raises(UserError, match=setting):
        run.distill(**changes)
    assert not (run.workdir / "distill").exists()


@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        (lambda: FitNets(form="both"), r"fitnets\.form"),
        (lambda: FT(p=3), r"ft\.p"),
        (lambda: DFA(distance="cosine"), r"dfa\.distance"),
        (lambda: AB(epochs=0), r"ab\.epochs"),
        (lambda: KD(temperature="hot"), r"kd\.temperature"),
    ],
)
def test_wrong_setting_of_a_method_is_named(wrong, setting):
    with pytest.raises(UserError, match=setting):
        wrong()


def test_refused_pair_leaves_no_files(run):
    teacher = plain_network(seed=1)  # of two groups; the student has three
    with pytest.raises(UserError, match="group"):
        run.distill(teacher=teacher, methods=[DFA()])
    assert not (run.workdir / "distill").exists()
