"""The job files for clusters agree with what the workers read. They are not run on a cluster."""

import re
import subprocess

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


def test_slurm_script_is_valid_and_requeues_a_stopped_run(tmp_path):
    """With commands in place of Slurm's: srun ends as a stopped run does."""
    script = FOLDER / "distill.sbatch"
    for name, body in (("srun", "exit 143"), ("scontrol", 'echo "$@"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, "requeue 7\n")
