"""The batches that a run draws, each stream of them with a seed of its own."""

import tensorflow as tf

from dfa_tf.data.pipeline import training_batches
from dfa_tf.seeds import derived_seed
from dfa_tf.training.devices import part_of_process
from dfa_tf.training.recipe import Training


def batches_seed(training: Training, label: str, split: str = "data") -> int:
    """Returns the seed of a stream of batches. Arguments are as in `drawn_batches`."""
    return derived_seed(training.seed, f"{label}/{split}")


def drawn_batches(
    examples,
    training: Training,
    label: str,
    first_step: int,
    strategy: tf.distribute.Strategy,
    *,
    split: str = "data",
    period: int = 0,
) -> tf.data.Dataset:
    """Returns this process's parts of the batches of a run, from `first_step` on.

    Args:
        examples: The examples to draw from.
        training: The recipe.
        label: Name of what is running.
        first_step: Step of the first batch.
        strategy: The strategy of the run.
        split: Name of the stream, if the run draws from several sets of examples.
        period: As in `training_batches`.
    """
    return training_batches(
        examples,
        training.batch_size,
        training.augmentation,
        batches_seed(training, label, split),
        first_step,
        part_of_process(strategy),
        period,
    )
