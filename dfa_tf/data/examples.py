"""Labelled images, held in memory or streamed, and the parts a data set is cut into."""

import copy
import dataclasses
import hashlib
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from dfa_tf.errors import UserError


class Examples:
    """Labelled images held in memory, once: a selection shares the pixels of what it is taken from.

    images: uint8 [N, H, W, C]. labels: int [N]. origin: what else tells them from others.
    """

    def __init__(self, images, labels, origin=""):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"images are uint8 [N, H, W, C], not {images.dtype} {images.shape}")
        if labels.shape != images.shape[:1]:
            raise UserError(f"{len(images)} images need {len(images)} labels, not {labels.shape}")
        with tf.device("CPU:0"):
            self._pixels = tf.constant(images)
        self._chosen = np.arange(len(labels))
        self._origin = origin
        self.labels = labels.astype(np.int32)

    def __len__(self):
        return len(self.labels)

    @property
    def description(self):
        """Which ones, and how they are kept, which decides about their order."""
        return f"{_identified(self.labels, self._origin)}, dataset.in_memory=True"

    @property
    def images(self):
        """uint8 [N, H, W, C], copied."""
        return tf.gather(self._pixels, self._chosen).numpy()

    @property
    def image_shape(self):
        return tuple(self._pixels.shape[1:])

    def select(self, indices):
        """The examples at `indices`, in that order."""
        selection = copy.copy(self)
        selection._chosen, selection.labels = self._chosen[indices], self.labels[indices]
        return selection

    def shuffled(self, batch_size, seed, first_step):
        """Endless batches (images [B, H, W, C] uint8, labels [B] int32) from step `first_step` on.

        Epochs follow each other without a gap or a remainder, each a permutation of its own.
        What a step holds depends on (seed, step) alone, so this may start anywhere.
        """
        chosen, labels = tf.constant(self._chosen), tf.constant(self.labels)

        def batch(step):
            indices = shuffled_indices(step, batch_size, len(self), seed)
            return tf.gather(self._pixels, tf.gather(chosen, indices)), tf.gather(labels, indices)

        return without_autotuning(tf.data.Dataset.counter(first_step).map(batch))

    def in_order(self, batch_size):
        """Every example once, in order: batches as above, the last one smaller where it must be."""
        chosen = tf.data.Dataset.from_tensor_slices((self._chosen, self.labels)).batch(batch_size)
        return without_autotuning(
            chosen.map(lambda places, labels: (tf.gather(self._pixels, places), labels))
        )


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedExamples:
    """Labelled images that stay on disk and are decoded when their turn comes.

    source: makes the `tf.data.Dataset` of all (undecoded image, label), always in one order.
    decode: an undecoded image to uint8 [H, W, C].
    labels: int32 [N], of the chosen examples. chosen: their places in the source, ascending.
    origin: what else tells them from others.
    """

    source: Callable
    decode: Callable
    image_shape: tuple
    labels: np.ndarray
    chosen: np.ndarray
    origin: str = ""
    shuffle_buffer: int = 16384

    def __len__(self):
        return len(self.labels)

    @property
    def description(self):
        """As `Examples.description`."""
        return f"{_identified(self.labels, self.origin)}, dataset.in_memory=False"

    def select(self, indices):
        """The examples at `indices`, kept in the order of the source."""
        indices = np.sort(indices)
        return dataclasses.replace(self, labels=self.labels[indices], chosen=self.chosen[indices])

    def _undecoded(self):
        mask = np.zeros(self.chosen[-1] + 1, bool)
        mask[self.chosen] = True
        mask = tf.constant(mask)
        return (
            self.source()
            .take(len(mask))
            .enumerate()
            .filter(lambda place, _: mask[place])
            .map(lambda _, example: example)
        )

    def shuffled(self, batch_size, seed, first_step):
        """As `Examples.shuffled`, but shuffled within a buffer; skipping ahead reads, not decodes."""
        first_epoch, position = divmod(first_step * batch_size, len(self))
        undecoded = self._undecoded()

        def epoch(number):
            key = tf.random.split(tf.stack([tf.constant(seed, tf.int64), number]), 1)[0, 0]
            return undecoded.shuffle(self.shuffle_buffer, seed=tf.cast(key, tf.int64))

        epochs = tf.data.Dataset.counter(first_epoch).flat_map(epoch)
        return _decoded(epochs.skip(position), self.decode, self.image_shape).batch(
            batch_size,
            drop_remainder=True,  # there is none: the epochs never end
        )

    def in_order(self, batch_size):
        """As `Examples.in_order`."""
        return _decoded(self._undecoded(), self.decode, self.image_shape).batch(batch_size)


def _identified(labels, origin):
    """How many examples, and a digest of their labels in order: tells one set from another."""
    digest = hashlib.sha256(np.ascontiguousarray(labels, "<i4").tobytes()).hexdigest()
    return f"{len(labels)} examples {digest[:8]}" + (f" of {origin}" if origin else "")


def without_autotuning(dataset):
    """The dataset with its parallelism as it is written.

    TensorFlow's tuning thread, where it runs, can hold up the end of an iterator for minutes.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def read_labels(source, decode, image_shape, origin=""):
    """All examples of `source` as StreamedExamples: only the labels are read now."""
    labels = without_autotuning(source().map(lambda _, label: label).batch(4096))
    batches = labels.as_numpy_iterator()
    labels = np.concatenate([np.zeros(0, np.int32), *batches]).astype(np.int32)
    return StreamedExamples(source, decode, image_shape, labels, np.arange(len(labels)), origin)


def read_into_memory(source, decode, image_shape, count, origin=""):
    """All `count` examples of `source`, decoded."""
    images, labels = np.empty((count, *image_shape), np.uint8), np.empty(count, np.int32)
    place = 0
    for some, their in _decoded(source(), decode, image_shape).batch(1024).as_numpy_iterator():
        images[place : place + len(some)], labels[place : place + len(some)] = some, their
        place += len(some)
    return Examples(images[:place], labels[:place], origin)


def _decoded(dataset, decode, image_shape):
    def pair(image, label):
        return tf.ensure_shape(decode(image), image_shape), tf.cast(label, tf.int32)

    return without_autotuning(dataset.map(pair, os.cpu_count(), deterministic=True))


def shuffled_indices(step, batch_size, count, seed):
    """Which examples batch `step` holds: [batch_size] places in 0..count-1.

    The examples' positions run on over the epochs; each epoch is a permutation of all, drawn by
    a cipher keyed with (seed, epoch), so nothing is stored and any position can be asked for.
    """
    count = tf.constant(count, tf.int64)
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epochs = positions // count
    keys = tf.stack([tf.fill([batch_size], tf.constant(seed, tf.int64)), epochs, 0 * epochs], 1)
    # Four rounds, the default, leave neighbours correlated; after eight none is measurable.
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % count, seed=keys, max_index=count - 1, rounds=8
    )


def stratified_split(examples, fraction, seed):
    """Cuts examples in two parts, each class in the same proportion.

    fraction: share of the second part, 0 < fraction < 1 (0.3 for DFA's 7:3, §4.1).
    Returns (first, second), each in the order of the source.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a split's fraction lies between 0 and 1, not at {fraction}")
    try:
        first, second = train_test_split(
            np.arange(len(examples)),
            test_size=fraction,
            stratify=examples.labels,
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(
            f"{len(examples)} examples cannot be split at {fraction}: {error}"
        ) from error
    return examples.select(np.sort(first)), examples.select(np.sort(second))
