"""The search for a process as a stage: its files, its errors, and resumption."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from dfa_tf import data
from dfa_tf.bilevel.process_search import SearchProcessOptions
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods import DFA, KD, Pathways, ReviewKD
from dfa_tf.models import wide_resnet
from dfa_tf.process import Process
from dfa_tf.stages.folder import Record
from dfa_tf.stages.search_process import (
    ALPHA_OPTIMIZER,
    TRAINING,
    ProcessJournal,
    search_process,
)
from dfa_tf.training.loop import Loop
from dfa_tf.training.optimizers import SGD
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from tests.conftest import CLASSES, made_examples, same, small_network
from tests.stages.conftest import stop_at

METHODS = (KD(), ReviewKD())  # two paths compile faster than the pathways
QUIET = {"quiet": True, "log_every": 4}
PATHS = 2


def _search(workdir, **changes):
    train, validation = data.stratified_split(made_examples(120), 0.3, seed=0)
    arguments = {
        "teacher": small_network(depth=10, width=2, seed=1),
        "student": small_network(depth=10, seed=2),
        "train": train,
        "validation": validation,
        "workdir": workdir,
        "methods": METHODS,
        "training": Training(
            epochs=1.3,
            batch_size=12,
            augmentation=data.Augmentation(pad=1, flip=True),
            optimizer=SGD(0.05),
        ),
        "runtime": Runtime(**QUIET),
        "record": Record("made"),
    }
    return search_process(**arguments | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search: the workdir and the process."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, _search(workdir)


def test_search_writes_its_files(finished):
    workdir, process = finished
    folder = workdir / "process"
    for name in ("process.json", "process.png", "metrics.json", "config.gin", "checkpoints"):
        assert (folder / name).exists()
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.glob(".*"))  # neither locks nor unfinished files
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["stage"], metrics["steps"], metrics["validation_examples"]) == (
        "process",
        9,
        36,
    )
    assert metrics["method"] == "kd+reviewkd"
    assert set(metrics["weights"]) == set(metrics["alpha"]) == set(process.paths)
    assert metrics["alpha_range"] > 0
    assert metrics["last"]["loss"] > 0


def test_process_records_the_weights_from_the_first_to_the_last_step(finished):
    workdir, process = finished
    assert Process.load(workdir / "process" / "process.json") == process
    assert process.paths == ["kd", "reviewkd"]
    assert (process.steps, process.at) == (9, list(range(9)))
    assert (process.dataset, process.teacher, process.student) == ("made", "WRN_10_2", "WRN_10_1")
    assert process.normalization == "biased"
    np.testing.assert_allclose(process.weights[0], PATHS / (PATHS + 1), rtol=1e-6)
    np.testing.assert_array_equal(process.alpha[0], 1)
    for alpha, weights in zip(process.alpha, process.weights, strict=True):
        odds = np.exp(alpha)
        np.testing.assert_allclose(weights, PATHS * odds / (odds.sum() + np.e), rtol=1e-5)
    assert np.abs(np.array(process.alpha[-1]) - 1).max() > 0.1


def test_metrics_contain_the_moments_of_the_gradient_of_alpha(tmp_path):
    """Without momentum, each step moves alpha by -learning rate x gradient."""
    rate = 10.0
    sgd = SGD(rate, momentum=0.0, nesterov=False, weight_decay=0.0)
    process = _search(tmp_path, methods=(KD(),), alpha_optimizer=sgd)
    metrics = json.loads((tmp_path / "process" / "metrics.json").read_text())
    alpha = np.array([*(a for (a,) in process.alpha), metrics["alpha"]["kd"]])
    gradients = -np.diff(alpha) / rate
    assert len(gradients) == 9
    found = metrics["alpha_gradient"]["kd"]
    assert found["mean"] == pytest.approx(gradients.mean(), rel=1e-3)
    assert found["deviation"] == pytest.approx(gradients.std(), rel=1e-3)


def test_training_examples_train_the_student_and_validation_examples_alpha(tmp_path, monkeypatch):
    """With constant weights, other validation examples change the gradient of alpha alone."""
    measured, add = [], ProcessJournal.add

    def added(journal, block, steps):
        measured.append(block.measurements)
        add(journal, block, steps)

    monkeypatch.setattr(ProcessJournal, "add", added)
    still = SGD(0.0, weight_decay=0.0)
    found = []
    for name, changes in (("same", {}), ("other", {"validation": made_examples(36, 4)})):
        _search(tmp_path / name, methods=(KD(),), alpha_optimizer=still, **changes)
        found.append(
            {
                name: np.concatenate([each[name] for each in measured])
                for name in ("train/loss", "validation/cross_entropy", "alpha_gradient")
            }
        )
        measured.clear()
    one, other = found
    assert len(one["train/loss"]) == 9
    np.testing.assert_array_equal(other["train/loss"], one["train/loss"])
    assert np.all(other["validation/cross_entropy"] != one["validation/cross_entropy"])
    assert np.all(other["alpha_gradient"] != one["alpha_gradient"])


def test_process_does_not_depend_on_the_log_interval(finished, tmp_path):
    _, process = finished
    assert _search(tmp_path, runtime=Runtime(quiet=True, log_every=7)) == process


def test_replaced_process_is_refused(finished, tmp_path):
    workdir, process = finished
    shutil.copytree(workdir, tmp_path / "copy")
    other = dataclasses.replace(process, weights=[w[::-1] for w in process.weights])
    other.save(tmp_path / "copy" / "process" / "process.json")
    with pytest.raises(UserError, match=r"process\.json"):
        _search(tmp_path / "copy")


def test_finished_search_does_not_run_again_but_draws_a_missing_picture(finished, monkeypatch):
    workdir, process = finished
    picture = workdir / "process" / "process.png"
    before = picture.read_bytes()
    picture.unlink()

    def fail(*args, **kwargs):
        raise AssertionError("ran again")

    monkeypatch.setattr(Loop, "run", fail)
    assert _search(workdir) == process
    assert picture.read_bytes() == before


def test_other_settings_are_an_error(finished):
    workdir, _ = finished
    with pytest.raises(UserError, match=r"search_process\.normalization.*'biased'.*'plain'"):
        _search(workdir, options=SearchProcessOptions("plain"))
    with pytest.raises(UserError, match=r"search_process\.methods"):
        _search(workdir, methods=(KD(),))


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3])  # blocks
def test_interrupted_search_resumes_to_the_same_process(finished, tmp_path, monkeypatch, at):
    workdir, process = finished
    with monkeypatch.context() as patched:
        stop_at(patched, ProcessJournal, "add", at)
        with pytest.raises(Interrupted):
            _search(tmp_path)
    assert not (tmp_path / "process" / "process.json").exists()
    assert _search(tmp_path) == process
    files = [folder / "process" / "process.json" for folder in (workdir, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_search_does_not_change_its_networks(tmp_path):
    teacher, student = small_network(depth=10, width=2, seed=1), small_network(depth=10, seed=2)
    before = teacher.get_weights(), student.get_weights()
    process = _search(tmp_path, teacher=teacher, student=student, methods=(KD(),))
    assert same(before[0], teacher.get_weights())
    assert same(before[1], student.get_weights())
    assert process.paths == ["kd"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"methods": ()}, "methods"),
        ({"methods": (DFA(),)}, "dfa"),
        ({"student": wide_resnet(10, 1, CLASSES, image_shape=(16, 16, 3))}, "image shape"),
        ({"training": Training(batch_size=1000)}, "batch_size"),
    ],
)
def test_search_that_cannot_run_is_an_error_and_writes_nothing(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        _search(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_defaults_are_those_of_the_paper():
    assert (TRAINING.epochs, TRAINING.optimizer.learning_rate) == (40, 0.1)
    assert TRAINING.optimizer.nesterov
    adam = ALPHA_OPTIMIZER
    settings = (adam.learning_rate, adam.beta_1, adam.beta_2, adam.weight_decay)
    assert settings == (0.1, 0.5, 0.999, 0)


@pytest.mark.slow
def test_two_replicas_run_and_resume_to_the_same_process(two_replicas, tmp_path, monkeypatch):
    runtime = Runtime(strategy=two_replicas, **QUIET)
    changes = {"runtime": runtime, "methods": (Pathways("simple", stem=False),)}
    straight = _search(tmp_path / "straight", **changes)
    assert len(straight.paths) == 6
    assert np.isfinite(straight.alpha).all()
    with monkeypatch.context() as patched:
        stop_at(patched, ProcessJournal, "add", 3)
        with pytest.raises(Interrupted):
            _search(tmp_path / "resumed", **changes)
    assert _search(tmp_path / "resumed", **changes) == straight


@pytest.mark.slow
def test_mixed_precision_searches_all_pathways(tmp_path):
    training = Training(epochs=0.5, batch_size=12, precision="mixed_bfloat16", optimizer=SGD(0.05))
    process = _search(tmp_path, methods=(Pathways(),), training=training)
    assert len(process.paths) == 10
    assert np.isfinite(process.alpha).all()
    assert np.abs(np.array(process.alpha[-1]) - 1).min() > 0
