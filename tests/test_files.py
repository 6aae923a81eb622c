"""Files appear whole or not at all."""

import contextlib
import json
import pathlib
import shutil

import pytest

from dfa_tf import files
from dfa_tf.errors import UserError
from dfa_tf.stages.folder import StageFolder
from dfa_tf.training.loop import Runtime


def test_file_replaces_the_old_one_only_when_done(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old")

    def fail_halfway():
        with files.replacing(path) as part:
            part.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    with files.replacing(path) as part:
        part.write_text("new")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "new"


def test_folder_is_replaced_whole(tmp_path):
    for content in ("a", "b"):
        with files.replacing(tmp_path / "folder") as part:
            part.mkdir()
            (part / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["b"]


def test_fresh_start_killed_anywhere_leaves_no_work_of_another_config(tmp_path, monkeypatch):
    """Whatever is left, a stage with other settings neither takes its result nor goes on with it."""

    class Killed(Exception):
        pass

    def made(epochs):
        settings = {"search.epochs": epochs}
        return StageFolder(tmp_path, "search", "alpha.json", settings)

    fresh = Runtime(fresh=True, quiet=True)
    entries = ("alpha.json", "metrics.json", "checkpoints/step.index", "alpha.png")
    for moment in range(len(entries) + 2):
        with made("1").work(fresh):
            for entry in entries:
                files.write_text(made("1").path / entry, "old")
        left = [moment]

        def kill_in_time(function, left=left):
            def removing(path, *args, **kwargs):
                if left[0] == 0 and ".lock" not in str(path):
                    raise Killed
                left[0] -= 1
                return function(path, *args, **kwargs)

            return removing

        with monkeypatch.context() as patched:
            patched.setattr(pathlib.Path, "unlink", kill_in_time(pathlib.Path.unlink))
            patched.setattr(shutil, "rmtree", kill_in_time(shutil.rmtree))
            with contextlib.suppress(Killed), made("2").work(fresh):
                pass
        try:
            finished = made("2").is_finished()
        except UserError:
            continue  # still known as the other config's
        assert not finished
        left_over = {p.name for p in made("2").path.iterdir() if not p.name.startswith(".")}
        assert left_over <= {"config.gin"}


def test_what_a_kill_left_is_cleared(tmp_path):
    (tmp_path / ".writing-x").mkdir()
    (tmp_path / ".writing-x" / "half").write_text("")
    files.clear_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_json_reads_back_equal_and_keeps_vectors_on_a_line(tmp_path):
    value = {"a": [0.1 + 0.2, 1e-30], "b": [[0, [0.5] * 40], [1, [0.25] * 40]], "c": None}
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value
    assert any(line.count("0.5") == 40 for line in text.splitlines())


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
