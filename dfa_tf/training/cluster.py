"""The machines of a run, as the environment of each process names them."""

import os
import shutil

import tensorflow as tf

from dfa_tf.errors import UserError

PORT = 8888  # of the first process on a machine, where the environment names none
POD_LABEL, HOST = "DFA_POD_LABEL", "HOST_IP"

resolvers = tf.distribute.cluster_resolver


def cluster_resolver(environ=os.environ):
    """The tf.distribute resolver of this process: of TF_CONFIG, else of Slurm, else of Kubernetes.

    Slurm: every task of the step is a worker, and GPUs are shared out evenly among a machine's.
    Kubernetes: the pods with the label in DFA_POD_LABEL (as "job-name=dfa") are the workers, one
    to a machine and on its network; HOST_IP is the machine's address. Needs the package kubernetes.
    Raises UserError where the environment names no machines, or not this one.
    """
    if environ.get("TF_CONFIG"):
        return resolvers.TFConfigClusterResolver()
    if environ.get("SLURM_STEP_NODELIST"):
        return _slurm(environ)
    if environ.get("KUBERNETES_SERVICE_HOST") and environ.get(POD_LABEL):
        return _of_pods(
            resolvers.KubernetesClusterResolver({"worker": [environ[POD_LABEL]]}, PORT), environ
        )
    raise UserError(
        f"--strategy=multi_worker needs TF_CONFIG, which names the machines, or a Slurm step, or in Kubernetes {POD_LABEL} and {HOST}"
    )


def _slurm(environ):
    if environ.get("CUDA_VISIBLE_DEVICES") or shutil.which("nvidia-smi"):
        return resolvers.SlurmClusterResolver(port_base=PORT)
    # Without GPUs TensorFlow's resolver would make no workers: as if each task had one.
    slurm = resolvers.SlurmClusterResolver(
        port_base=PORT,
        gpus_per_node=int(environ["SLURM_STEP_NUM_TASKS"]),
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    cluster = slurm.cluster_spec()
    return _resolver(cluster, *slurm.get_task_info(), gpus=0)


def _of_pods(pods, environ):
    hosts = sorted(pods.cluster_spec().job_tasks("worker"))  # alike in every pod
    own = f"{environ.get(HOST)}:{PORT}"
    if own not in hosts:
        raise UserError(
            f"--strategy=multi_worker: {HOST} is {environ.get(HOST)}, none of {', '.join(hosts)}"
        )
    gpus = len(tf.config.list_physical_devices("GPU"))
    return _resolver(tf.train.ClusterSpec({"worker": hosts}), "worker", hosts.index(own), gpus)


def _resolver(cluster, job, index, gpus):
    return resolvers.SimpleClusterResolver(
        cluster,
        task_type=job,
        task_id=index,
        num_accelerators={"GPU": gpus} if gpus else {},
        rpc_layer="grpc",
    )
