"""bin/reproduce: the run of the cells, what is kept of them, and resumption after a signal."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dfa_tf.alpha import Alpha
from dfa_tf.comparison.cells import cells, parse_shard
from dfa_tf.comparison.kept import keep
from dfa_tf.comparison.reproduce import CellsFailed, Reproduction
from dfa_tf.comparison.subprocesses import CommandRunner
from dfa_tf.errors import UserError
from tests.comparison.workdirs import write_search
from tests.conftest import ROOT

# A few steps of small networks on digits.
SHORT = [
    'dataset.name="digits"',
    "dataset.train_fraction=0.5",
    "train_teacher.epochs=0.3",
    "distill.epochs=0.3",
    "teacher/wide_resnet.depth=10",
    "teacher/wide_resnet.width=1",
    "student/wide_resnet.depth=10",
]


def _finish_teacher(workdir):
    (workdir / "teacher/teacher").mkdir(parents=True)
    (workdir / "teacher/teacher/model.keras").write_text("a finished teacher")


def test_shards_share_the_cells_without_overlap(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        CommandRunner, "run", lambda self, command, arguments: started.append(arguments[-1]) or 0
    )
    _finish_teacher(tmp_path)
    for k in range(1, 5):
        Reproduction("table2", "cpu", range(3), tmp_path, shard=(k, 4)).run()
    expected = [f"--workdir={tmp_path / c.folder}" for c in cells("table2", "cpu", range(3))]
    assert sorted(started) == sorted(expected)


def test_shard_is_k_of_n():
    assert parse_shard("2/3") == (2, 3)


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b"])
def test_invalid_shard_is_a_user_error(text):
    with pytest.raises(UserError, match="--shard") as error:
        parse_shard(text)
    assert repr(text) in str(error.value)


def test_unknown_row_is_a_user_error():
    with pytest.raises(UserError, match="--only") as error:
        cells("table5", "cpu", [0], ["kd"])
    assert "'kd'" in str(error.value)
    assert "table5" in str(error.value)


def test_folder_of_another_config_is_refused(tmp_path):
    (tmp_path / "reproduce.json").write_text('{"scale": "paper", "bindings": []}')
    with pytest.raises(UserError, match="--workdir") as error:
        Reproduction("table2", "cpu", [0], tmp_path).run()
    assert "'paper'" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_folder_that_is_not_writable_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir"):
        Reproduction("table2", "cpu", [0], tmp_path / "file" / "folder").run()


def test_failed_cell_does_not_stop_the_others(tmp_path, monkeypatch):
    statuses = iter([0, 1, 0])
    monkeypatch.setattr(CommandRunner, "run", lambda *_: next(statuses))
    _finish_teacher(tmp_path)
    with pytest.raises(CellsFailed) as error:
        Reproduction("table2", "cpu", [0], tmp_path, only=["student", "kd", "at"]).run()
    assert "cpu/kd_seed0" in str(error.value)
    assert "cpu/at_seed0" not in str(error.value)
    assert next(statuses, None) is None


def test_first_cell_that_the_user_can_fix_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(CommandRunner, "run", lambda *_: 2)
    _finish_teacher(tmp_path)
    with pytest.raises(UserError, match="cpu/student_seed0"):
        Reproduction("table2", "cpu", [0], tmp_path).run()


class Commands:
    """Stands in for the commands: records their flags, and leaves the files of a finished cell."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(CommandRunner, "run", lambda _, *call: self._run(*call))

    def _run(self, command, arguments):
        self.calls.append((command, arguments))
        workdir = pathlib.Path(arguments[-1].removeprefix("--workdir="))
        if command == "train_teacher":
            (workdir / "teacher").mkdir(parents=True)
            (workdir / "teacher/model.keras").write_text("a finished teacher")
        else:
            write_search(workdir, 0.75)
        return 0


def test_kept_results_finish_cells_and_bring_the_teacher(tmp_path, monkeypatch):
    """On another machine: the workdirs are missing, the results are there."""
    commands, results = Commands(monkeypatch), tmp_path / "results"
    only = {"only": ["student", "dfa"], "results": results}
    Reproduction("methods", "cpu", [0], tmp_path / "first", **only).run()
    assert [command for command, _ in commands.calls] == ["train_teacher", "distill", "distill"]
    assert not list(results.rglob("student.keras"))
    assert "commit" in json.loads((results / "cpu/dfa_seed0/origin.json").read_text())

    second = Reproduction("methods", "cpu", [0, 1], tmp_path / "second", **only)
    second.run()
    assert [arguments[-1] for _, arguments in commands.calls[3:]] == [
        f"--workdir={tmp_path}/second/cpu/{row}_seed1" for row in ("student", "dfa")
    ]
    assert (tmp_path / "second/teacher/teacher/model.keras").read_text() == "a finished teacher"
    (report,) = second.report().values()
    assert len(report.finished) == 4


def test_kept_files_contain_no_path_of_the_machine(tmp_path, monkeypatch):
    Commands(monkeypatch)
    root = tmp_path / "root"
    write_search(root / "cpu/dfa_seed0", 0.75)
    config = root / "cpu/dfa_seed0/distill/config.gin"
    config.write_text(f'keras_file.path = "{root}/teacher/teacher/model.keras"')
    keep(root, "cpu/dfa_seed0", tmp_path / "results")
    kept = tmp_path / "results/cpu/dfa_seed0/distill/config.gin"
    assert kept.read_text() == 'keras_file.path = "teacher/teacher/model.keras"'


def test_cell_that_finished_before_a_kill_is_kept_by_the_next_run(tmp_path, monkeypatch):
    commands, results = Commands(monkeypatch), tmp_path / "results"
    _finish_teacher(tmp_path / "root")
    write_search(tmp_path / "root/cpu/dfa_seed0", 0.75)
    Reproduction("methods", "cpu", [0], tmp_path / "root", only=["dfa"], results=results).run()
    assert not commands.calls
    assert (results / "cpu/dfa_seed0/distill/metrics.json").exists()


def test_results_of_another_config_are_refused(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "reproduce.json").write_text('{"scale": "cpu", "bindings": ["kd.alpha=0.5"]}')
    with pytest.raises(UserError, match="--results") as error:
        Reproduction("methods", "cpu", [0], tmp_path / "root", results=results).run()
    assert "kd.alpha=0.5" in str(error.value)


def test_row_whose_alpha_is_missing_does_not_stop_the_others(tmp_path, monkeypatch):
    """DFA fails, so that DFA + KD has no alpha; Margin runs."""
    statuses = iter([0, 1, 0])
    monkeypatch.setattr(CommandRunner, "run", lambda *_: next(statuses))
    _finish_teacher(tmp_path)
    with pytest.raises(CellsFailed) as error:
        only = ["kd", "dfa", "margin", "dfa_kd"]
        Reproduction("methods", "cpu", [0], tmp_path, only=only).run()
    assert next(statuses, None) is None
    assert "cpu/dfa_seed0" in str(error.value)
    assert "cpu/dfa_kd_seed0" in str(error.value)
    assert "cpu/margin_seed0" not in str(error.value)


def _alpha_flag(arguments):
    (flag,) = [a for a in arguments if a.startswith("--gin_bindings=distill.aggregation=")]
    return pathlib.Path(flag.split('"')[1])


def test_row_uses_the_alpha_of_another_rows_search(tmp_path, monkeypatch):
    commands = Commands(monkeypatch)
    _finish_teacher(tmp_path)
    only = ["dfa", "dfa_kd"]
    Reproduction("methods", "cpu", [3], tmp_path, only=only).run()
    searched = Alpha.load(tmp_path / "cpu/dfa_seed3/search/alpha.json")
    assert Alpha.load(_alpha_flag(commands.calls[1][1])).groups == searched.groups


def test_permuted_row_gives_each_feature_the_weight_of_another(tmp_path, monkeypatch):
    """Two features of weights 0.25 and 0.75 exchange them."""
    commands = Commands(monkeypatch)
    _finish_teacher(tmp_path)
    Reproduction("alpha", "cpu", [0], tmp_path, only=["dfa", "dfa_permuted"]).run()
    alpha = Alpha.load(_alpha_flag(commands.calls[1][1]))
    np.testing.assert_allclose(alpha["group1"], [0.75, 0.25])


def test_row_without_the_search_it_needs_is_a_user_error(tmp_path, monkeypatch):
    Commands(monkeypatch)
    _finish_teacher(tmp_path)
    with pytest.raises(UserError, match=r"dfa_kd.*dfa_seed0"):
        Reproduction("methods", "cpu", [0], tmp_path, only=["dfa_kd"]).run()


def _command(workdir, *more):
    bindings = [f"--gin_bindings={binding}" for binding in SHORT]
    start = [sys.executable, str(ROOT / "bin" / "reproduce"), "table2", "--only=student,kd"]
    return [*start, "--seeds=1", f"--workdir={workdir}", *bindings, *more]


def _start_first_cell(workdir):
    """Returns the process of a reproduction that has started its first cell."""
    process = subprocess.Popen(_command(workdir), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "cell 1 of 2" in line:
            return process
    raise AssertionError("the reproduction ended before its first cell")


def _processes(workdir):
    """Returns the processes whose command contains the folder."""
    return subprocess.run(["pgrep", "-f", str(workdir)], capture_output=True, text=True).stdout


@pytest.mark.slow
def test_stopped_reproduction_resumes_and_ends_with_the_table(tmp_path):
    """SIGTERM while the first cell runs; the second call keeps the teacher."""
    first = _start_first_cell(tmp_path)
    time.sleep(3)
    first.send_signal(signal.SIGTERM)
    stderr = first.stderr.read()
    assert first.wait() == 128 + signal.SIGTERM, stderr
    assert "same command" in stderr
    assert "Traceback" not in stderr

    teacher = os.stat(tmp_path / "teacher/teacher/model.keras").st_mtime
    second = subprocess.run(_command(tmp_path), capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert os.stat(tmp_path / "teacher/teacher/model.keras").st_mtime == teacher
    assert re.search(r"^Student +1 ", second.stdout, re.MULTILINE)
    assert re.search(r"^KD +1 ", second.stdout, re.MULTILINE)
    assert (tmp_path / "table2_smoke" / "report.md").exists()

    students = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("student.keras")}
    assert len(students) == 2
    third = subprocess.run(_command(tmp_path), capture_output=True, text=True)
    assert third.returncode == 0
    assert "2 of 2 cells" in third.stderr
    assert {path: os.stat(path).st_mtime_ns for path in students} == students  # not trained again


@pytest.mark.slow
@pytest.mark.parametrize("when", [0.0, 0.05, 1.5])
def test_signal_at_the_start_of_a_cell_leaves_no_process_behind(tmp_path, when):
    """Before the cell's process handles signals, and while it starts."""
    _finish_teacher(tmp_path)
    running = _start_first_cell(tmp_path)
    time.sleep(when)
    running.send_signal(signal.SIGHUP)
    assert "cell 2" not in running.stderr.read()
    assert running.wait() == 128 + signal.SIGHUP
    assert not _processes(tmp_path)


@pytest.mark.slow
def test_cell_ends_when_its_reproduction_is_killed(tmp_path):
    _finish_teacher(tmp_path)
    running = _start_first_cell(tmp_path)
    time.sleep(1)
    running.kill()
    deadline = time.monotonic() + 20
    while _processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _processes(tmp_path)


@pytest.mark.slow
def test_invalid_setting_of_a_cell_is_reported_with_its_name(tmp_path):
    command = _command(tmp_path, "--gin_bindings=distill.batch_size=10000")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    cell_error, error = done.stderr.splitlines()[-2:]
    assert "batch" in cell_error
    assert "10000" in cell_error
    assert "student_seed0" in error


def test_row_of_three_teachers_trains_each_with_a_seed_of_its_own(tmp_path, monkeypatch):
    commands = Commands(monkeypatch)
    Reproduction("feed", "cpu", [0], tmp_path, only=["feed_of_3"]).run()
    *training, (command, arguments) = commands.calls
    folders = ["teacher_short", "teacher_short_2", "teacher_short_3"]
    assert [call[1][-1] for call in training] == [f"--workdir={tmp_path}/{f}" for f in folders]
    seeds = [[a for a in call[1] if a.startswith("--seed")] for call in training]
    assert seeds == [[], ["--seed=1"], ["--seed=2"]]
    assert command == "distill"
    (listed,) = [a for a in arguments if a.startswith("--gin_bindings=teacher=")]
    assert listed.count("keras_file") == 3
    for number, folder in enumerate(folders, start=1):
        path = (tmp_path / folder / "teacher/model.keras").resolve()
        assert f'--gin_bindings=teacher{number}/keras_file.path="{path}"' in arguments


def test_rows_of_views_share_a_folder(tmp_path, monkeypatch):
    commands = Commands(monkeypatch)
    _finish_teacher(tmp_path)
    Reproduction("views", "cpu", [0], tmp_path, only=["kd", "kd_views_4"]).run()
    folder = f'--gin_bindings=runtime.views_folder="{(tmp_path / "teacher_views").resolve()}"'
    assert [folder in arguments for _, arguments in commands.calls] == [True, True]


def test_replayed_row_follows_the_process_of_another_row(tmp_path, monkeypatch):
    commands = Commands(monkeypatch)
    _finish_teacher(tmp_path)
    process = tmp_path / "cpu/adaptive_seed0/distill/process.json"
    process.parent.mkdir(parents=True)
    process.write_text("{}")
    Reproduction("adaptive", "cpu", [0], tmp_path, only=["adaptive_replayed"]).run()
    ((_, arguments),) = commands.calls
    assert f'--gin_bindings=process.file="{process.resolve()}"' in arguments


def test_replayed_row_without_the_process_it_needs_is_a_user_error(tmp_path, monkeypatch):
    Commands(monkeypatch)
    _finish_teacher(tmp_path)
    with pytest.raises(UserError, match=r"adaptive_replayed.*adaptive_seed0"):
        Reproduction("adaptive", "cpu", [0], tmp_path, only=["adaptive_replayed"]).run()
