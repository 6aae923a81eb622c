"""Checkpoints are complete or ignored."""

import pathlib
import shutil

import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.training.checkpoints import Checkpoints, Journal, RunConfig
from dfa_tf.training.optimizers import SGD, Cosine


def _stage(folder, value=0.0):
    journal, variable = Journal(), tf.Variable(value)
    return journal, variable, Checkpoints(folder, journal, {"weights": [variable]})


def test_variables_and_journal_are_restored_together(tmp_path):
    journal, _, checkpoints = _stage(tmp_path, 1.5)
    journal.step, journal.curve = 7, [[1, 0.1 + 0.2, 0.5]]
    checkpoints.save()
    other, found, again = _stage(tmp_path)
    assert again.restore()
    assert float(found) == 1.5
    assert other == Journal(step=7, curve=[[1, 0.1 + 0.2, 0.5]])


def test_restore_without_checkpoints_returns_false(tmp_path):
    assert not _stage(tmp_path)[2].restore()


def test_last_two_checkpoints_are_kept(tmp_path):
    journal, _, checkpoints = _stage(tmp_path)
    for step in (1, 2, 3):
        journal.step = step
        checkpoints.save()
    assert sorted(p.name for p in tmp_path.glob("*.index")) == ["step-2.index", "step-3.index"]


def test_files_of_a_killed_save_are_ignored(tmp_path):
    journal, _, checkpoints = _stage(tmp_path, 1.0)
    journal.step = 1
    checkpoints.save()
    # What remains if a process dies before the new state is recorded.
    for path in tmp_path.glob("step-1.*"):
        shutil.copy(path, pathlib.Path(str(path).replace("step-1", "step-2")))
    (tmp_path / "step-2.index").write_bytes(b"half")
    other, found, again = _stage(tmp_path)
    assert again.restore()
    assert (other.step, float(found)) == (1, 1.0)


def _truncate(folder, step):
    (path,) = folder.glob(f"step-{step}.data*")
    path.write_bytes(path.read_bytes()[:3])


def test_damaged_checkpoint_is_replaced_by_the_previous_one(tmp_path):
    journal, variable, checkpoints = _stage(tmp_path)
    for step in (1, 2):
        journal.step = step
        variable.assign(step)
        checkpoints.save()
    _truncate(tmp_path, 2)
    other, found, again = _stage(tmp_path)
    assert again.restore()
    assert (other.step, float(found)) == (1, 1.0)
    _truncate(tmp_path, 1)
    with pytest.raises(UserError, match=f"{tmp_path.name}.*--fresh"):
        _stage(tmp_path)[2].restore()


@pytest.mark.parametrize("content", [None, "", 'model_checkpoint_path: "elsewhere"', "\0"])
def test_states_are_found_by_their_names(tmp_path, content):
    """Whatever remains of the file that TensorFlow's CheckpointManager writes."""
    journal, _, checkpoints = _stage(tmp_path, 1.0)
    journal.step = 9
    checkpoints.save()
    if content is not None:
        (tmp_path / "checkpoint").write_text(content)
    other, found, again = _stage(tmp_path)
    assert again.restore()
    assert (other.step, float(found)) == (9, 1.0)


def test_folder_without_a_complete_checkpoint_says_that_the_run_starts_from_scratch(
    tmp_path, capsys
):
    (tmp_path / "step-5.data-00000-of-00001").write_bytes(b"half")
    assert not _stage(tmp_path)[2].restore()
    assert str(tmp_path) in capsys.readouterr().err


def test_folder_with_pattern_characters_keeps_its_states_and_those_of_others(tmp_path):
    """As a pattern, w[1] matches w1."""
    for name in ("w1", "w[1]", "q[x]*?"):
        journal, variable, checkpoints = _stage(tmp_path / name)
        for step in (1, 2, 3):
            journal.step = step
            variable.assign(step)
            checkpoints.save()
    for name in ("w1", "w[1]", "q[x]*?"):
        names = {p.name for p in (tmp_path / name).iterdir() if p.suffix == ".index"}
        assert names == {"step-2.index", "step-3.index"}
        _, found, again = _stage(tmp_path / name)
        assert again.restore()
        assert float(found) == 3.0


def test_leftovers_of_a_killed_save_are_deleted_and_other_files_are_kept(tmp_path):
    (tmp_path / "step-4_temp").mkdir()
    (tmp_path / "step-4.data-00000-of-00001").write_text("half")
    (tmp_path / "step-notes.txt").write_text("mine")
    journal, _, checkpoints = _stage(tmp_path)
    journal.step = 5
    checkpoints.save()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-5.index", "step-5.data-00000-of-00001", "step-notes.txt"}


def test_state_of_a_run_with_another_config_is_refused(tmp_path):
    def check(text, folder):
        if text != "seed = 1":
            raise UserError(f"{folder} {text}")

    variables = {"weights": [tf.Variable(0.0)]}
    Checkpoints(tmp_path, Journal(), variables, config=RunConfig("seed = 2")).save()
    with pytest.raises(UserError, match="seed = 2"):
        Checkpoints(tmp_path, Journal(), variables, config=RunConfig("seed = 1", check)).restore()


def test_optimizer_state_is_restored(tmp_path):
    def make():
        variable = tf.Variable([1.0])
        optimizer = SGD(Cosine(0.1)).build([variable], 1, 10)
        state = {"weights": [variable], "optimizer": optimizer.state}
        return variable, optimizer, Checkpoints(tmp_path, Journal(), state)

    variable, optimizer, checkpoints = make()
    for _ in range(3):
        optimizer.apply([tf.constant([0.5])])
    checkpoints.save()
    optimizer.apply([tf.constant([0.5])])
    again, other, restored = make()
    restored.restore()
    other.apply([tf.constant([0.5])])
    assert again.numpy() == pytest.approx(variable.numpy(), abs=0)
