"""Two processes on one machine as workers: their results, who writes, and what a kill does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.alpha import Alpha
from tests.conftest import ROOT
from tests.training.worker import run_stages, run_views

pytestmark = pytest.mark.slow


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Two workers, started together; each has its own idea of where the results go."""

    def __init__(self, *workdirs, mode="float32"):
        workers = [f"localhost:{port}" for port in _free_ports(2)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.worker", str(workdir), mode],
                cwd=ROOT,
                env=os.environ
                | {
                    "TF_CONFIG": json.dumps(
                        {
                            "cluster": {"worker": workers},
                            "task": {"type": "worker", "index": index},
                        }
                    )
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, workdir in enumerate(workdirs)
        ]

    def wait(self):
        """[(exit status, what it wrote to stderr)] of both."""
        texts = [process.communicate(timeout=300)[1] for process in self.processes]
        return [(p.returncode, text) for p, text in zip(self.processes, texts, strict=True)]


def _result(workdir):
    alpha = Alpha.load(workdir / "search" / "alpha.json")
    student = models.load(workdir / "distill" / "student.keras")
    return np.concatenate([group.alpha for group in alpha.groups]), student.get_weights()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """(the chief's folder, the other's) after an undisturbed run."""
    folders = [tmp_path_factory.mktemp(name) for name in ("chief", "other")]
    for status, stderr in Cluster(*folders).wait():
        assert status == 0, stderr[-2000:]
    return folders


def test_two_workers_equal_two_replicas(straight, two_replicas, tmp_path):
    """Only the rounding of sums over devices differs, which stays small over about 100 steps."""
    run_stages(tmp_path, two_replicas)
    alpha, weights = _result(straight[0])
    expected_alpha, expected_weights = _result(tmp_path)
    np.testing.assert_allclose(alpha, expected_alpha, atol=1e-3)
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_two_workers_run_in_bfloat16(straight, tmp_path):
    for status, stderr in Cluster(tmp_path, tmp_path, mode="mixed_bfloat16").wait():
        assert status == 0, stderr[-2000:]
    alpha, _ = _result(tmp_path)
    expected_alpha, _ = _result(straight[0])
    np.testing.assert_allclose(alpha, expected_alpha, atol=0.1)


def test_two_workers_remember_the_logits_of_two_replicas(two_replicas, tmp_path):
    """Each worker runs the teacher on its own rows, and reads these rows of the chief's file."""
    cluster, single = tmp_path / "cluster", tmp_path / "single"
    for status, stderr in Cluster(cluster, cluster, mode="views").wait():
        assert status == 0, stderr[-2000:]
    expected = run_views(single, two_replicas).get_weights()
    logits = [np.load(folder / "teacher_views/logits.npy") for folder in (cluster, single)]
    np.testing.assert_allclose(*logits, rtol=2e-3, atol=2e-3)
    weights = models.load(cluster / "distill/student.keras").get_weights()
    for found, each in zip(weights, expected, strict=True):
        np.testing.assert_allclose(found, each, atol=0.02)


def test_only_the_chief_writes(straight):
    chief, other = straight
    assert (chief / "distill" / "metrics.json").exists()
    assert list(other.rglob("*")) == []


def test_workers_with_different_checkpoints_stop_before_the_first_step(tmp_path):
    """The chief resumes, and the other worker has an empty folder."""
    chief, other = tmp_path / "chief", tmp_path / "other"
    cluster = Cluster(chief, other)
    checkpoints = chief / "search" / "checkpoints"
    while cluster.processes[0].poll() is None:
        if [path for path in checkpoints.glob("*.index") if path.stem != "step-0"]:
            break
        time.sleep(0.05)
    for process in cluster.processes:
        process.send_signal(signal.SIGKILL)
    cluster.wait()
    for status, stderr in Cluster(chief, other).wait():
        assert status == 2, stderr[-2000:]
        assert "--workdir" in stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "other"])
def test_surviving_worker_stops_and_a_restart_resumes(straight, tmp_path, victim):
    cluster = Cluster(tmp_path, tmp_path)
    checkpoints = tmp_path / "search" / "checkpoints"
    while not list(checkpoints.glob("*.index")) and cluster.processes[0].poll() is None:
        time.sleep(0.05)
    cluster.processes[victim].send_signal(signal.SIGKILL)
    status, stderr = cluster.wait()[1 - victim]
    assert status == 75, stderr[-2000:]
    assert "Traceback" not in stderr
    assert "restart all workers" in stderr.strip().splitlines()[-1]
    assert not (tmp_path / "search" / "alpha.json").exists()
    for status, stderr in Cluster(tmp_path, tmp_path).wait():
        assert status == 0, stderr[-2000:]
    alpha, weights = _result(tmp_path)
    expected_alpha, expected_weights = _result(straight[0])
    np.testing.assert_allclose(alpha, expected_alpha, atol=1e-3)
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02)
