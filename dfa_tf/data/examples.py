"""Labelled images, and the order in which batches hold them."""

import copy
import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from dfa_tf.data.decoding import without_autotuning
from dfa_tf.data.part import Part
from dfa_tf.errors import UserError
from dfa_tf.progress import with_progress

ALIGNMENT = 64  # bytes, of TensorFlow's memory
BATCH_BYTES = 4 * 2**20  # decoded images that are read at a time


class AnyExamples(Protocol):
    """Labelled images, held in memory or read from disk.

    Attributes:
        labels: int32 [N].
    """

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""

    @property
    def description(self) -> str:
        """Identifies the examples and how they are held, which determines their shuffled order."""

    def __len__(self) -> int: ...

    def select(self, indices: Sequence[int] | np.ndarray) -> "AnyExamples":
        """Returns the examples at `indices`."""

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

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, in batches as in `shuffled`.

        The last batch may be smaller.
        """


class Examples:
    """Labelled images in memory. Selections share the pixels with the examples they came from.

    Args:
        images: uint8 [N, H, W, C].
        labels: int [N].
        origin: What distinguishes the examples from others with the same labels; by default a digest
            of the images.
        copy: Whether to copy the images. Otherwise they must come from `aligned_empty`, and must
            not change.

    Raises:
        UserError: If dtype or shape of an argument is wrong.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        origin: str | None = None,
        *,
        copy: bool = True,
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
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"labels: expected integers, got {labels.dtype}")
        if copy:
            aligned = aligned_empty(images.shape)
            aligned[...] = images
            images = aligned
        # Without a copy, which `tf.constant` makes twice.
        self._pixels = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
        self._indices = np.arange(len(labels))
        self._origin = pixel_digest(images) if origin is None else origin
        self.labels = labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def description(self) -> str:
        """Identifies the examples, see `AnyExamples.description`."""
        return description_by_index(self.labels, self._origin)

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
        """Draws an endless sequence of shuffled batches, see `AnyExamples.shuffled`."""
        own_indices, labels = tf.constant(self._indices), tf.constant(self.labels)

        def batch(_, indices):
            images = tf.gather(self._pixels, tf.gather(own_indices, indices))
            return images, tf.gather(labels, indices)

        batches = shuffled_batches(len(self), batch_size, seed, first_step, part)
        return without_autotuning(batches.map(batch))

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        """Returns each example once, in order, see `AnyExamples.in_order`."""
        batches = tf.data.Dataset.from_tensor_slices((self._indices, self.labels)).batch(batch_size)
        return without_autotuning(
            batches.map(lambda indices, labels: (tf.gather(self._pixels, indices), labels))
        )


def read_into_memory(
    batches: tf.data.Dataset, image_shape: tuple[int, int, int], count: int, origin: str = ""
) -> Examples:
    """Reads all examples of a data set.

    Args:
        batches: Batches of (images [B, H, W, C] uint8, labels [B]).
        image_shape: (height, width, channels).
        count: Number of examples in all batches.
        origin: As in `Examples`.
    """
    images, labels = aligned_empty((count, *image_shape)), np.empty(count, np.int32)
    start = 0
    for image_batch, label_batch in with_progress(
        "reading images", batches.as_numpy_iterator(), count
    ):
        end = start + len(image_batch)
        images[start:end], labels[start:end] = image_batch, label_batch
        start = end
    return Examples(images[:start], labels[:start], origin, copy=False)


def pixel_digest(images: np.ndarray) -> str:
    """Returns a digest of images in memory."""
    return f"pixels {hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:8]}"


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


def shuffled_batches(
    count: int, batch_size: int, seed: int, first_step: int, part: Part
) -> tf.data.Dataset:
    """Returns the endless data set of (step, positions of the examples of its batch).

    Args:
        count: Number of examples.
        batch_size: Examples in a batch.
        seed: Seed of the order.
        first_step: Step of the first batch.
        part: The part of each batch to return.
    """
    return tf.data.Dataset.counter(first_step).map(
        lambda step: (step, shuffled_indices(step, batch_size, count, seed)[part.rows(batch_size)])
    )


def description_by_index(labels: np.ndarray, origin: str) -> str:
    """Identifies examples that are shuffled by their index, in memory or not."""
    return f"{identity(labels, origin)}, dataset.in_memory=True"


def identity(labels: np.ndarray, origin: str) -> str:
    """Returns the number of examples, a digest of their labels in order, and their origin."""
    digest = hashlib.sha256(np.ascontiguousarray(labels, "<i4").tobytes()).hexdigest()
    return f"{len(labels)} examples {digest[:8]}" + (f" of {origin}" if origin else "")
