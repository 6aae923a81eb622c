"""Arithmetic over the global batch, from within a replica."""

from collections.abc import Mapping, Sequence

import tensorflow as tf


def global_mean(values: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Returns this replica's share of the mean over the global batch.

    The shares of all replicas sum to the mean.

    Args:
        values: Tensor `[B / replicas]` of any dtype.
        batch_size: Size B of the global batch.

    Returns:
        Float32 scalar.
    """
    return tf.nn.compute_average_loss(tf.cast(values, tf.float32), global_batch_size=batch_size)


def mean_shares(
    prefix: str, measurements: Mapping[str, tf.Tensor], batch_size: int
) -> dict[str, tf.Tensor]:
    """Returns this replica's share of the mean of each measurement, `{"prefix/name": scalar}`.

    Args:
        prefix: The split of the batch, "train" for instance.
        measurements: Tensors `[B / replicas]` by name.
        batch_size: Size B of the global batch.
    """
    return {f"{prefix}/{name}": global_mean(m, batch_size) for name, m in measurements.items()}


def global_batch(x: tf.Tensor) -> tf.Tensor:
    """Concatenates x `[B / replicas, ...]` of all replicas, in order, to `[B, ...]`.

    A loss that compares examples then has the same value and gradients on any number of replicas.
    Gradients flow back to the replicas.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_gather(x, axis=0)


def local_row_offset(x: tf.Tensor) -> tf.Tensor:
    """Returns the index of this replica's first row in `global_batch(x)`."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0)
    return tf.cast(context.replica_id_in_sync_group, tf.int32) * tf.shape(x)[0]


def replica_total(tensors: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Returns the sum of each tensor over the replicas, on every replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
