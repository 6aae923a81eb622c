"""Cached logits: the student, the files, interruptions and errors."""

import dataclasses
import functools
import json
import shutil
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.data.pipeline import training_batches
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods.at import AT
from dfa_tf.methods.dist import DIST
from dfa_tf.methods.dkd import DKD
from dfa_tf.methods.ensemble_kd import EnsembleKD
from dfa_tf.methods.kd import KD
from dfa_tf.objectives.objective import student_objective
from dfa_tf.objectives.targets import Targets
from dfa_tf.objectives.teachers import build_method
from dfa_tf.seeds import derived_seed
from dfa_tf.training import fit as fitting
from dfa_tf.training import teacher_logits
from dfa_tf.training.loop import Loop
from dfa_tf.training.runtime import Runtime
from tests.conftest import made_examples, same, small_network
from tests.stages.conftest import Run

# 120 examples in batches of 12: a view is 10 steps, and the runs have 3 epochs.
VIEW, BATCH, CLASSES = 10, 12, 4
TEACHER, SECOND = {"depth": 10, "width": 2, "seed": 1}, {"depth": 10, "width": 1, "seed": 8}


class _Killed(Exception):
    pass


def _distill(folder, views=1, **changes):
    teacher = small_network(**TEACHER)
    arguments = {"teacher": teacher, "methods": [KD()], "epochs": 3, "test": None, "alpha": None}
    return Run(folder).distill(teacher_views=views, **arguments | changes)


def _logits(folder):
    return np.load(folder / "teacher_views" / "logits.npy")


def _record(folder):
    return json.loads((folder / "teacher_views" / "record.json").read_text())


def _batches(run, steps, augmentation=None):
    """The first batches of the run, as arrays, drawn without repetition."""
    training = dataclasses.replace(run.training, epochs=3)
    seed = derived_seed(training.seed, "distill/data")
    arguments = training.batch_size, augmentation or training.augmentation, seed
    batches = training_batches(run.everything, *arguments).take(steps)
    return list(batches.as_numpy_iterator())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """(folder, student) of a run without interruptions."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, _distill(folder)


def _with_the_teacher_in_the_loop(
    folder, monkeypatch, method, teachers, precision, mixup, batch_size=BATCH, view=VIEW
):
    """Trains on the list of the first batches, over and over; rounds the logits in each step."""
    run = Run(folder)
    run.training = dataclasses.replace(run.training, batch_size=batch_size)
    images, labels = (np.stack(arrays) for arrays in zip(*_batches(run, view), strict=True))
    stored = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
    student = small_network(depth=10, seed=3).copy(precision)
    frozen = [teacher.folded(precision) for teacher in teachers]
    distillations = build_method(method, teachers, student, 0, precision)
    arguments = Targets(mixup=mixup).arguments(run.everything.labels, CLASSES, 0)
    mix = arguments["targets"]

    def objective(images, labels, step, training=True):
        step %= view
        mixed = mix(images, labels, step)[0] if mix else images
        logits = [each(mixed, training=False)["logits"] for each in frozen]
        rounded = tf.stop_gradient(tf.cast(tf.stack(logits, 1), tf.float16))
        inner = student_objective([], student, distillations, [1.0], **arguments)
        return inner(images, labels, step, training, teacher_logits=rounded)

    problem = fitting.Problem(student, objective, [student], student.trainable_variables)
    training = dataclasses.replace(run.training, epochs=3, precision=precision)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "drawn_batches", lambda *_, **__: stored)
        trained, _ = fitting.fit(
            problem, run.everything, None, training,
            label="distill", folder=folder, runtime=run.runtime,
        )  # fmt: skip
    return trained


def test_student_equals_that_of_a_teacher_in_the_loop(tmp_path, monkeypatch, straight):
    """To the bit, on the same repeated batches and with logits that are rounded to float16."""
    what = KD(), [small_network(**TEACHER)], "float32", 0.0
    expected = _with_the_teacher_in_the_loop(tmp_path, monkeypatch, *what)
    assert same(straight[1].get_weights(), expected.get_weights())


@pytest.mark.slow
def test_view_ends_with_its_last_full_batch(tmp_path, monkeypatch):
    """120 images have 7.5 batches of 16: the batches repeat after 7 steps."""
    what = KD(), [small_network(**TEACHER)], "float32", 0.0, 16, 7
    expected = _with_the_teacher_in_the_loop(tmp_path / "loop", monkeypatch, *what)
    found = _distill(tmp_path / "views", batch_size=16)
    assert same(found.get_weights(), expected.get_weights())
    assert _logits(tmp_path / "views").shape == (7, 16, 1, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "count", "precision", "mixup"),
    [
        (KD(), 1, "mixed_bfloat16", 0.0),
        (KD(standardize=True), 2, "float32", 0.5),
        (EnsembleKD(), 2, "float32", 0.0),
        (DIST(), 1, "mixed_bfloat16", 0.5),
        (KD(), 1, "mixed_float16", 0.5),  # with overflows, whose steps are not taken
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_every_kind_of_student_equals_that_of_a_teacher_in_the_loop(
    tmp_path, monkeypatch, method, count, precision, mixup
):
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=2.0**36)
    monkeypatch.setattr("keras.optimizers.LossScaleOptimizer", scaled)
    teachers = [small_network(**TEACHER), small_network(**SECOND)][:count]
    expected = _with_the_teacher_in_the_loop(
        tmp_path / "loop", monkeypatch, method, teachers, precision, mixup
    )
    found = _distill(
        tmp_path / "views",
        teacher=teachers,
        methods=[method],
        precision=precision,
        targets=Targets(mixup=mixup),
    )
    assert same(found.get_weights(), expected.get_weights())
    assert _logits(tmp_path / "views").shape == (VIEW, BATCH, count, CLASSES)


def test_file_has_the_rounded_logits_of_each_row(straight):
    folder, _ = straight
    logits, teacher = _logits(folder), small_network(**TEACHER)
    assert (logits.dtype, logits.shape) == (np.float16, (VIEW, BATCH, 1, CLASSES))
    for step, (images, _) in enumerate(_batches(Run(folder), VIEW)):
        expected = teacher(images, training=False)["logits"]
        np.testing.assert_allclose(logits[step, :, 0], expected, rtol=2e-3, atol=2e-3)
    record = _record(folder)
    assert (record["filled"], record["teacher_views"], record["seed"]) == (VIEW, 1, 0)
    metrics = json.loads((folder / "distill/metrics.json").read_text())
    assert metrics["teacher_views"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("views", [3, 4])
def test_views_that_cover_the_run_change_nothing(tmp_path, views):
    without = _distill(tmp_path / "without", 0)
    covered = _distill(tmp_path / "covered", views)
    assert same(without.get_weights(), covered.get_weights())
    assert not (tmp_path / "covered/teacher_views").exists()
    metrics = json.loads((tmp_path / "covered/distill/metrics.json").read_text())
    assert metrics["teacher_views"] == 0


@pytest.mark.slow
def test_fewer_views_change_the_student(tmp_path):
    students = [_distill(tmp_path / str(views), views) for views in (0, 1, 2)]
    weights = [student.get_weights() for student in students]
    assert not any(same(weights[a], weights[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.fixture
def kill_filling(monkeypatch):
    """Returns a function: the next run is killed after so many batches are written."""
    real = teacher_logits._finite

    def kill(at):
        calls = []

        def checked(logits):
            calls.append(1)
            if len(calls) > at:
                raise _Killed
            return real(logits)

        monkeypatch.setattr(teacher_logits, "_finite", checked)

    yield kill
    monkeypatch.undo()


def test_run_killed_while_logits_are_computed_equals_a_straight_one(
    tmp_path, monkeypatch, kill_filling, straight
):
    """Each kill leaves bytes after the recorded rows, as a kill of the process does."""
    folder = tmp_path / "killed"
    for filled, at in ((4, 4), (7, 3)):
        kill_filling(at)
        with pytest.raises(_Killed):
            _distill(folder)
        assert _record(folder)["filled"] == filled
        with open(folder / "teacher_views/logits.npy", "ab") as file:
            file.write(b"not in the record")
    monkeypatch.undo()
    resumed = _distill(folder)
    assert same(straight[1].get_weights(), resumed.get_weights())
    np.testing.assert_array_equal(_logits(straight[0]), _logits(folder))


@pytest.mark.slow
@pytest.mark.parametrize("at", [6, 13, 25])
def test_run_killed_during_the_training_equals_a_straight_one(tmp_path, monkeypatch, straight, at):
    runtime = Runtime(quiet=True, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.0)
    steps, record = [], Loop._record

    def counted(self, measurements):
        steps.extend(measurements["train/loss"])
        if len(steps) > at:
            raise _Killed
        record(self, measurements)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_record", counted)
        with pytest.raises(_Killed):
            _distill(tmp_path / "killed", runtime=runtime)
    checkpoints = tmp_path / "killed/distill/checkpoints"
    assert list(checkpoints.glob("step-*.index"))
    _refuse_to_compute(monkeypatch)
    resumed = _distill(tmp_path / "killed", runtime=runtime)
    assert same(straight[1].get_weights(), resumed.get_weights())


def _refuse_to_compute(monkeypatch):
    def refuse(*_):
        raise AssertionError("the teacher is run")

    monkeypatch.setattr(teacher_logits, "_logits_of", refuse)


def test_signal_saves_what_is_computed(tmp_path, monkeypatch):
    real, calls = teacher_logits._finite, []

    def signalled(logits):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(logits)

    monkeypatch.setattr(teacher_logits, "_finite", signalled)
    with pytest.raises(Interrupted, match=r"distill\.teacher_views"):
        _distill(tmp_path)
    assert _record(tmp_path)["filled"] == 3


@pytest.mark.slow
def test_methods_share_the_logits_of_a_folder(tmp_path, monkeypatch):
    runtime = Runtime(quiet=True, evaluate_every=1e9, views_folder=str(tmp_path / "shared"))
    _distill(tmp_path / "kd", runtime=runtime)
    own = _distill(tmp_path / "own", methods=[DKD()])
    _refuse_to_compute(monkeypatch)
    shared = _distill(tmp_path / "dkd", methods=[DKD()], runtime=runtime)
    assert same(own.get_weights(), shared.get_weights())
    assert not (tmp_path / "dkd/teacher_views").exists()
    assert len(list((tmp_path / "shared").rglob("logits.npy"))) == 1


@pytest.mark.slow
def test_shared_folder_has_a_subfolder_for_each_seed_and_number_of_views(tmp_path):
    runtime = Runtime(quiet=True, evaluate_every=1e9, views_folder=str(tmp_path / "shared"))
    for number, changes in enumerate([{}, {"seed": 1}, {"views": 2}, {"batch_size": 24}]):
        _distill(tmp_path / str(number), runtime=runtime, **changes)
    assert len(list((tmp_path / "shared").rglob("logits.npy"))) == 4


@pytest.mark.slow
def test_two_runs_at_once_write_the_same_file(tmp_path, straight):
    """Each of two threads has a lock of its own, as two processes do."""
    runtime = Runtime(quiet=True, evaluate_every=1e9, views_folder=str(tmp_path / "shared"))
    errors = []

    def run(name):
        try:
            _distill(tmp_path / name, runtime=runtime)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    (path,) = (tmp_path / "shared").rglob("logits.npy")
    np.testing.assert_array_equal(np.load(path), _logits(straight[0]))
    assert sorted(p.name for p in path.parent.iterdir()) == ["logits.npy", "record.json"]


@pytest.mark.slow
def test_two_replicas_equal_one(tmp_path, one_replica, two_replicas):
    """To rounding. The loss of the first step shows that each replica has its own rows."""
    logits, losses = [], []
    for strategy in (one_replica, two_replicas):
        folder = tmp_path / str(strategy.num_replicas_in_sync)
        steps, record = [], Loop._record
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                Loop, "_record", lambda *args: (steps.extend(args[1]["train/kd"]), record(*args))  # noqa: B023
            )  # fmt: skip
            _distill(folder, runtime=Runtime(strategy, quiet=True, evaluate_every=1e9))
        logits.append(_logits(folder))
        losses.append(steps)
    np.testing.assert_allclose(*logits, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=0.05)


@pytest.mark.parametrize("views", [-1, 1.5, "2", True])
def test_wrong_number_of_views_is_named(tmp_path, views):
    with pytest.raises(UserError, match=r"distill\.teacher_views"):
        _distill(tmp_path, views)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"methods": [AT()]}, r"\bat\b"),
        ({"methods": [KD(), AT()]}, r"\bat\b"),
        ({"methods": [], "teacher": None}, "plain"),
    ],
)
def test_methods_without_cached_logits_are_named(tmp_path, changes, named):
    with pytest.raises(UserError, match=rf"distill\.teacher_views.*{named}"):
        _distill(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


OTHERS = {
    "teacher": {"teacher": small_network(**SECOND)},
    "train": {"train": made_examples(132)},
    "first batch": {"train": made_examples(120, seed=4)},  # other images with the same labels
    "seed": {"seed": 1},
    "precision": {"precision": "mixed_bfloat16"},
    "batch_size": {"batch_size": 24},
    "teacher_views": {"views": 2},
    "mixup": {"targets": Targets(mixup=0.5)},
    "augmentation": {"augmentation": dataclasses.replace(Run("").training.augmentation, pad=2)},
}


@pytest.fixture(scope="module")
def logits_alone(straight, tmp_path_factory):
    """A folder as a run leaves it that is killed before its first checkpoint."""
    folder = tmp_path_factory.mktemp("logits")
    shutil.copytree(straight[0] / "teacher_views", folder / "teacher_views")
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_logits_of_another_config_are_refused(logits_alone, name):
    with pytest.raises(UserError, match=rf"distill\.teacher_views.*\b{name} was") as error:
        _distill(logits_alone, **OTHERS[name])
    assert "\n" not in str(error.value)
    assert not (logits_alone / "distill").exists()


@pytest.mark.slow
def test_fresh_run_replaces_logits_of_another_config(tmp_path):
    _distill(tmp_path)
    fresh = Runtime(quiet=True, evaluate_every=1e9, fresh=True)
    _distill(tmp_path, teacher=small_network(**SECOND), runtime=fresh)
    _distill(tmp_path / "other", teacher=small_network(**SECOND))
    np.testing.assert_array_equal(_logits(tmp_path), _logits(tmp_path / "other"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"x" + content[1:],
        lambda content: content[:-40] + bytes(20) + content[-20:],
    ],
    ids=["truncated", "longer", "header", "zeros"],
)
def test_damaged_file_is_named(tmp_path, logits_alone, damage):
    shutil.copytree(logits_alone, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "teacher_views/logits.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"logits\.npy"):
        _distill(tmp_path)


@pytest.mark.slow
def test_deleted_file_is_computed_again(tmp_path, logits_alone):
    shutil.copytree(logits_alone, tmp_path, dirs_exist_ok=True)
    (tmp_path / "teacher_views/logits.npy").unlink()
    _distill(tmp_path)
    np.testing.assert_array_equal(_logits(tmp_path), _logits(logits_alone))


def test_logits_beyond_float16_are_refused(tmp_path):
    teacher = small_network(**TEACHER)
    kernel = teacher.classifier.weights[0]
    kernel.assign(kernel * 1e7)
    with pytest.raises(UserError, match=r"distill\.teacher_views.*65504"):
        _distill(tmp_path, teacher=teacher)
