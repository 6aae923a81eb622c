"""Labelled images that are read from disk by their index."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.data.decoding import Decoding, without_autotuning
from dfa_tf.data.examples import description_by_index, shuffled_batches
from dfa_tf.data.part import Part

PARALLEL_READS = 2  # batches of a training
READ_IN_ORDER = 64  # examples that are read at a time


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedExamples:
    """Labelled images on disk with random access, as in ArrayRecord files.

    Batches hold the same examples as those of `Examples`, in the same order. Only the examples of
    a batch are read for it. A resumed run reads nothing again.

    Args:
        read: Maps positions, int [B], to a list of B encoded examples. Threads may call it.
        parse: Maps an encoded example to (encoded image, label).
        decoding: How images are decoded.
        labels: int32 [N], labels of the selected examples.
        indices: int [N], positions of the selected examples.
        origin: What distinguishes the examples from others with the same labels.
    """

    read: Callable[[np.ndarray], Sequence[bytes]]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    decoding: Decoding
    labels: np.ndarray
    indices: np.ndarray
    origin: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.decoding.image_shape

    @property
    def description(self) -> str:
        """Identifies the examples, see `AnyExamples.description`."""
        return description_by_index(self.labels, self.origin)

    def select(self, indices: Sequence[int] | np.ndarray) -> "IndexedExamples":
        """Returns the examples at `indices`, in that order."""
        return dataclasses.replace(self, labels=self.labels[indices], indices=self.indices[indices])

    def shuffled(
        self, batch_size: int, seed: int, first_step: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Draws an endless sequence of shuffled batches, see `AnyExamples.shuffled`."""
        positions = shuffled_batches(len(self), batch_size, seed, first_step, part)
        own_indices = tf.constant(self.indices, tf.int64)

        def numbered(step, chosen):
            first = step * batch_size + part.rows(batch_size).start
            numbers = first + tf.range(tf.size(chosen, tf.int64))
            return numbers, tf.gather(own_indices, chosen)

        batches = positions.map(numbered).map(
            lambda numbers, indices: (numbers, _read(self.read, indices)),
            PARALLEL_READS,
            deterministic=True,
        )
        examples = batches.unbatch().map(lambda number, encoded: (number, self.parse(encoded)))
        images = self.decoding.training_images(examples, seed)
        rows = part.rows(batch_size)
        # drop_remainder is only for the static shape: the epochs never end.
        return images.batch(rows.stop - rows.start, drop_remainder=True)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, see `AnyExamples.in_order`."""
        indices = tf.data.Dataset.from_tensor_slices(self.indices.astype(np.int64))
        return self.decoding.images(_encoded(self.read, self.parse, indices)).batch(batch_size)


def encoded_examples(read: Callable, parse: Callable, count: int) -> tf.data.Dataset:
    """Returns (encoded image, label) of `count` examples in order. See `IndexedExamples`."""
    return _encoded(read, parse, tf.data.Dataset.range(count))


def _encoded(read, parse, indices):
    batches = indices.batch(READ_IN_ORDER).map(functools.partial(_read, read))
    return without_autotuning(batches.unbatch().map(parse))


def _read(read, indices):
    encoded = tf.numpy_function(lambda i: np.array(read(i), object), [indices], tf.string)
    return tf.ensure_shape(encoded, indices.shape)
