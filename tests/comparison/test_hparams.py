"""The event files of a report, read back as TensorBoard reads them."""

import subprocess
import sys

import pytest
from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

from dfa_tf.comparison.report import Report
from dfa_tf.comparison.runs import find_runs
from tests.comparison.workdirs import write_bindings, write_workdir
from tests.conftest import ROOT


def _read(out):
    """Returns {name of the run: (hyperparameters, metrics)} of the event files of a report."""
    found = {}
    for file in sorted((out / "hparams").glob("**/*tfevents*")):
        name = str(file.parent.relative_to(out / "hparams"))
        assert name not in found  # a run has one file
        events = EventAccumulator(str(file.parent)).Reload()
        content = events.PluginTagToContent("hparams")[SESSION_START_INFO_TAG]
        session = MessageToDict(HParamsPluginData.FromString(content).session_start_info)
        assert session["groupName"] == name  # a run has a row of its own in the tab
        metrics = {}
        for tag in events.PluginTagToContent("scalars"):
            (event,) = events.Tensors(tag)
            assert event.step == 100
            metrics[tag] = pytest.approx(float(make_ndarray(event.tensor_proto)))
        found[name] = session["hparams"], metrics
    return found


def _write(runs, out):
    Report(find_runs([runs])).write(out)
    return _read(out)


def test_hyperparameters_are_method_seed_and_the_bindings_that_differ(tmp_path):
    for name, tau, seed in (("soft", 4.0, 0), ("softer", 8.0, 1)):
        folder = write_workdir(tmp_path / "runs" / name, 0.5, seed=seed, teacher=None)
        write_bindings(folder, kd__temperature=tau, kd__alpha=0.9)
    hparams = {name: hparams for name, (hparams, _) in _write(tmp_path, tmp_path / "out").items()}
    assert hparams == {
        "soft": {"method": "KD", "seed": 0, "kd.temperature": 4.0},
        "softer": {"method": "KD", "seed": 1, "kd.temperature": 8.0},
    }


def test_other_files_in_the_folder_are_kept(tmp_path):
    """A folder hparams may be a workdir, even one of the report's own runs."""
    run = write_workdir(tmp_path / "runs" / "hparams", 0.5, teacher=None)
    other = write_workdir(tmp_path / "runs" / "kd", 0.5, seed=1, teacher=None)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for _ in range(2):
        Report(find_runs([run, other])).write(tmp_path / "runs")
    assert {path: path.read_bytes() for path in before} == before
    added = {path for path in run.rglob("*") if path.is_file()} - set(before)
    assert len(added) == 2  # an event file for each run


def test_values_that_are_not_numbers_are_texts(tmp_path):
    for name in ("dfa", "kd"):
        folder = write_workdir(tmp_path / "runs" / name, 0.5, teacher=None)
        write_bindings(folder, distill__methods=f"[@{name}()]")
    hparams, _ = _write(tmp_path, tmp_path / "out")["dfa"]
    assert hparams["distill.methods"] == "[@dfa()]"


def test_metrics_are_those_that_the_run_has(tmp_path):
    """Its metrics.json has the accuracy 0.5 after the last epoch, and 0.51 at best."""
    write_workdir(tmp_path / "runs" / "old", 0.5)
    last = {"accuracy": 0.5, "loss": 1.0, "top_5_accuracy": 0.8, "calibration_error": 0.1}
    write_workdir(tmp_path / "runs" / "new", 0.5, last=last, agreement=0.7)
    found = _write(tmp_path / "runs", tmp_path / "out")
    old = {"last_accuracy": 0.5, "best_accuracy": 0.51, "seconds": 30.0}
    more = {"top_5_accuracy": 0.8, "calibration_error": 0.1, "agreement": 0.7}
    assert found["old"][1] == old
    assert found["new"][1] == old | more


def test_runs_are_named_by_their_folders_below_the_common_one(tmp_path):
    """The second generation of a chain has its workdir below that of the third."""
    write_workdir(tmp_path / "a/kd", 0.5)
    write_workdir(tmp_path / "b/kd", 0.5)
    write_workdir(tmp_path / "b/kd/generation_2", 0.5)
    paths = [tmp_path / name for name in ("a/kd", "b/kd/generation_2", "b/kd")]
    Report(find_runs(paths)).write(tmp_path / "out")
    assert set(_read(tmp_path / "out")) == {"a/kd", "b/kd", "b/kd/generation_2"}
    Report(find_runs(paths[:1])).write(tmp_path / "one")
    assert set(_read(tmp_path / "one")) == {"kd"}


def test_second_report_replaces_the_runs_of_the_first(tmp_path):
    write_workdir(tmp_path / "runs/a", 0.5)
    write_workdir(tmp_path / "runs/b", 0.5)
    assert set(_write(tmp_path / "runs", tmp_path / "out")) == {"a", "b"}
    assert set(_write(tmp_path / "runs", tmp_path / "out")) == {"a", "b"}
    assert set(_write(tmp_path / "runs/b", tmp_path / "out")) == {"b"}


def test_unfinished_run_is_not_listed(tmp_path):
    write_workdir(tmp_path / "runs/done", 0.5)
    write_workdir(tmp_path / "runs/half")
    assert set(_write(tmp_path / "runs", tmp_path / "out")) == {"done"}


def test_report_imports_no_tensorflow_and_tensorboard_only_to_write(tmp_path):
    write_workdir(tmp_path, 0.5)
    code = (
        "import sys\n"
        "from dfa_tf.comparison.report import Report\n"
        "from dfa_tf.comparison.runs import find_runs\n"
        "report = Report(find_runs([sys.argv[1]]))\n"
        "report.text()\n"
        "assert 'tensorboard' not in sys.modules\n"
        "report.write(report.runs[0].path / 'out')\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
