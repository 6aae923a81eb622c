"""Processes and threads that want one folder at once."""

import concurrent.futures
import subprocess
import sys

import pytest

from dfa_tf import files
from tests.conftest import ROOT

CODE = """
import pathlib, sys, time
from dfa_tf.errors import UserError
from dfa_tf.stages.folder import StageFolder

folder = StageFolder(sys.argv[1], "distill", "student.keras", {"distill.epochs": "1"})
print("ready", flush=True)
sys.stdin.readline()
for round in range(20):
    print(round, end=" ", flush=True)
    try:
        with folder.work():
            path = folder.path / "owner"
            assert not path.exists()
            path.write_text("mine")
            time.sleep(0.02)
            path.unlink()
            print("worked", flush=True)
    except UserError as error:
        assert "another process" in str(error), error
        print("refused", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_one_of_two_processes_works_and_the_other_is_refused(tmp_path):
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    outcomes = []
    for _ in range(20):
        for process in processes:  # both start at once
            process.stdin.write("\n")
            process.stdin.flush()
        outcomes.append({process.stdout.readline().split()[1] for process in processes})
    for process in processes:
        assert process.communicate("\n", timeout=60)[1].count("Traceback") == 0
        assert process.returncode == 0
    # One that starts after the other has ended works too.
    assert all("worked" in outcome for outcome in outcomes)
    assert any("refused" in outcome for outcome in outcomes)


def test_lock_is_handed_on_while_its_holders_delete_the_file(tmp_path):
    """Each of 5,000 blocks runs alone: a holder may delete the file while another one opens it."""
    inside, overlaps = [], []

    def work(number):
        with files.exclusive(tmp_path, "another thread works here"):
            inside.append(number)
            overlaps.extend(inside[:-1])
            inside.remove(number)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(5000)))
    assert not overlaps
