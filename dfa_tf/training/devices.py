"""The devices and processes of a run."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfa_tf.data.part import Part
from dfa_tf.errors import UserError, WorkerLost, first_line
from dfa_tf.training.cluster import cluster_resolver

# Errors that TensorFlow raises if another process stops responding.
LOST_CONNECTION = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy for a value of --strategy. Call it before any other TensorFlow function.

    Args:
        name: "mirrored": all GPUs of this machine, or its CPU. "multi_worker": all machines that
            the environment names (see `cluster_resolver`). "default": one device.

    Raises:
        UserError: If the name is unknown or the environment describes no cluster.
    """
    if name == "mirrored":
        with _without_cluster():
            return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver())
        except UserError:
            raise
        except Exception as error:  # the type depends on what is wrong with the cluster
            raise UserError(
                f"--strategy=multi_worker: the cluster cannot be set up ({first_line(error)})"
            ) from error
    if name == "default":
        return tf.distribute.get_strategy()
    raise UserError(f"--strategy: expected mirrored, multi_worker or default, got {name}")


@contextlib.contextmanager
def _without_cluster():
    """Hides TF_CONFIG. MirroredStrategy ignores its contents, but fails if it is malformed."""
    cluster = os.environ.pop("TF_CONFIG", None)
    try:
        yield
    finally:
        if cluster is not None:
            os.environ["TF_CONFIG"] = cluster


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return resolver.task_type == chief and resolver.task_id == 0


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1
    cluster = resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in ("chief", "worker") if job in cluster.jobs)


def part_of_process(strategy: tf.distribute.Strategy) -> Part:
    """Returns the part of each global batch that the replicas of this process receive."""
    count = worker_count(strategy)
    if count == 1:
        return Part()
    resolver = strategy.cluster_resolver
    chiefs = resolver.cluster_spec().as_dict().get("chief", [])
    # Replicas are numbered in this order.
    index = 0 if resolver.task_type == "chief" else len(chiefs) + resolver.task_id
    return Part(index, count)


def replica_sum(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Sums each tensor of a per-replica structure over the replicas."""
    return tf.nest.map_structure(
        lambda value: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None), values
    )


class Consensus:
    """Sums numbers over all processes, so that all of them make the same decision."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self._workers = worker_count(strategy)
        self._is_chief = is_chief(strategy)
        self._local_replicas = strategy.num_replicas_in_sync // self._workers

        @tf.function
        def total(shares):
            return replica_sum(strategy, strategy.run(tf.identity, args=(shares,)))

        self._total = total

    def __call__(self, values: Sequence[float]) -> list[float]:
        """Returns the sum of each number over the processes."""
        if self._workers == 1:
            return list(values)
        shares = tf.constant(values, tf.float32) / self._local_replicas
        return self._total(shares).numpy().tolist()

    def of_chief(self, number: int) -> int:
        """Returns the whole number that the chief has, from 0 to 2^40."""
        parts = [part * self._is_chief for part in divmod(number, 2**20)]  # sums are in float32
        high, low = self(parts)
        return round(high) * 2**20 + round(low)


@contextlib.contextmanager
def report_lost_workers(label: str, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Reports lost workers: if one stops responding within the block, raises `WorkerLost`.

    Args:
        label: Name of what is running, for the error message.
        strategy: The strategy of the run.

    Raises:
        WorkerLost: If another process stops responding.
    """
    try:
        yield
    except LOST_CONNECTION as error:
        if worker_count(strategy) == 1:
            raise
        raise WorkerLost(
            f"{label}: lost a worker ({type(error).__name__}); the chief's last checkpoint is "
            "kept; restart all workers to continue"
        ) from error
