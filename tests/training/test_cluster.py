"""The workers that the environment names."""

import types

import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.training import cluster

SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}
TASKS = ["node07:8888", "node07:8889", "node08:8888"]


@pytest.fixture
def slurm(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_slurm_step_without_gpus(slurm):
    slurm.setattr(cluster.shutil, "which", lambda name: None)
    resolver = cluster.cluster_resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": TASKS}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
    assert resolver.num_accelerators() == {}


def test_slurm_tasks_share_the_gpus_of_a_machine(slurm):
    slurm.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    resolver = cluster.cluster_resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": TASKS}
    assert resolver.num_accelerators() == {"GPU": 2}


def _kubernetes(monkeypatch, host):
    """The resolver of a pod in a job of two. The API lists the pods in any order."""
    calls = []

    def resolver(labels, port):
        calls.append((labels, port))
        hosts = tf.train.ClusterSpec({"worker": ["10.0.0.9:8888", "10.0.0.4:8888"]})
        return types.SimpleNamespace(cluster_spec=lambda: hosts)

    monkeypatch.setattr(cluster.resolvers, "KubernetesClusterResolver", resolver)
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "DFA_POD_LABEL": "job-name=dfa"}
    found = cluster.cluster_resolver(environ | {"HOST_IP": host})
    assert calls == [({"worker": ["job-name=dfa"]}, 8888)]
    return found


def test_kubernetes_pods_agree_on_their_order(monkeypatch):
    resolver = _kubernetes(monkeypatch, "10.0.0.9")
    assert resolver.cluster_spec().as_dict() == {"worker": ["10.0.0.4:8888", "10.0.0.9:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


def test_unknown_host_is_named(monkeypatch):
    with pytest.raises(UserError, match=r"HOST_IP.*10\.0\.0\.5"):
        _kubernetes(monkeypatch, "10.0.0.5")


def test_environment_without_machines_is_an_error():
    with pytest.raises(UserError, match="TF_CONFIG"):
        cluster.cluster_resolver({})
