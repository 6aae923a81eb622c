"""What the caller does with the streams, the environment and the workdir of a command."""

import json
import os
import signal
import subprocess
import sys

import pytest

from dfa_tf.commands import options
from dfa_tf.errors import UserError
from dfa_tf.training.devices import build_strategy, worker_count
from dfa_tf.training.signals import stop_request, stop_signals
from tests.comparison.workdirs import write_workdir
from tests.conftest import ROOT

REPORT = [sys.executable, "-m", "dfa_tf.commands", "report"]


def _run(command, **arguments):
    return subprocess.run(command, cwd=ROOT, text=True, **arguments)


def test_reader_that_ends_early_ends_the_command_without_a_traceback(tmp_path):
    write_workdir(tmp_path / "run", 0.5)
    reading, writing = os.pipe()
    os.close(reading)
    done = _run([*REPORT, str(tmp_path)], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path, closed):
    write_workdir(tmp_path / "run", 0.5)
    command = f"{' '.join(REPORT)} {tmp_path}/run --out={tmp_path}/out {closed}"
    done = _run(["sh", "-c", command], stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert "KD" in done.stdout
    # A stream's number was not given to a file: nothing but the table is in it.
    assert "| KD | 1 |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("stream", ["2>/dev/full", "2</dev/null", "2>&1 >&- | true"])
def test_unwritable_error_stream_does_not_end_a_command(tmp_path, stream):
    """The second is opened for reading, as a launcher's own file can be. The last loses its reader."""
    script = (
        "import sys\n"
        "from dfa_tf.commands import main\n"
        "main._run = lambda *_: [print(k, file=sys.stderr, flush=True) for k in range(9)]\n"
        "main.launch('report', ['report'])\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/script.py {stream}"
    assert _run(["bash", "-o", "pipefail", "-c", command]).returncode == 0


def test_closed_output_is_no_error(tmp_path):
    write_workdir(tmp_path / "run", 0.5)
    command = f"{' '.join(REPORT)} {tmp_path}/run --out={tmp_path}/out >&-"
    assert _run(["sh", "-c", command]).returncode == 0
    assert "| KD | 1 |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("flags", [[], ["--fresh"]])
def test_signal_before_the_first_stage_says_how_to_continue(flags):
    script = (
        "import os, signal\n"
        "from dfa_tf.commands import main\n"
        "main._run = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"main.launch('export', {['export', *flags]})\n"
    )
    done = _run([sys.executable, "-c", script], stderr=subprocess.PIPE)
    assert done.returncode == 128 + signal.SIGTERM
    assert ("--fresh" in done.stderr) == bool(flags)


@pytest.mark.parametrize("workdir", ["x" * 256, "gs://bucket/x"])
def test_workdir_that_cannot_be_a_folder_is_refused(workdir):
    values = options.define("report")
    values(["report", f"--workdir={workdir}"])
    with pytest.raises(UserError, match="--workdir"):
        options.default_workdir(values)


def test_workdir_in_the_home_folder_is_found(monkeypatch, tmp_path):
    """The shell does not expand ~ after an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    values = options.define("report")
    values(["report", "--workdir=~/x"])
    assert options.default_workdir(values) == tmp_path / "x"


@pytest.mark.parametrize("workdir", ["a\0b", "a\udcff", "a\nb", "\x1b[31m"])
def test_workdir_that_cannot_be_printed_is_refused(workdir):
    values = options.define("report")
    values(["report"])
    values["workdir"].value = workdir
    with pytest.raises(UserError, match="--workdir") as error:
        options.default_workdir(values)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["garbage", "[]", json.dumps({"cluster": 3})])
def test_malformed_tf_config_matters_to_several_workers_alone(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert build_strategy("default").num_replicas_in_sync == 1
    assert worker_count(build_strategy("mirrored")) == 1


@pytest.mark.parametrize("text", ["[]", json.dumps({"cluster": {}})])
def test_cluster_without_workers_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG|multi_worker"):
        build_strategy("multi_worker")


def test_hangup_stops_a_run_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert signal.SIGHUP not in stop_signals()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_request() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.signum == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)
