"""bin/reproduce: which cells there are, and going on after a kill."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from dfa_tf import config
from dfa_tf.comparison.cells import EXPERIMENTS, PAIRS, SCALES, cells, shard_of
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


def _titles(name):
    return tuple(row.title for row in EXPERIMENTS[name].rows)


def test_tables_have_the_papers_columns():
    assert _titles("table2")[:10] == (
        *("Student", "KD", "FitNets", "AT", "Jacobian", "FT", "AB", "SP", "Margin", "DFA"),
    )
    assert _titles("table4") == ("Student", "AT", "SP", "Margin", "DFA", "DFA-T")
    assert _titles("table5") == ("Student", "Random", "Last", "Average", "DFA")


def _parse(cell, command):
    """Reads the cell's config."""
    given = cell.arguments(command)
    files = [a.split("=", 1)[1] for a in given if a.startswith("--gin_file=")]
    bindings = [a.split("=", 1)[1] for a in given if a.startswith("--gin_bindings=")]
    config.parse(files, bindings)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_is_a_config_that_holds(name, scale):
    """Its method and its aggregation; alpha is searched but in the rows that say another."""
    without_search = {"student": "none", "random": "random", "last": "last", "average": "average"}
    for cell in cells(name, scale, [0]):
        _parse(cell, EXPERIMENTS[name].command)
        (method,) = config.value("distill", "methods")
        aggregation = config.value("distill", "aggregation")
        if cell.row.name == "dfa_t":
            assert aggregation.startswith("gin/dfa_t_search")
        else:
            assert aggregation == without_search.get(cell.row.name, "search")
        known = cell.row.name in config.METHODS
        assert method.name == (cell.row.name if known else "dfa")


@pytest.mark.parametrize("name", ["fig4-right", "student-loss", "gamma", "init", "fig4-left"])
def test_rows_of_an_ablation_differ_in_what_it_is_about(name):
    """From "dfa", in one binding, or in the two weights of the bridge loss."""
    about = {
        "fig4-left": {"search/adam.weight_decay", "search.gamma_st", "search.gamma_ts"},
        "fig4-right": {"search/adam.weight_decay"},
        "student-loss": {"search.loss"},
        "gamma": {"search.gamma_st"},
        "init": {"search.initial"},
    }[name]
    found = {}
    for cell in cells(name, "cpu", [0]):
        if cell.row.name not in ("student", "last", "average"):
            _parse(cell, EXPERIMENTS[name].command)
            found[cell.row.name] = config.settings("search", "distill")
    before = found.pop("dfa")
    for settings in found.values():
        differing = {n for n in settings if settings[n] != before[n]}
        assert differing
        assert differing <= about


def test_lambdas_are_those_of_figure_4():
    found = []
    for cell in cells("fig4-right", "cpu", [0]):
        _parse(cell, "distill")
        found.append(config.value("search", "beta_optimizer").weight_decay)
    assert found == [0, 1e-5, 1e-4, 1e-3]


def test_paper_scale_is_tables_1_and_4():
    students = {}
    for cell in cells("table2", "paper", [0], ["kd"]):
        _parse(cell, "distill")
        found = [config.gin.query_parameter(f"student/wide_resnet.{n}") for n in ("depth", "width")]
        students[cell.pair] = tuple(found)
        assert config.value("distill", "epochs") == 200
    assert students == {"pair1": (16, 4), "pair2": (28, 2), "pair3": (16, 2)}
    widths = {}
    for cell in cells("table4", "paper", [0], ["at"]):
        _parse(cell, "distill")
        widths[cell.pair] = tuple(
            config.gin.query_parameter(f"{role}/shufflenet_v2.width")
            for role in ("teacher", "student")
        )
        assert config.value("distill", "epochs") == 140
        assert config.value("distill", "batch_size") == 96
        assert config.value("search", "epochs") == 5
    assert list(widths.values()) == [(2.0, 1.0), (2.0, 0.5), (1.0, 0.5)]


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_that_share_a_teacher_name_the_same(pair):
    config.parse([PAIRS[pair].config], [])
    own = config.settings("teacher", "train_teacher")
    config.parse([PAIRS[pair].teacher_config], [])
    assert config.settings("teacher", "train_teacher") == own


def test_shards_share_the_cells_without_overlap():
    whole = cells("table2", "cpu", range(3))
    shared = [cell for k in range(4) for cell in whole[k::4]]
    assert sorted(map(str, shared)) == sorted(map(str, whole))
    assert shard_of("2/3") == (2, 3)
    for wrong in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(UserError, match="--shard is k/n"):
            shard_of(wrong)


def test_row_that_is_none_is_told():
    with pytest.raises(UserError, match="table5 has no row 'kd'"):
        cells("table5", "cpu", [0], ["kd"])


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
