"""Files and folders are written atomically."""

import contextlib
import json
import pathlib
import shutil

import pytest

from dfa_tf import files
from dfa_tf.errors import UserError


def test_file_is_replaced_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old")

    def fail_halfway():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "new"


def test_folder_is_replaced_with_all_its_contents(tmp_path):
    for content in ("a", "b"):
        with files.replacing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["b"]


def test_fresh_start_killed_at_any_point_leaves_no_files_of_another_config(tmp_path, monkeypatch):
    """A stage with other settings neither uses nor resumes what the killed process left."""
    from dfa_tf.stages.folder import StageFolder
    from dfa_tf.training.runtime import Runtime

    class Killed(Exception):
        pass

    def stage_folder(epochs):
        settings = {"search.epochs": epochs}
        return StageFolder(tmp_path, "search", "alpha.json", settings)

    fresh = Runtime(fresh=True, quiet=True)
    entries = ("alpha.json", "metrics.json", "checkpoints/step.index", "alpha.png")
    for deletions in range(len(entries) + 2):
        with stage_folder("1").work(fresh):
            for entry in entries:
                files.write_text(stage_folder("1").path / entry, "old")
        remaining = [deletions]

        def kill_later(function, remaining=remaining):
            def delete(path, *args, **kwargs):
                if remaining[0] == 0 and ".lock" not in str(path):
                    raise Killed
                remaining[0] -= 1
                return function(path, *args, **kwargs)

            return delete

        with monkeypatch.context() as patched:
            patched.setattr(pathlib.Path, "unlink", kill_later(pathlib.Path.unlink))
            patched.setattr(shutil, "rmtree", kill_later(shutil.rmtree))
            with contextlib.suppress(Killed), stage_folder("2").work(fresh):
                pass
        try:
            assert not stage_folder("2").is_finished()
        except UserError:
            continue  # the folder still names the other config
        with stage_folder("2").work(Runtime(quiet=True)):
            left = {entry.name for entry in stage_folder("2").path.iterdir()}
        assert left == {"config.gin", ".lock"}


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path):
    (tmp_path / ".writing-x").mkdir()
    (tmp_path / ".writing-x" / "half").write_text("")
    files.clear_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_json_round_trips_and_keeps_each_vector_on_one_line(tmp_path):
    value = {"a": [0.1 + 0.2, 1e-30], "b": [[0, [0.5] * 40], [1, [0.25] * 40]], "c": None}
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert any(line.count("0.5") == 40 for line in text.splitlines())


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
