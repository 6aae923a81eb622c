"""Labelled images, in memory or streamed from disk, and the order in which batches hold them."""

import copy
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.data.part import Part
from dfa_tf.errors import UserError
from dfa_tf.progress import with_progress

ALIGNMENT = 64  # bytes, of TensorFlow's memory
BATCH_BYTES = 4 * 2**20  # decoded images that are read at a time
SHUFFLE_BUFFER = 16384  # examples
CROP = 3  # distinguishes the seeds of crops from those of the order and of the augmentation


class Examples:
    """Labelled images in memory. Selections share the pixels with the examples they came from.

    Args:
        images: uint8 [N, H, W, C].
        labels: int [N].
        origin: What distinguishes the examples from others with the same labels.
        copy: Whether to copy the images. Otherwise they must come from `aligned_empty`, and must
            not change.

    Raises:
        UserError: If dtype or shape of an argument is wrong.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, origin: str = "", *, copy: bool = True
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(
                f"images: expected uint8 [N, H, W, C], got {images.dtype} {list(images.shape)}"
            )
        if labels.shape != images.shape[:1]:
            raise UserError(
                f"labels: expected {len(images)} labels for {len(images)} images, got {list(labels.shape)}"
            )
        if copy:
            aligned = aligned_empty(images.shape)
            aligned[...] = images
            images = aligned
        # Without a copy, which `tf.constant` makes twice.
        self._pixels = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
        self._indices = np.arange(len(labels))
        self._origin = origin
        self.labels = labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def description(self) -> str:
        """Identifies the examples and how they are held, which determines their shuffled order."""
        return f"{_identity(self.labels, self._origin)}, dataset.in_memory=True"

    @property
    def images(self) -> np.ndarray:
        """A copy of the images, uint8 [N, H, W, C]."""
        return tf.gather(self._pixels, self._indices).numpy()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return tuple(self._pixels.shape[1:])

    def select(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """Returns the examples at `indices`, in that order."""
        selection = copy.copy(self)
        selection._indices, selection.labels = self._indices[indices], self.labels[indices]
        return selection

    def shuffled(
        self, batch_size: int, seed: int, first_step: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Draws an endless sequence of shuffled batches.

        Each epoch is a permutation of all examples. A batch may span two epochs. Its contents
        depend on (seed, step) only, so training can start at any step.

        Args:
            batch_size: Examples in a batch.
            seed: Seed of the order.
            first_step: Step of the first batch.
            part: The part of each batch to read.

        Returns:
            A data set of (images [B, H, W, C] uint8, labels [B] int32).
        """
        own_indices, labels = tf.constant(self._indices), tf.constant(self.labels)

        def batch(step):
            indices = shuffled_indices(step, batch_size, len(self), seed)[part.rows(batch_size)]
            images = tf.gather(self._pixels, tf.gather(own_indices, indices))
            return images, tf.gather(labels, indices)

        return without_autotuning(tf.data.Dataset.counter(first_step).map(batch))

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, in batches as in `shuffled`.

        The last batch may be smaller.
        """
        batches = tf.data.Dataset.from_tensor_slices((self._indices, self.labels)).batch(batch_size)
        return without_autotuning(
            batches.map(lambda indices, labels: (tf.gather(self._pixels, indices), labels))
        )


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedExamples:
    """Labelled images that are read and decoded batch by batch.

    Args:
        source: Builds the `tf.data.Dataset` of all pairs (undecoded image, label), always in the
            same order.
        decode: Maps an undecoded image to uint8 [H, W, C].
        image_shape: (height, width, channels).
        labels: int32 [N], labels of the selected examples.
        indices: int [N], positions of the selected examples in `source`, ascending.
        origin: What distinguishes the examples from others with the same labels.
        shuffle_buffer: Number of undecoded examples to shuffle among.
        crop: Maps an undecoded image and a seed, int [2], to a random crop, uint8 [H, W, C], which
            shuffled batches hold in place of the decoded image; None for no crop.
    """

    source: Callable[[], tf.data.Dataset]
    decode: Callable[[tf.Tensor], tf.Tensor]
    image_shape: tuple[int, int, int]
    labels: np.ndarray
    indices: np.ndarray
    origin: str = ""
    shuffle_buffer: int = SHUFFLE_BUFFER
    crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def description(self) -> str:
        """Identifies the examples, see `Examples.description`."""
        return f"{_identity(self.labels, self.origin)}, dataset.in_memory=False"

    def select(self, indices: Sequence[int] | np.ndarray) -> "StreamedExamples":
        """Returns the examples at `indices`, in the order of the source."""
        indices = np.sort(indices)
        return dataclasses.replace(self, labels=self.labels[indices], indices=self.indices[indices])

    def shuffled(
        self, batch_size: int, seed: int, first_step: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Draws an endless sequence of shuffled batches, see `Examples.shuffled`.

        Examples are shuffled within `shuffle_buffer`. Examples before `first_step`, and those of
        other parts, are read but not decoded.
        """
        first_epoch, position = divmod(first_step * batch_size, len(self))
        undecoded = self._undecoded()

        def epoch(number):
            key = tf.random.split(tf.stack([tf.constant(seed, tf.int64), number]), 1)[0, 0]
            return undecoded.shuffle(self.shuffle_buffer, seed=tf.cast(key, tf.int64))

        examples = tf.data.Dataset.counter(first_epoch).flat_map(epoch).skip(position)
        numbered = examples.enumerate(first_step * batch_size)
        rows = part.rows(batch_size)
        if part.count > 1:
            numbered = numbered.filter(
                lambda number, _: number % batch_size // (rows.stop - rows.start) == part.index
            )
        if self.crop is None:
            undecoded = numbered.map(lambda _, example: example)
            decoded = _decoded(undecoded, self.decode, self.image_shape)
        else:
            decoded = self._cropped(numbered, seed)
        # drop_remainder is only for the static shape: the epochs never end.
        return decoded.batch(rows.stop - rows.start, drop_remainder=True)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, see `Examples.in_order`."""
        return _decoded(self._undecoded(), self.decode, self.image_shape).batch(batch_size)

    def _cropped(self, examples, seed):
        """Maps (number, (undecoded image, label)) to (random crop, label)."""

        def cropped(number, example):
            image, label = example
            own_seed = tf.random.experimental.stateless_fold_in(
                tf.stack([tf.constant(seed, tf.int64), number]), CROP
            )
            image = tf.ensure_shape(self.crop(image, own_seed), self.image_shape)
            return image, tf.cast(label, tf.int32)

        return _mapped(examples, cropped)

    def _undecoded(self):
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


AnyExamples = Examples | StreamedExamples


def read_labels(
    source: Callable[[], tf.data.Dataset],
    decode: Callable[[tf.Tensor], tf.Tensor],
    image_shape: tuple[int, int, int],
    origin: str = "",
    shuffle_buffer: int = SHUFFLE_BUFFER,
    crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> StreamedExamples:
    """Returns all examples of `source`. Only their labels are read now.

    Args:
        source: As in `StreamedExamples`.
        decode: As in `StreamedExamples`.
        image_shape: As in `StreamedExamples`.
        origin: As in `StreamedExamples`.
        shuffle_buffer: As in `StreamedExamples`.
        crop: As in `StreamedExamples`.
    """
    labels = without_autotuning(source().map(lambda _, label: label).batch(4096))
    batches = labels.as_numpy_iterator()
    labels = np.concatenate([np.zeros(0, np.int32), *batches]).astype(np.int32)
    indices = np.arange(len(labels))
    return StreamedExamples(
        source, decode, image_shape, labels, indices, origin, shuffle_buffer, crop
    )


def read_into_memory(
    source: Callable[[], tf.data.Dataset],
    decode: Callable[[tf.Tensor], tf.Tensor],
    image_shape: tuple[int, int, int],
    count: int,
    origin: str = "",
) -> Examples:
    """Reads and decodes all examples of `source`.

    Args:
        source: As in `StreamedExamples`.
        decode: As in `StreamedExamples`.
        image_shape: As in `StreamedExamples`.
        count: Number of examples in `source`.
        origin: As in `Examples`.
    """
    images, labels = aligned_empty((count, *image_shape)), np.empty(count, np.int32)
    start = 0
    batches = _decoded(source(), decode, image_shape).batch(small_batch_size(image_shape))
    for image_batch, label_batch in with_progress(
        "reading images", batches.as_numpy_iterator(), count
    ):
        end = start + len(image_batch)
        images[start:end], labels[start:end] = image_batch, label_batch
        start = end
    return Examples(images[:start], labels[:start], origin, copy=False)


def small_batch_size(image_shape: Sequence[int]) -> int:
    """Returns a batch size with which decoded images need little memory."""
    return max(1, BATCH_BYTES // math.prod(image_shape))


def aligned_empty(shape: Sequence[int]) -> np.ndarray:
    """Returns an uninitialized uint8 array whose memory TensorFlow can use."""
    size = math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)


def shuffled_indices(step: tf.Tensor, batch_size: int, count: int, seed: int) -> tf.Tensor:
    """Computes which examples a batch holds.

    Positions continue over the epochs. Each epoch is a permutation by a cipher keyed with
    (seed, epoch), so no order is stored and any position can be computed.

    Args:
        step: int64 scalar, the step of the batch.
        batch_size: Examples in a batch.
        count: Number of examples.
        seed: Seed of the order.

    Returns:
        int64 [batch_size], each from 0 to count - 1.
    """
    count = tf.constant(count, tf.int64)
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epochs = positions // count
    keys = tf.stack([tf.fill([batch_size], tf.constant(seed, tf.int64)), epochs, 0 * epochs], 1)
    # Four rounds, the default, leave neighbours correlated. Eight leave no measurable correlation.
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % count, seed=keys, max_index=count - 1, rounds=8
    )


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with autotuning disabled.

    TensorFlow's tuning thread can delay the end of an iterator for minutes.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _identity(labels, origin):
    """Returns the number of examples, a digest of their labels in order, and their origin."""
    digest = hashlib.sha256(np.ascontiguousarray(labels, "<i4").tobytes()).hexdigest()
    return f"{len(labels)} examples {digest[:8]}" + (f" of {origin}" if origin else "")


def _decoded(dataset, decode, image_shape):
    def pair(image, label):
        return tf.ensure_shape(decode(image), image_shape), tf.cast(label, tf.int32)

    return _mapped(dataset, pair)


def _mapped(dataset, function):
    return without_autotuning(dataset.map(function, os.cpu_count(), deterministic=True))
