"""Examples: complete epochs, batches that depend on the step only, and stratified splits."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data
from dfa_tf.data.decoding import Decoding
from dfa_tf.data.examples import read_into_memory, shuffled_indices
from dfa_tf.data.part import Part
from dfa_tf.errors import UserError
from tests.conftest import made_examples


def _numbered(count, shape=(2, 2, 1)):
    """Examples whose label is their index."""
    images = np.zeros((count, *shape), np.uint8)
    return data.Examples(images, np.arange(count))


def _streamed(examples, shuffle_buffer=64):
    """The same examples, streamed from encoded images."""
    images, labels = examples.images, examples.labels

    def source():
        raw = tf.data.Dataset.from_tensor_slices((images, labels))
        return raw.map(lambda image, label: (tf.io.encode_png(image), label))

    def decode(png):
        return tf.io.decode_png(png, examples.image_shape[-1])

    return data.StreamedExamples(
        source,
        Decoding(decode, examples.image_shape),
        labels,
        np.arange(len(labels)),
        shuffle_buffer=shuffle_buffer,
    )


def _indexed(examples):
    """The same examples, read by their index from a list of encoded ones."""
    images, labels = examples.images, examples.labels
    records = [tf.io.encode_png(image).numpy() for image in images]

    def read(indices):
        return [
            tf.io.serialize_tensor(tf.constant([records[i], str(labels[i])])).numpy()
            for i in indices
        ]

    def parse(record):
        png, label = tf.unstack(tf.ensure_shape(tf.io.parse_tensor(record, tf.string), [2]))
        return png, tf.strings.to_number(label, tf.int64)

    decoding = Decoding(
        lambda png: tf.io.decode_png(png, examples.image_shape[-1]), examples.image_shape
    )
    return data.IndexedExamples(read, parse, decoding, labels, np.arange(len(labels)))


def _replace(examples, **changes):
    """Examples on disk with another decoding."""
    decoding = dataclasses.replace(examples.decoding, **changes)
    return dataclasses.replace(examples, decoding=decoding)


ON_DISK = {"streamed": _streamed, "indexed": _indexed}
KINDS = {"in memory": lambda examples: examples, **ON_DISK}


def _labels(examples, batch_size, steps, seed=3, first_step=0):
    batches = examples.shuffled(batch_size, seed, first_step).take(steps)
    return np.concatenate([labels for _, labels in batches.as_numpy_iterator()])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_epoch_has_every_example_once(kind):
    # Batches of 7 from 24 examples: epochs start and end inside batches.
    seen = _labels(kind(_numbered(24)), 7, 24)
    assert len(seen) == 7 * 24
    epochs = seen.reshape(7, 24)
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 7


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_start_at_a_later_step_continues_the_same_batches(kind):
    examples = kind(_numbered(24))
    uninterrupted = _labels(examples, 7, 12).reshape(12, 7)
    for first in (1, 4, 9):
        later = _labels(examples, 7, 12 - first, first_step=first).reshape(-1, 7)
        np.testing.assert_array_equal(later, uninterrupted[first:])


@pytest.mark.parametrize("kind", ON_DISK.values(), ids=ON_DISK)
def test_crops_follow_from_seed_and_step_and_not_from_the_start(kind):
    """A crop that writes its own seed into the image."""
    examples = _replace(
        kind(_numbered(24, (1, 2, 1))),
        crop=lambda _, seed: tf.cast(
            tf.reshape([seed[0] % 251, seed[0] // 251 % 251], (1, 2, 1)), tf.uint8
        ),
    )

    def images(steps, first_step=0, seed=3):
        batches = examples.shuffled(7, seed, first_step).take(steps)
        return np.concatenate([images for images, _ in batches.as_numpy_iterator()])

    uninterrupted = images(12)
    assert len({image.tobytes() for image in uninterrupted}) == 12 * 7  # over several epochs
    np.testing.assert_array_equal(images(3, first_step=9), uninterrupted[9 * 7 :])
    assert not (images(12, seed=4) == uninterrupted).all()
    in_order = [images for images, _ in examples.in_order(24).as_numpy_iterator()]
    assert not np.concatenate(in_order).any()  # evaluation does not crop


@pytest.mark.parametrize("first_step", [0, 5])
@pytest.mark.parametrize(
    ("kind", "is_cropped"),
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in ON_DISK)],
)
def test_parts_of_all_processes_are_the_batch_of_one(kind, is_cropped, first_step):
    """With every augmentation, over the end of an epoch, from the start and after a resume."""
    examples = KINDS[kind](made_examples(26, shape=(6, 5, 3)))
    if is_cropped:
        decode = examples.decoding.decode
        examples = _replace(
            examples, crop=lambda image, seed: tf.roll(decode(image), seed[0] % 5, 1)
        )
    augmentation = data.Augmentation(1, True, (0.4, 0.4, 0.4), (2, 9))

    def batches(part):
        arguments = examples, 12, augmentation, 3, first_step, part
        return list(data.training_batches(*arguments).take(3).as_numpy_iterator())

    parts = [batches(Part(k, 3)) for k in range(3)]
    for step, (images, labels) in enumerate(batches(Part())):
        assert len(images) == 12
        for index, whole in enumerate((images, labels)):
            pieces = [part[step][index] for part in parts]
            assert [len(piece) for piece in pieces] == [4, 4, 4]
            np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("first_step", [0, 3, 5, 12])
def test_sequence_with_a_period_repeats_its_first_batches(kind, first_step):
    """Four steps of 12 of 26 examples, with their augmentation, from any step on, in two parts."""
    examples = kind(made_examples(26, shape=(6, 5, 3)))
    augmentation = data.Augmentation(1, True)
    arguments = examples, 12, augmentation, 3
    batches = list(data.training_batches(*arguments).take(4).as_numpy_iterator())
    for part in (Part(), Part(1, 2)):
        found = data.training_batches(*arguments, first_step, part, period=4).take(9)
        for step, (images, labels) in enumerate(found.as_numpy_iterator(), first_step):
            rows = part.rows(12)
            np.testing.assert_array_equal(images, batches[step % 4][0][rows])
            np.testing.assert_array_equal(labels, batches[step % 4][1][rows])


@pytest.mark.parametrize("kind", ON_DISK.values(), ids=ON_DISK)
def test_process_decodes_its_own_part_alone(kind):
    examples = kind(made_examples(24))
    decoded = []

    def decode(png):
        tf.py_function(lambda: decoded.append(1), [], [])
        return tf.io.decode_png(png, 3)

    counted = _replace(examples, decode=decode)
    batches = counted.shuffled(12, 0, 0, Part(1, 3)).take(2)
    assert sum(len(labels) for _, labels in batches.as_numpy_iterator()) == 8
    assert len(decoded) < 24 / 3 + 8  # a few are decoded ahead


def test_order_depends_on_the_seed():
    examples = _numbered(50)
    np.testing.assert_array_equal(_labels(examples, 10, 5), _labels(examples, 10, 5))
    assert not np.array_equal(_labels(examples, 10, 5), _labels(examples, 10, 5, seed=4))


def test_neighbours_in_an_epoch_are_uncorrelated():
    count = 20_000
    order = shuffled_indices(0, count, count, seed=1).numpy()
    z = np.corrcoef(order[:-1], order[1:])[0, 1] * np.sqrt(count)
    assert abs(z) < 4


@pytest.mark.parametrize("kind", ON_DISK.values(), ids=ON_DISK)
def test_examples_on_disk_equal_those_in_memory(kind):
    in_memory = made_examples(20)
    streamed = kind(in_memory)
    np.testing.assert_array_equal(streamed.labels, in_memory.labels)
    indices = [1, 5, 6, 19]
    for examples, other in (
        (in_memory, streamed),
        (in_memory.select(indices), streamed.select(indices)),
    ):
        for mine, theirs in zip(examples.in_order(8), other.in_order(8), strict=True):
            np.testing.assert_array_equal(mine[0], theirs[0])
            np.testing.assert_array_equal(mine[1], theirs[1])
    again = read_into_memory(streamed.in_order(6), streamed.image_shape, 20)
    np.testing.assert_array_equal(again.images, in_memory.images)


def test_indexed_batches_equal_those_in_memory():
    """Also those of a selection in another order, so that either resumes a run of the other."""
    made = made_examples(20)
    in_memory = data.Examples(made.images, made.labels, origin="")
    indices = np.array([7, 3, 11, 19, 0, 4, 5])
    for examples in (in_memory, in_memory.select(indices)):
        indexed = _indexed(in_memory)
        indexed = indexed.select(indices) if len(examples) < 20 else indexed
        assert indexed.description == examples.description
        batches = zip(examples.shuffled(6, 1, 2), indexed.shuffled(6, 1, 2).take(5), strict=False)
        for mine, theirs in batches:
            np.testing.assert_array_equal(mine[0], theirs[0])
            np.testing.assert_array_equal(mine[1], theirs[1])


def test_batch_reads_only_its_own_examples():
    """A start at a late step does not read the examples of the steps before it."""
    examples, seen = _indexed(_numbered(1000)), []

    def read(indices):
        seen.extend(indices)
        return examples.read(indices)

    counted = dataclasses.replace(examples, read=read)
    labels = _labels(counted, 10, 1, first_step=90)
    np.testing.assert_array_equal(labels, _labels(_numbered(1000), 10, 1, first_step=90))
    assert len(seen) < 60  # a few batches are read ahead


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_in_order_yields_every_example_once_with_a_smaller_last_batch(kind):
    sizes, labels = [], []
    for _, batch in kind(_numbered(23)).in_order(10):
        sizes.append(len(batch))
        labels.extend(batch.numpy())
    assert sizes == [10, 10, 3]
    assert labels == list(range(23))


def test_split_is_7_to_3_in_every_class_without_overlap():
    examples = made_examples(400)
    numbered = data.Examples(examples.images, examples.labels)
    train, validation = data.stratified_split(numbered, 0.3, seed=0)
    assert np.bincount(train.labels).tolist() == [70] * 4
    assert np.bincount(validation.labels).tolist() == [30] * 4
    pictures = {image.tobytes() for part in (train, validation) for image in part.images}
    assert len(pictures) == 400


def test_split_depends_on_the_seed():
    first, again, other = (
        data.stratified_split(made_examples(40), 0.3, seed)[1].images for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 3])
def test_split_fraction_outside_of_0_to_1_is_refused(fraction):
    with pytest.raises(UserError, match="validation_fraction: "):
        data.stratified_split(made_examples(40), fraction, 0, "validation_fraction")


def test_class_of_one_example_cannot_be_split():
    with pytest.raises(UserError, match="validation_fraction: "):
        data.stratified_split(_numbered(10), 0.3, 0, "validation_fraction")


def test_images_and_labels_of_wrong_dtype_or_shape_are_refused():
    with pytest.raises(UserError, match=r"images: .*float32"):
        data.Examples(np.zeros((2, 4, 4, 1), np.float32), [0, 1])
    with pytest.raises(UserError, match=r"labels: .*\b2\b.*\b3\b"):
        data.Examples(np.zeros((2, 4, 4, 1), np.uint8), [0, 1, 2])
    with pytest.raises(UserError, match=r"labels: .*float64"):
        data.Examples(np.zeros((2, 4, 4, 1), np.uint8), [0.5, 1.0])
