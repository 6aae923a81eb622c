"""Batches: drawn as a function of the step, augmented, and divided among replicas."""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.examples import AnyExamples
from dfa_tf.data.part import Part
from dfa_tf.errors import UserError
from dfa_tf.validation import Count, check_value


def training_batches(
    examples: AnyExamples,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    first_step: int = 0,
    part: Part = Part(),
    period: int = 0,
) -> tf.data.Dataset:
    """Draws an endless sequence of augmented batches.

    The batch of a step depends on (seed, step) only: starting at `first_step` continues the
    sequence that starts at 0.

    Args:
        examples: Examples to draw from.
        batch_size: Examples in a batch, over all replicas.
        augmentation: Augmentation of the images; Augmentation(pad=0, flip=False) for none.
        seed: Seed of order and augmentation.
        first_step: Step of the first batch.
        part: The part of each batch to read.
        period: Number of steps after which the sequence repeats, with the same augmentation; 0 for
            no repetition.

    Returns:
        A data set of (images [B, H, W, C] uint8, labels [B] int32).
    """

    def augment(step, batch):
        images, labels = batch
        own_seed = tf.stack([tf.constant(seed, tf.int64), step])
        return augmentation(images, own_seed, part), labels

    parallel = {"num_parallel_calls": os.cpu_count(), "deterministic": True}
    options = parallel if augmentation.is_slow else {}

    def batches(first):
        drawn = examples.shuffled(batch_size, seed, first, part)
        return drawn.enumerate(first).map(augment, **options)

    return repeated(batches, first_step, period).prefetch(4)


def repeated(
    sequence: Callable[[int], tf.data.Dataset], first_step: int, period: int
) -> tf.data.Dataset:
    """Returns a sequence from `first_step` on, where step s has the element of step s mod period.

    Args:
        sequence: A function of a step that returns the sequence from that step on.
        first_step: The first step.
        period: Number of steps after which the sequence repeats; 0 for no repetition.
    """
    if not period:
        return sequence(first_step)
    position = first_step % period
    rest = sequence(position).take(period - position)
    return rest.concatenate(sequence(0).take(period).repeat())


def check_batches(
    examples: AnyExamples, batch_size: int, augmentation: Augmentation, replicas: int = 1
) -> None:
    """Checks that batches can be drawn from `examples` and divided among the replicas.

    Args:
        examples: Examples to draw from.
        batch_size: Examples in a batch, over all replicas.
        augmentation: Augmentation of the images.
        replicas: Number of replicas.

    Raises:
        UserError: If `batch_size` is not a positive multiple of `replicas` or exceeds the number
            of examples, or if the padding is not smaller than the images.
    """
    check_value("batch_size", batch_size, Count)
    if batch_size % replicas:
        raise UserError(
            f"batch_size: expected a multiple of {replicas}, the number of replicas, got {batch_size}"
        )
    if batch_size > len(examples):
        raise UserError(
            f"batch_size: expected at most the {len(examples)} examples of the split, got "
            f"{batch_size}; reduce batch_size"
        )
    height, width = examples.image_shape[:2]
    if augmentation.pad >= min(height, width):
        raise UserError(
            f"dataset.pad: expected fewer pixels than images of {height}x{width} have, got "
            f"{augmentation.pad}; reduce dataset.pad"
        )


def replica_part(batch: Any, processes: int = 1) -> Any:
    """Returns the rows of this process's part of a batch that belong to this replica.

    Call it inside `strategy.run`. The examples of a global batch and their order do not depend on
    the number of replicas.

    Args:
        batch: A structure of tensors [B / processes, ...].
        processes: Number of processes, each of which has as many replicas.

    Returns:
        The structure with tensors [B / replicas, ...].
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync // processes
    if replicas == 1:
        return batch
    with tf.device("CPU:0"):  # so that only the part is copied to the replica's device
        return tf.nest.map_structure(
            lambda x: tf.reshape(x, [replicas, x.shape[0] // replicas, *x.shape[1:]])[
                context.replica_id_in_sync_group % replicas
            ],
            batch,
        )
