"""Distillation methods through the whole stage: what is saved, and going on after a kill."""

import json

import numpy as np
import pytest

from dfa_tf import methods, models
from dfa_tf.alpha import fixed
from dfa_tf.errors import UserError
from dfa_tf.methods.ab import AB
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.methods.ft import FT
from dfa_tf.methods.kd import KD
from dfa_tf.methods.margin import Margin
from dfa_tf.methods.objective import student_objective
from dfa_tf.methods.vid import VID
from dfa_tf.training.loop import Loop, Runtime
from tests.conftest import same, small_network, values

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
def test_student_is_saved_alone_and_the_teacher_left_as_it_was(run, name):
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


def test_several_methods_are_one_loss(run):
    chosen = [DFA(), KD(), VID()]
    run.distill(teacher=small_network(**TEACHER), methods=chosen, weights=[1, 0.5, 0.1], epochs=0.5)
    metrics = _metrics(run)
    assert (metrics["method"], metrics["aggregation"]) == ("dfa+kd+vid", "average")


class _Killed(Exception):
    pass


@pytest.mark.parametrize("at", [3, 12, 23])  # in the first pretraining, the second, the training
def test_resumed_run_through_pretrainings_equals_a_straight_one(run, tmp_path, monkeypatch, at):
    """Ten steps each of FT's and FitNets' first stages and of the training."""
    chosen = {
        "teacher": small_network(**TEACHER),
        "methods": [FT(paraphraser_epochs=1.0), FitNets(hint_epochs=1.0)],
        "runtime": Runtime(quiet=True, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.0),
    }
    straight = run.distill(**chosen)

    taken = {"steps": 0}
    take_in = Loop._take_in

    def counted(self, measured, on_step):
        taken["steps"] += len(next(iter(measured.values())))
        if taken["steps"] > at:
            raise _Killed
        take_in(self, measured, on_step)

    monkeypatch.setattr(Loop, "_take_in", counted)
    with pytest.raises(_Killed):
        run.distill(**chosen, workdir=tmp_path / "killed")
    monkeypatch.undo()
    resumed = run.distill(**chosen, workdir=tmp_path / "killed")
    assert same(straight.get_weights(), resumed.get_weights())


def test_terms_of_one_name_are_logged_apart(batch):
    teacher, student = small_network(**TEACHER), small_network(depth=10, seed=3)
    made = [m.build(teacher, student, 0, "float32") for m in (FitNets(), KD())]
    _, _, measured = student_objective(teacher, student, made, [1, 1], ())(*batch)
    assert set(measured) == {"cross_entropy", "kd", "kd_2"}


def test_pretraining_is_told_in_the_metrics(run):
    run.distill(teacher=small_network(**TEACHER), methods=[AB(epochs=0.5)], epochs=0.5)
    (phase,) = _metrics(run)["pretraining"]
    assert (phase["method"], phase["steps"], phase["epochs"]) == ("ab", 5, 0.5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"methods": [KD(), KD()]}, "kd.kd: each at most once"),
        ({"methods": [KD(), DFA()], "weights": [1.0]}, "1 numbers for 2 methods"),
        ({"methods": [KD()], "aggregation": "none"}, "is plain training, without kd"),
        ({"methods": []}, "distill.methods is empty"),
        ({"methods": ["kd"]}, "lists methods"),
        ({"methods": [KD]}, "lists methods"),
        ({"methods": KD()}, "is a list"),
        ({"methods": [KD()], "weights": 0.5}, "is a list of numbers"),
        ({"methods": [KD()], "weights": ["1"]}, "is a list of numbers"),
        ({"methods": [KD()], "teacher": None}, "kd needs a teacher"),
    ],
)
def test_methods_that_do_not_go_together_are_told(run, changes, told):
    with pytest.raises(UserError, match=told):
        run.distill(**changes)
    assert not (run.workdir / "distill").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: FitNets(form="both"), "'paper' or 'joint'"),
        (lambda: FT(p=3), "is 1 or 2"),
        (lambda: DFA(distance="cosine"), "partial or clipped"),
        (lambda: AB(epochs=0), "ab.epochs is a number above 0, not 0"),
        (lambda: KD(temperature="hot"), "kd.temperature is a number above 0"),
    ],
)
def test_settings_that_are_none_are_told(wrong, told):
    with pytest.raises(UserError, match=told):
        wrong()


def test_alpha_may_be_given_in_the_method_but_not_twice(run):
    teacher = small_network(**TEACHER)
    last = fixed("last", teacher)
    given = {"teacher": teacher, "methods": [DFA(last)], "epochs": 0.5}
    with pytest.raises(UserError, match="given twice"):
        run.distill(**given)  # beside aggregation="average"
    by_method = run.distill(**given, aggregation="search")
    by_name = run.distill(
        **given | {"methods": [DFA()]}, aggregation="last", workdir=run.workdir / "other"
    )
    assert same(by_method.get_weights(), by_name.get_weights())


def test_pair_that_a_method_refuses_leaves_nothing_behind(run):
    raw = small_network(**TEACHER, features="raw")
    with pytest.raises(UserError, match="take normalized features"):
        run.distill(teacher=raw, methods=[Margin()])
    assert not (run.workdir / "distill").exists()
