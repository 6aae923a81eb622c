"""The devices a run is spread over."""

import tensorflow as tf

from dfa_tf.errors import UserError, first_line
from dfa_tf.training.cluster import cluster_resolver


def strategy_named(name):
    """The tf.distribute strategy that --strategy names.

    "mirrored": all GPUs of this machine, or its CPU. "multi_worker": all machines that the
    environment names (see `cluster_resolver`). "default": one device. Call it before anything else of TensorFlow.
    """
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver())
        except UserError:
            raise
        except Exception as error:  # of many kinds, by what is wrong with the cluster
            raise UserError(
                f"--strategy=multi_worker: the environment does not make a cluster ({first_line(error)})"
            ) from error
    if name == "default":
        return tf.distribute.get_strategy()
    raise UserError(f"--strategy is mirrored, multi_worker or default, not {name}")


def is_chief(strategy):
    """Whether this process is the one that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return resolver.task_type == chief and resolver.task_id == 0


def workers(strategy):
    """How many processes take part."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1
    cluster = resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in ("chief", "worker") if job in cluster.jobs)


def global_mean(values, batch_size):
    """This replica's share of the mean over the global batch: the shares sum up to it.

    values: [B / replicas], any dtype.
    """
    return tf.nn.compute_average_loss(tf.cast(values, tf.float32), global_batch_size=batch_size)


def replica_sum(strategy, values):
    """Sums a per-replica structure over the replicas."""
    return tf.nest.map_structure(
        lambda value: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None), values
    )


class Agreement:
    """Lets all processes of a run decide as one, from numbers that each of them gives."""

    def __init__(self, strategy):
        self._workers = workers(strategy)
        self._local_replicas = strategy.num_replicas_in_sync // self._workers

        @tf.function
        def total(shares):
            return replica_sum(strategy, strategy.run(tf.identity, args=(shares,)))

        self._total = total

    def __call__(self, values):
        """The sum of each number over the processes; in one process, the list as it is."""
        if self._workers == 1:
            return list(values)
        shares = tf.constant(values, tf.float32) / self._local_replicas
        return self._total(shares).numpy().tolist()
