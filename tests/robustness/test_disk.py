"""Every stage on a full disk and in a read-only folder: one line, and the work can be continued."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, small_network
from tests.robustness.stage import STAGES, contents

pytestmark = pytest.mark.slow

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@contextlib.contextmanager
def _file_system(folder, size, options=""):
    """Mounts a file system of `size` bytes; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    if not mount or not IS_ROOT or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _run(stage, workdir):
    """Runs a stage as a command. Returns (exit status, stderr)."""
    code = (
        "import sys, pathlib; from dfa_tf.commands import main\n"
        "from tests.robustness.stage import run_stage\n"
        "main._run = lambda *arguments: run_stage(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "sys.exit(main.run('search', ['search']))\n"
    )
    command = [sys.executable, "-c", code, stage, str(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_full_disk_is_reported_in_one_line_and_the_run_continues(stage, tmp_path):
    small_network(depth=10, seed=3).save(tmp_path / "student.keras")
    assert _run(stage, tmp_path / "straight")[0] == 0
    used = sum(path.stat().st_size for path in (tmp_path / "straight").rglob("*") if path.is_file())
    workdir = tmp_path / "small"
    for share in (0.05, 0.5):
        with _file_system(workdir, max(4096, int(share * used))):
            status, stderr = _run(stage, workdir)
            assert status in (0, 2), stderr[-3000:]  # 0 if old checkpoints make enough room
            assert "Traceback" not in stderr
            if status == 2:
                assert "No space left" in stderr.strip().splitlines()[-1]
                # The same disk with enough room.
                grown = ["mount", "-o", f"remount,size={4 * used}", str(workdir)]
                subprocess.run(grown, check=True)
                status, stderr = _run(stage, workdir)
                assert status == 0, stderr[-3000:]
            assert contents(stage, workdir) == contents(stage, tmp_path / "straight")


@pytest.mark.parametrize("stage", STAGES)
def test_read_only_folder_is_named(stage, tmp_path):
    small_network(depth=10, seed=3).save(tmp_path / "student.keras")
    with _file_system(tmp_path / "fixed", 2**20, ",ro"):
        status, stderr = _run(stage, tmp_path / "fixed")
        assert status == 2, stderr[-3000:]
        assert str(tmp_path / "fixed") in stderr.strip().splitlines()[-1]
        assert "Traceback" not in stderr
