"""bin/reproduce: which cells there are, and going on after a kill."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from dfa_tf import config
from dfa_tf.comparison.cells import SCALES, TABLES, Cell, cells, shard_of, titles
from dfa_tf.comparison.reproduce import Reproduction
from dfa_tf.errors import UserError
from tests.conftest import ROOT

# Digits for a step or two, by small networks.
SHORT = [
    'dataset.name="digits"',
    "dataset.train_fraction=0.5",
    "train_teacher.epochs=0.3",
    "distill.epochs=0.3",
    "teacher/wide_resnet.depth=10",
    "teacher/wide_resnet.width=1",
    "student/wide_resnet.depth=10",
]


def test_tables_have_the_papers_columns():
    assert titles("table2")[:10] == (
        *("Student", "KD", "FitNets", "AT", "Jacobian", "FT", "AB", "SP", "Margin", "DFA"),
    )
    assert titles("table5") == ("Student", "Random", "Last", "Average", "DFA")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_every_cell_is_a_config_that_holds(table, scale):
    for cell in cells(table, SCALES[scale], [0]):
        given = cell.arguments(SCALES[scale])
        files = [a.split("=", 1)[1] for a in given if a.startswith("--gin_file=")]
        bindings = [a.split("=", 1)[1] for a in given if a.startswith("--gin_bindings=")]
        config.parse(files, bindings)
        aggregation = config.value("distill", "aggregation")
        (method,) = config.value("distill", "methods")
        if cell.row in ("random", "last", "average", "student"):
            assert aggregation == {"student": "none"}.get(cell.row, cell.row)
            assert method.name == "dfa"
        else:
            assert (method.name, aggregation) == (cell.row, "search")


def test_paper_scale_is_table_1():
    students = {}
    for pair in SCALES["paper"].pairs:
        files = [a.split("=")[1] for a in Cell("kd", pair, 0).arguments(SCALES["paper"])[:2]]
        config.parse(files, [])
        found = [config.gin.query_parameter(f"student/wide_resnet.{n}") for n in ("depth", "width")]
        students[pair] = tuple(found)
        assert config.value("distill", "epochs") == 200
    assert students == {"pair1": (16, 4), "pair2": (28, 2), "pair3": (16, 2)}


def test_shards_share_the_cells_without_overlap():
    whole = cells("table2", SCALES["cpu"], range(3))
    shared = [cell for k in range(4) for cell in whole[k::4]]
    assert sorted(map(str, shared)) == sorted(map(str, whole))
    assert shard_of("2/3") == (2, 3)
    for wrong in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(UserError, match="--shard is k/n"):
            shard_of(wrong)


def test_row_that_is_none_is_told():
    with pytest.raises(UserError, match="table5 has no row 'kd'"):
        cells("table5", SCALES["cpu"], [0], ["kd"])


def test_folder_of_another_reproduction_is_refused(tmp_path):
    (tmp_path / "reproduce.json").write_text('{"scale": "paper", "bindings": []}')
    with pytest.raises(UserError, match="choose another --workdir"):
        Reproduction("table2", "cpu", [0], tmp_path).run()


def _command(workdir, *more):
    bindings = [f"--gin_bindings={binding}" for binding in SHORT]
    start = [sys.executable, str(ROOT / "bin" / "reproduce"), "table2", "--only=student,kd"]
    return [*start, "--seeds=1", f"--workdir={workdir}", *bindings, *more]


def _started(workdir, with_teacher=True):
    """A reproduction that runs its first cell. with_teacher: what it takes for one lies there."""
    if with_teacher:
        (workdir / "teacher/teacher").mkdir(parents=True)
        (workdir / "teacher/teacher/model.keras").write_text("there")
    running = subprocess.Popen(_command(workdir), stderr=subprocess.PIPE, text=True)
    for line in running.stderr:
        if "cell 1 of 2" in line:
            return running
    raise AssertionError("it ended before its first cell")


def _processes(workdir):
    """Those whose command names the folder."""
    return subprocess.run(["pgrep", "-f", str(workdir)], capture_output=True, text=True).stdout


@pytest.mark.slow
def test_killed_reproduction_goes_on_and_ends_in_the_table(tmp_path):
    """SIGTERM while the first cell runs; the second call finds the teacher and goes on."""
    first = _started(tmp_path, with_teacher=False)
    time.sleep(3)
    first.send_signal(signal.SIGTERM)
    said = first.stderr.read()
    assert first.wait() == 128 + signal.SIGTERM, said
    assert "the same command goes on" in said
    assert "Traceback" not in said

    teacher = os.stat(tmp_path / "teacher/teacher/model.keras").st_mtime
    second = subprocess.run(_command(tmp_path), capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert os.stat(tmp_path / "teacher/teacher/model.keras").st_mtime == teacher
    assert re.search(r"^Student +1 ", second.stdout, re.MULTILINE)
    assert re.search(r"^KD +1 ", second.stdout, re.MULTILINE)
    assert (tmp_path / "table2_cpu" / "report.md").exists()

    began = time.monotonic()
    third = subprocess.run(_command(tmp_path), capture_output=True, text=True)
    assert third.returncode == 0
    assert "2 of 2 cells are done already" in third.stderr
    assert time.monotonic() - began < 60  # nothing is trained


@pytest.mark.slow
@pytest.mark.parametrize("when", [0.0, 0.05, 1.5])
def test_signal_at_the_start_of_a_cell_leaves_no_process_behind(tmp_path, when):
    """Before the cell's process listens to signals, and while it starts."""
    running = _started(tmp_path)
    time.sleep(when)
    running.send_signal(signal.SIGHUP)
    assert "cell 2" not in running.stderr.read()
    assert running.wait() == 128 + signal.SIGHUP
    assert not _processes(tmp_path)


@pytest.mark.slow
def test_cell_ends_when_its_reproduction_is_killed(tmp_path):
    running = _started(tmp_path)
    time.sleep(1)
    running.kill()
    deadline = time.monotonic() + 20
    while _processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _processes(tmp_path)


@pytest.mark.slow
def test_cell_that_cannot_be_run_is_told(tmp_path):
    wrong = _command(tmp_path, "--gin_bindings=distill.batch_size=10000")
    told = subprocess.run(wrong, capture_output=True, text=True)
    assert told.returncode == 2
    assert "a batch of 10000 is larger" in told.stderr
    assert "student_seed0 cannot be run" in told.stderr
