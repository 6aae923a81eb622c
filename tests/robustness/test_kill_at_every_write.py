"""A process that is killed at any file operation: what is left can be continued to the same result.

A shim for LD_PRELOAD, kill_at.c, counts the file operations of a stage below its workdir and kills
the process at a given one. Two kills in a row are followed by a run to the end.

    DFA_KILL_POINTS=25 bin/test -m slow tests/robustness/test_kill_at_every_write.py -s

tries 25 points of each stage and prints how many were tried.
"""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, small_network
from tests.robustness.stage import STAGES, contents

COMPILER = shutil.which("cc") or shutil.which("gcc")
POINTS = int(os.environ.get("DFA_KILL_POINTS", "0"))
IN_CI = {stage: 4 if stage == "search" else 2 for stage in STAGES}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMPILER or sys.platform != "linux", reason="needs a C compiler"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "kill_at.so"
    source = str(ROOT / "tests/robustness/kill_at.c")
    subprocess.run(
        [COMPILER, "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl", "-lpthread"],
        check=True,
    )
    return library


def _run(stage, workdir, shim, at=0, log=None):
    """Runs a stage that is killed at operation `at`. Returns its exit status."""
    environment = {"LD_PRELOAD": str(shim), "KILL_UNDER": f"{workdir}/", "KILL_AT": str(at)}
    environment |= {"KILL_LOG": str(log)} if log else {}
    command = [sys.executable, "-m", "tests.robustness.stage", stage, str(workdir)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


@pytest.mark.parametrize("stage", STAGES)
def test_result_is_that_of_a_straight_run(stage, shim, tmp_path):
    small_network(depth=10, seed=3).save(tmp_path / "student.keras")
    log = tmp_path / "operations"
    assert _run(stage, tmp_path / "straight", shim, log=log) == 0
    expected, operations = contents(stage, tmp_path / "straight"), len(log.read_text())
    count = POINTS or IN_CI[stage]
    # Spread evenly, from a place that differs between numbers of points.
    points = [1 + int((k + 0.5) * operations / count) for k in range(count)]
    draws, tried = np.random.default_rng(count), 0
    for pair in zip(points[::2], [*points[1::2], operations][: len(points[::2])], strict=True):
        workdir = tmp_path / f"killed_{pair[0]}"
        for number, at in enumerate(pair):
            # What is left to do after the first kill is unknown, so the second place is drawn.
            place = at if number == 0 else int(draws.integers(1, max(2, operations - pair[0])))
            tried += _run(stage, workdir, shim, place) != 0
        _run(stage, workdir, shim)
        assert contents(stage, workdir) == expected, f"killed at {pair} of {operations}"
        assert not [path for path in workdir.rglob("*") if path.name.startswith(".writing-")]
        shutil.rmtree(workdir)
    print(f"{stage}: {tried} kills among {operations} file operations")
    assert tried >= count / 2
