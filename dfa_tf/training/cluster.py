"""The machines of a run, read from the environment of each process."""

import os
import shutil
from collections.abc import Mapping

import tensorflow as tf

from dfa_tf.errors import UserError

PORT = 8888  # of the first process on a machine, if the environment sets no port
POD_LABEL, HOST = "DFA_POD_LABEL", "HOST_IP"

resolvers = tf.distribute.cluster_resolver


def cluster_resolver(environ: Mapping[str, str] = os.environ):
    """Returns the tf.distribute resolver of this process, from TF_CONFIG, Slurm or Kubernetes.

    With Slurm, every task of the step is a worker, and the tasks of a machine share its GPUs
    evenly. With Kubernetes, the pods with the label in DFA_POD_LABEL ("job-name=dfa") are the
    workers. Each machine runs one, on the host network, and HOST_IP is the machine's address.
    Kubernetes requires the package `kubernetes`.

    Args:
        environ: The environment variables.

    Returns:
        A `tf.distribute.cluster_resolver.ClusterResolver`.

    Raises:
        UserError: If the environment does not name the machines, or this machine is missing.
    """
    if environ.get("TF_CONFIG"):
        resolver = resolvers.TFConfigClusterResolver()
        if not resolver.cluster_spec().jobs:
            raise UserError(
                "TF_CONFIG: expected a cluster with workers, got none; list the workers, or use "
                "another --strategy"
            )
        return resolver
    if environ.get("SLURM_STEP_NODELIST"):
        return _slurm(environ)
    if environ.get("KUBERNETES_SERVICE_HOST") and environ.get(POD_LABEL):
        return _kubernetes(
            resolvers.KubernetesClusterResolver({"worker": [environ[POD_LABEL]]}, PORT), environ
        )
    raise UserError(
        "--strategy=multi_worker: expected TF_CONFIG, a Slurm step, or in Kubernetes "
        f"{POD_LABEL} and {HOST} in the environment, got none of them"
    )


def _slurm(environ):
    if environ.get("CUDA_VISIBLE_DEVICES") or shutil.which("nvidia-smi"):
        return resolvers.SlurmClusterResolver(port_base=PORT)
    # Without GPUs, TensorFlow's resolver creates no workers, so it gets one GPU for each task here,
    # and the resolver that is returned has none.
    slurm = resolvers.SlurmClusterResolver(
        port_base=PORT,
        gpus_per_node=int(environ["SLURM_STEP_NUM_TASKS"]),
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    cluster = slurm.cluster_spec()
    job, index = slurm.get_task_info()  # set by cluster_spec()
    return _resolver(cluster, job, index, gpus=0)


def _kubernetes(pods, environ):
    hosts = sorted(pods.cluster_spec().job_tasks("worker"))  # in the same order in every pod
    address = f"{environ.get(HOST)}:{PORT}"
    if address not in hosts:
        raise UserError(f"{HOST}: expected one of {', '.join(hosts)}, got {environ.get(HOST)}")
    gpus = len(tf.config.list_physical_devices("GPU"))
    return _resolver(tf.train.ClusterSpec({"worker": hosts}), "worker", hosts.index(address), gpus)


def _resolver(cluster, job, index, gpus):
    return resolvers.SimpleClusterResolver(
        cluster,
        task_type=job,
        task_id=index,
        num_accelerators={"GPU": gpus} if gpus else {},
        rpc_layer="grpc",
    )
