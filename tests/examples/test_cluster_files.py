"""The job files for clusters agree with what the workers read. They are not run on a cluster."""

import re
import subprocess

import pytest

from dfa_tf.training.cluster import HOST, POD_LABEL
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "cluster"


def test_manifest_sets_the_variables_that_a_worker_reads():
    text = (FOLDER / "distill.yaml").read_text()
    job = text[text.index("kind: Job") :]
    (name,) = re.findall(r"^  name: (\S+)$", job, re.M)
    # Kubernetes gives the pods of a job the label job-name.
    assert f"- name: {POD_LABEL}\n              value: job-name={name}" in job
    assert re.search(rf"- name: {HOST}\n.*\n.*\n *fieldPath: status\.hostIP", job)
    assert "hostNetwork: true" in job
    completions, parallelism = re.findall(r"(?:completions|parallelism): (\d+)", job)
    assert completions == parallelism  # all workers run at once


@pytest.mark.parametrize("status", [0, 1, 2, 75, 137, 143])
def test_slurm_script_requeues_runs_that_can_resume(tmp_path, status):
    """With commands in place of Slurm's: srun ends with the status of the run."""
    script = FOLDER / "distill.sbatch"
    for name, body in (("srun", f"exit {status}"), ("scontrol", 'echo "$@"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    # 75: a worker was lost. 143: stopped after a checkpoint. 137: killed.
    expected = "requeue 7\n" if status in (75, 137, 143) else ""
    assert (done.returncode, done.stdout) == (status, expected)
