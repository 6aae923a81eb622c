"""A teacher from a file."""

import json

import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.errors import UserError
from dfa_tf.stages.checks import check_task
from dfa_tf.stages.teacher import adopt_teacher
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.loop import Diverged
from dfa_tf.training.tally import Tally
from tests.conftest import CLASSES, SHAPE, same, small_network


def test_adopted_teacher_is_copied_and_evaluated(run):
    network = small_network(depth=16, seed=4)
    adopted = adopt_teacher(network=network, test=run.test, workdir=run.workdir)
    assert same(adopted.get_weights(), network.get_weights())
    saved = models.load(run.workdir / "teacher" / "model.keras")
    assert same(saved.get_weights(), network.get_weights())
    metrics = json.loads((run.workdir / "teacher" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["test_examples"]) == (0, 37)
    with pytest.raises(UserError, match="input network"):
        adopt_teacher(network=small_network(seed=5), test=run.test, workdir=run.workdir)


def test_known_evaluation_of_an_adopted_teacher_is_reused(run, tmp_path):
    trained = run.train_teacher()
    path = run.workdir / "teacher" / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"last": {"accuracy": 0.123, "loss": 4.0}}))
    source = {"network": trained, "path": path.parent / "model.keras"}

    def adopted(workdir, **changes):
        adopt_teacher(**source | {"test": run.test} | changes, workdir=workdir)
        return json.loads((workdir / "teacher" / "metrics.json").read_text())["last"]["accuracy"]

    assert adopted(tmp_path / "same") == 0.123
    assert adopted(tmp_path / "other images", test=run.train) != 0.123
    assert adopted(tmp_path / "other weights", network=run.teacher) != 0.123


def test_damaged_teacher_is_named_and_kept(run):
    run.train_teacher()
    path = run.workdir / "teacher" / "model.keras"
    truncated = path.read_bytes()[:-5000]
    path.write_bytes(truncated)
    with pytest.raises(UserError, match=r"model\.keras.*--fresh"):
        run.train_teacher()
    assert path.read_bytes() == truncated


def test_teacher_with_weights_that_are_not_numbers_is_refused(run):
    network = small_network(depth=22, seed=1)
    weights = network.get_weights()
    weights[3][...] = np.nan
    network.set_weights(weights)
    for call in (run.search, run.distill):
        with pytest.raises(UserError, match=f"{network.name}.*NaN"):
            call(teacher=network)
    with pytest.raises(UserError, match=r"model\.keras.*NaN"):
        check_task(network, CLASSES, SHAPE, "model.keras")


def test_test_loss_that_is_not_a_number_is_reported_in_one_line(run, monkeypatch):
    """Batch statistics are finite, but the moving statistics of the evaluation are not."""
    diverged = Tally(CLASSES)
    diverged.add(np.full((1, CLASSES), np.nan), [0])
    monkeypatch.setattr(Evaluator, "__call__", lambda self, trained: diverged)
    for _ in range(2):  # also when it is resumed
        with pytest.raises(Diverged, match="test loss is nan at step 10"):
            run.distill(teacher=None, methods=[])
    assert not (run.workdir / "distill" / "student.keras").exists()


@pytest.mark.parametrize(
    ("classes", "shape", "difference"),
    [
        (CLASSES + 1, SHAPE, r"model\.keras.* 5 classes.* 4"),
        (CLASSES, (16, 16, 3), r"\(16, 16, 3\).*\(8, 8, 3\)"),
    ],
)
def test_teacher_of_another_task_is_an_error(classes, shape, difference):
    with pytest.raises(UserError, match=difference):
        check_task(small_network(), classes, shape, "model.keras")
