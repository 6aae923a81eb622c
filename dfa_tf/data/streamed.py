"""Labelled images that are read one after the other, and shuffled in a buffer."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.data.decoding import Decoding
from dfa_tf.data.examples import identity
from dfa_tf.data.part import Part

SHUFFLE_BUFFER = 16384  # examples


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedExamples:
    """Labelled images on disk that can only be read in order, as from TFRecord files.

    `IndexedExamples` shuffle better and resume at once.

    Args:
        source: Builds the `tf.data.Dataset` of all pairs (encoded image, label), always in the same
            order.
        decoding: How images are decoded.
        labels: int32 [N], labels of the selected examples.
        indices: int [N], positions of the selected examples in `source`, ascending.
        origin: What distinguishes the examples from others with the same labels.
        shuffle_buffer: Number of encoded examples to shuffle among.
    """

    source: Callable[[], tf.data.Dataset]
    decoding: Decoding
    labels: np.ndarray
    indices: np.ndarray
    origin: str = ""
    shuffle_buffer: int = SHUFFLE_BUFFER

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.decoding.image_shape

    @property
    def description(self) -> str:
        """Identifies the examples, see `AnyExamples.description`."""
        return f"{identity(self.labels, self.origin)}, dataset.in_memory=False"

    def select(self, indices: Sequence[int] | np.ndarray) -> "StreamedExamples":
        """Returns the examples at `indices`, in the order of the source."""
        indices = np.sort(indices)
        return dataclasses.replace(self, labels=self.labels[indices], indices=self.indices[indices])

    def shuffled(
        self, batch_size: int, seed: int, first_step: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Draws an endless sequence of shuffled batches, see `AnyExamples.shuffled`.

        Examples are shuffled within `shuffle_buffer`. Examples before `first_step`, and those of
        other parts, are read but not decoded.
        """
        first_epoch, position = divmod(first_step * batch_size, len(self))
        encoded = self._encoded()

        def epoch(number):
            key = tf.random.split(tf.stack([tf.constant(seed, tf.int64), number]), 1)[0, 0]
            return encoded.shuffle(self.shuffle_buffer, seed=tf.cast(key, tf.int64))

        examples = tf.data.Dataset.counter(first_epoch).flat_map(epoch).skip(position)
        numbered = examples.enumerate(first_step * batch_size)
        rows = part.rows(batch_size)
        if part.count > 1:
            numbered = numbered.filter(
                lambda number, _: number % batch_size // (rows.stop - rows.start) == part.index
            )
        images = self.decoding.training_images(numbered, seed)
        # drop_remainder is only for the static shape: the epochs never end.
        return images.batch(rows.stop - rows.start, drop_remainder=True)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, see `AnyExamples.in_order`."""
        return self.decoding.images(self._encoded()).batch(batch_size)

    def _encoded(self):
        mask = np.zeros(self.indices[-1] + 1, bool)
        mask[self.indices] = True
        mask = tf.constant(mask)
        return (
            self.source()
            .take(len(mask))
            .enumerate()
            .filter(lambda index, _: mask[index])
            .map(lambda _, example: example)
        )
