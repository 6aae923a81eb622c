"""A data set: splits, classes, normalization and augmentation."""

import dataclasses
from typing import Any

import numpy as np

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.examples import AnyExamples, small_batch_size
from dfa_tf.data.preprocessing import Preprocessing
from dfa_tf.data.splits import stratified_split
from dfa_tf.progress import with_progress


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """An image classification data set.

    Args:
        name: Name of the data set.
        train: Training examples of teachers and students.
        test: Test examples.
        class_names: Names by label.
        mean: Mean of each channel, as a fraction of 255.
        std: Standard deviation of each channel, as a fraction of 255.
        augmentation: Augmentation of training images.
        preprocessing: How pictures of other sizes are resized for evaluation and use.
        official_splits: Official (training, validation) examples, or None if the data set has no
            validation split.
        validation_fraction: Share of `train` that the search uses as validation examples if
            there is no official validation split.
        notes: What the user should know about the splits, each a line.
    """

    name: str
    train: AnyExamples
    test: AnyExamples
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = Augmentation()
    preprocessing: Preprocessing = Preprocessing()
    official_splits: tuple[AnyExamples, AnyExamples] | None = None
    validation_fraction: float = 0.3
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.train.image_shape

    @property
    def task(self) -> dict[str, Any]:
        """Arguments that depend on the data set, for the functions that build networks."""
        return {
            "num_classes": self.num_classes,
            "image_shape": self.image_shape,
            "mean": self.mean,
            "std": self.std,
        }

    def search_split(self, seed: int) -> tuple[AnyExamples, AnyExamples]:
        """Returns the (training, validation) examples of a search (DFA, §4.1).

        These are the official splits if there are two, else a stratified split of `train`.

        Args:
            seed: Seed of the stratified split.
        """
        if self.official_splits is not None:
            return self.official_splits
        return stratified_split(
            self.train, self.validation_fraction, seed, "dataset.validation_fraction"
        )


def imbalance(dataset: Dataset) -> str | None:
    """Returns a note if the classes differ in their number of training images by 1.5 or more.

    The note names the settings that weigh the classes.
    """
    counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    least, most = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[most] < 1.5 * counts[least]:
        return None
    names = dataset.class_names
    return (
        f"{dataset.name}: the classes have from {counts[least]:,} ({names[least]}) to "
        f"{counts[most]:,} ({names[most]}) training images; bind train_teacher.class_weights and "
        "distill.class_weights to 'balanced' to weigh the classes equally"
    )


def pixel_statistics(
    examples: AnyExamples, limit: int = 10_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and standard deviation of the pixels, per channel.

    Args:
        examples: Images to average over.
        limit: Number of images after which to stop, rounded up to a batch.

    Returns:
        Mean and standard deviation of each channel, as fractions of 255.
    """
    channels = examples.image_shape[-1]
    counts, seen = np.zeros((channels, 256), np.int64), 0
    batches = examples.in_order(small_batch_size(examples.image_shape)).as_numpy_iterator()
    total = min(limit, len(examples))
    for images, _ in with_progress("measuring the mean of the pixels", batches, total):
        for channel in range(channels):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
        seen += len(images)
        if seen >= limit:
            break
    values, pixels = np.arange(256) / 255, counts.sum(-1)
    mean = counts @ values / pixels
    std = np.sqrt(np.maximum(counts @ values**2 / pixels - mean**2, 1e-6))
    return tuple(mean.tolist()), tuple(std.tolist())
