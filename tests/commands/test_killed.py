"""A run that is killed at any moment ends in the same files as a straight one."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dfa_tf import models, system
from tests.conftest import ROOT, same

KILLS_PER_STAGE = 2
BINDINGS = [
    "train_teacher.epochs = 15",
    "teacher/wide_resnet.depth = 16",
    "search.epochs = 10",
    "distill.epochs = 25",
    "runtime.checkpoint_seconds = 0.4",
    "runtime.log_every = 7",
]


def _command(workdir, precision):
    bindings = [
        *BINDINGS,
        *(f"{s}.precision = '{precision}'" for s in ("train_teacher", "search", "distill")),
    ]
    return [
        sys.executable,
        str(ROOT / "bin" / "distill"),
        f"--workdir={workdir}",
        "--noexport",
        *(f"--gin_bindings={binding}" for binding in bindings),
    ]


def _wait_for_a_checkpoint(folder, process):
    """Returns when the process has saved a checkpoint, or has ended."""
    before = set(folder.glob("*.index"))
    while process.poll() is None and set(folder.glob("*.index")) <= before:
        time.sleep(0.02)


BFLOAT16 = pytest.param(
    "mixed_bfloat16",
    marks=pytest.mark.skipif(not system.cpu_has_bfloat16(), reason="this CPU emulates bfloat16"),
)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", BFLOAT16])
def test_killed_run_equals_a_straight_one(tmp_path, precision):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(_command(straight, precision), check=True, capture_output=True)

    draws, kills = random.Random(0), []
    for stage in ("teacher", "search", "distill"):
        for k in range(KILLS_PER_STAGE):
            process = subprocess.Popen(
                _command(killed, precision), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if k == 0:  # while it starts or resumes
                time.sleep(draws.uniform(0, 10))
            else:
                _wait_for_a_checkpoint(killed / stage / "checkpoints", process)
                time.sleep(draws.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                kills.append(stage)
    assert len(kills) >= 5
    assert set(kills) == {"teacher", "search", "distill"}
    subprocess.run(_command(killed, precision), check=True, capture_output=True)

    assert (killed / "search/alpha.json").read_bytes() == (
        straight / "search/alpha.json"
    ).read_bytes()
    for path in ("teacher/model.keras", "distill/student.keras"):
        one, other = models.load(straight / path), models.load(killed / path)
        assert same(one.get_weights(), other.get_weights())
    for stage in ("teacher", "distill"):
        one, other = (
            json.loads((w / stage / "metrics.json").read_text()) for w in (straight, killed)
        )
        assert one["curve"] == other["curve"]
        assert one["last"] == other["last"]
        assert np.isfinite(one["last"]["loss"])
