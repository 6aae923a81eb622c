"""A stage never returns a result that other inputs made."""

import shutil

import keras
import numpy as np
import pytest

from dfa_tf import data, models
from dfa_tf.alpha import Alpha, permuted
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.stages.folder import StageFolder
from dfa_tf.stages.teacher import adopt_teacher
from dfa_tf.training.checkpoints import Checkpoints
from dfa_tf.training.loop import Loop
from dfa_tf.training.optimizers import SGD
from dfa_tf.training.runtime import Runtime
from tests.conftest import CLASSES, SHAPE, same, small_network
from tests.stages.conftest import Run, stop_at

PLAIN = {"teacher": None, "methods": []}


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished workdir, as a Run."""
    shutil.copytree(finished.workdir, tmp_path / "copied")
    return Run(tmp_path / "copied")


def _keras_model(activation):
    """A model whose weights do not depend on its activation."""
    images = keras.Input(SHAPE)
    x = images
    for k, (channels, strides) in enumerate(((6, 1), (8, 2), (8, 2))):
        draw = keras.initializers.RandomNormal(0.1, seed=k)
        arguments = {"kernel_initializer": draw, "padding": "same", "name": f"convolution{k}"}
        x = keras.layers.Conv2D(channels, 3, strides, **arguments)(x)
        x = keras.layers.Activation(activation, name=f"activation{k}")(x)
    draw = keras.initializers.RandomNormal(0.1, seed=9)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=draw, name="classes")(x)
    return models.from_keras(keras.Model(images, logits, name="own"))


def test_student_with_other_weights_is_another_input(finished):
    other = small_network(depth=10, seed=3)
    other.set_weights(small_network(depth=10, seed=4).get_weights())
    assert other.description == small_network(depth=10, seed=3).description
    with pytest.raises(UserError, match="input student"):
        finished.distill(alpha=finished.alpha, student=other)
    searched = small_network(depth=10, seed=2)
    searched.set_weights(other.get_weights())
    with pytest.raises(UserError, match="input student"):
        finished.search(student=searched)


def test_replaced_alpha_is_refused(copied):
    path = copied.workdir / "search" / "alpha.json"
    permuted(Alpha.load(path)).save(path)
    with pytest.raises(UserError, match=r"alpha\.json"):
        copied.search()


@pytest.mark.parametrize("stage", ["adopt", pytest.param("distill", marks=pytest.mark.slow)])
def test_teacher_with_another_activation_is_another_input(run, stage):
    relu, elu = _keras_model("relu"), _keras_model("elu")
    assert same(relu.get_weights(), elu.get_weights())

    def call(teacher):
        if stage == "adopt":
            return adopt_teacher(network=teacher, test=run.test, workdir=run.workdir)
        return run.distill(teacher=teacher)

    call(relu)
    with pytest.raises(UserError, match=r"input (teacher|network)"):
        call(elu)


@pytest.mark.parametrize(
    ("stage", "file"),
    [("train_teacher", "teacher/model.keras"), ("distill", "distill/student.keras")],
)
def test_replaced_network_file_is_named(copied, finished, stage, file):
    arguments = {"alpha": finished.alpha} if stage == "distill" else {}
    getattr(copied, stage)(**arguments)
    depth = 10 if stage == "distill" else 22
    small_network(depth=depth, seed=77).save(copied.workdir / file)
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        getattr(copied, stage)(**arguments)


def _interrupted(run, monkeypatch, **changes):
    with monkeypatch.context() as patched:
        stop_at(patched, Loop, "_record", 3)
        with pytest.raises(Interrupted):
            run.distill(**PLAIN, **changes)


def test_checkpoints_of_another_seed_are_refused(tmp_path, monkeypatch):
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    _interrupted(one, monkeypatch)
    _interrupted(two, monkeypatch, seed=5)
    shutil.rmtree(one.workdir / "distill/checkpoints")
    shutil.copytree(two.workdir / "distill/checkpoints", one.workdir / "distill/checkpoints")
    with pytest.raises(UserError, match=r"checkpoints .*distill\.seed"):
        one.distill(**PLAIN)


def test_missing_config_is_named_before_and_after_the_end(copied, tmp_path, monkeypatch):
    run = Run(tmp_path / "unfinished")
    _interrupted(run, monkeypatch)
    for folder, call in (
        (run.workdir / "distill", lambda: run.distill(**PLAIN, optimizer=SGD(0.01))),
        (copied.workdir / "search", lambda: copied.search(epochs=2)),
    ):
        (folder / "config.gin").unlink()
        with pytest.raises(UserError, match=r"config\.gin"):
            call()


def test_how_examples_are_held_matters_until_a_stage_is_finished(tmp_path):
    """Free memory may decide it differently in the next run."""

    def folder(held):
        inputs = {"train": f"9 examples 1a2b, dataset.in_memory={held}"}
        return StageFolder(tmp_path, "distill", "student.keras", {"distill.epochs": "1"}, inputs)

    with folder(True).work(Runtime(quiet=True)):
        checkpoints = folder(True).path / "checkpoints"
        checkpoints.mkdir()
        (checkpoints / "step-1.index").write_text("")
    with pytest.raises(UserError, match=r"bind dataset\.in_memory"):
        folder(False).is_finished()
    folder(True).artifact.write_text("")
    assert folder(False).is_finished()


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """An interrupted run whose checkpoints are in another folder, and the link to it."""
    run = Run(tmp_path / "run")
    _interrupted(run, monkeypatch)
    link = run.workdir / "distill/checkpoints"
    shutil.move(link, tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    return run, link


def test_fresh_empties_a_linked_checkpoint_folder_and_keeps_the_link(linked, monkeypatch):
    run, link = linked
    fresh = Runtime(quiet=True, fresh=True, evaluate_every=1e9)
    started = []
    monkeypatch.setattr(Checkpoints, "restore", lambda self: started.append(self._steps()))
    run.distill(**PLAIN, runtime=fresh)
    assert started == [[]]
    assert link.is_symlink()
    assert list(link.resolve().glob("*.index"))


def test_run_resumes_from_a_linked_checkpoint_folder(linked, monkeypatch):
    run, _ = linked
    started = []
    original = Checkpoints.restore
    monkeypatch.setattr(Checkpoints, "restore", lambda self: started.append(original(self)))
    run.distill(**PLAIN)
    assert started == [True]


def test_teacher_of_other_images_with_the_same_labels_is_another_input(run, tmp_path):
    run.train_teacher(workdir=tmp_path)
    darker = data.Examples(run.everything.images // 2, run.everything.labels)
    with pytest.raises(UserError, match=r"input train"):
        run.train_teacher(workdir=tmp_path, train=darker)


def test_seed_may_be_a_number_of_numpy(run, tmp_path):
    by_numpy = run.train_teacher(workdir=tmp_path, seed=np.int64(3))
    assert same(by_numpy.get_weights(), run.train_teacher(workdir=tmp_path, seed=3).get_weights())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"test": lambda examples: examples.select([])}, "empty"),
        ({"train": lambda examples: _labelled(examples, -1)}, "label -1"),
        ({"test": lambda examples: _labelled(examples, -1)}, "label -1"),
    ],
)
def test_unusable_examples_are_refused_before_the_training(run, tmp_path, changes, named):
    ((name, change),) = changes.items()
    with pytest.raises(UserError, match=named):
        run.train_teacher(workdir=tmp_path, **{name: change(getattr(run, name, run.everything))})
    assert not list(tmp_path.iterdir())


def _labelled(examples, label):
    labels = examples.labels.copy()
    labels[0] = label
    return data.Examples(examples.images, labels)
