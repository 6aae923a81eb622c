"""Data sets read through TensorFlow Datasets."""

import functools
import os
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfa_tf.data import cinic10, image_folder
from dfa_tf.data.dataset import Dataset, pixel_statistics
from dfa_tf.data.decoding import Decoding
from dfa_tf.data.examples import AnyExamples, Examples, read_into_memory, small_batch_size
from dfa_tf.data.indexed import IndexedExamples, encoded_examples
from dfa_tf.data.labelled_files import TEST_FRACTION
from dfa_tf.data.preprocessing import Preprocessing, random_window, resized
from dfa_tf.data.splits import stratified_split
from dfa_tf.data.stored import stored_labels, stored_statistics
from dfa_tf.data.streamed import SHUFFLE_BUFFER, StreamedExamples
from dfa_tf.data.tfds_builders import (
    has_random_access,
    image_and_label_keys,
    prepared_builder,
    shape_and_classes,
)
from dfa_tf.errors import UserError, first_line
from dfa_tf.system import free_memory

# Mean and standard deviation of CIFAR-10, as fractions of 255. Papers use them for CIFAR-100 too.
CIFAR_STATISTICS = (
    (125.3 / 255, 123.0 / 255, 113.9 / 255),
    (63.0 / 255, 62.1 / 255, 66.7 / 255),
)
STATISTICS = {
    "cifar10": CIFAR_STATISTICS,
    "cifar100": CIFAR_STATISTICS,
    "cinic10": cinic10.STATISTICS,
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# By default TensorFlow approximates JPEG's transform. Pillow and phones compute it.
EXACT = "INTEGER_ACCURATE"
SHUFFLE_BYTES = 2**30  # of undecoded images in the buffer of streamed examples


def tfds_dataset(
    name: str,
    data_dir: str | os.PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    in_memory: bool | None = None,
    source: str | os.PathLike | None = None,
    train_with_validation: bool = False,
    test_fraction: float | None = None,
    preprocessing: Preprocessing = Preprocessing(),
    crop_areas: tuple[float, float] | None = None,
) -> Dataset:
    """Loads a data set through TFDS, and downloads and prepares it if necessary.

    Args:
        name, data_dir, image_size, in_memory, source, train_with_validation, test_fraction: See
            `dfa_tf.data.load`, for any data set but "digits".
        preprocessing: How images are resized to `image_size`.
        crop_areas: Areas of the random crops of training images, see `random_window`; None for
            whole images. Training images are then not held in memory.

    Raises:
        UserError: If the data set is unknown or unsuitable, cannot be downloaded or prepared, has
            no training split, has a test split although `test_fraction` is given, or has images of
            several sizes and `image_size` is None.
    """
    builder = prepared_builder(name, data_dir, source, test_fraction)
    shape, _ = shape_and_classes(builder, name, image_size)
    is_folder = name.startswith(image_folder.PREFIX)
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(
            f"dataset.name: expected a data set with a split train, got {name} with "
            f"{', '.join(splits)}"
        )
    test = next(
        (s for s in ("test", "validation") if s in splits and _has_labels(builder, s)), None
    )
    if test and test_fraction is not None and not is_folder:
        raise UserError(
            f"dataset.test_fraction: expected None for {name!r}, which has a test split, got "
            f"{test_fraction!r}; remove the binding"
        )
    notes = image_folder.notes(builder) if is_folder else ()
    if test == "validation":
        notes += (f"{name}: the validation split is the test split, because there is no other",)
    has_validation = test == "test" and "validation" in splits
    learnable = ["train", *(["validation"] if has_validation else [])]
    if in_memory is None:
        count = sum(splits[split].num_examples for split in {*learnable, test or "train"})
        in_memory = count * int(np.prod(shape)) < free_memory() / 2

    reader = _Reader(builder, name, shape, preprocessing if image_size else None, in_memory)
    everything = reader.read(*learnable, crop_areas=crop_areas)
    if test:
        tested = reader.read(test)
    else:
        fraction = test_fraction or TEST_FRACTION
        everything, tested = stratified_split(everything, fraction, 0, "dataset.test_fraction")
        notes += (
            f"{name}: {len(tested):,} of {splits['train'].num_examples:,} images are test images, "
            "the same share of each class (dataset.test_fraction)",
        )
    train, validation = everything, None
    if has_validation:
        indices = np.split(np.arange(len(everything)), [splits["train"].num_examples])
        train, validation = (everything.select(part) for part in indices)
    mean, std = STATISTICS.get(name) or reader.statistics(train)
    return Dataset(
        name=name,
        train=everything if train_with_validation else train,
        test=tested,
        class_names=reader.class_names,
        mean=mean,
        std=std,
        preprocessing=preprocessing,
        official_splits=(train, validation) if has_validation else None,
        notes=notes,
    )


def _has_labels(builder, split):
    """Returns whether a split has labels. Those of ImageNet's test images, for instance, are -1."""
    image, label = image_and_label_keys(builder)
    decoders = {image: tfds.decode.SkipDecoding()}
    if has_random_access(builder):
        source = builder.as_data_source(split=split, decoders=decoders)
        first = [source[0]] if len(source) else []
    else:
        first = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders).take(1)
    return all(int(example[label]) >= 0 for example in first)


class _Reader:
    """Reads splits of a prepared builder as examples."""

    def __init__(self, builder, name, shape, preprocessing, in_memory):
        self._builder, self._shape, self._preprocessing = builder, shape, preprocessing
        self._in_memory = in_memory
        self._folder = pathlib.Path(builder.data_dir)
        self._image_key, self._label_key = image_and_label_keys(builder)
        # The files of a folder can change under one name: digests identify them.
        digests = builder.info.metadata if name.startswith(image_folder.PREFIX) else None
        self._origin = " ".join(digests[split] for split in sorted(digests)) if digests else ""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._builder.info.features[self._label_key].names)

    def read(self, *splits: str, crop_areas: tuple[float, float] | None = None) -> AnyExamples:
        """Returns the examples of the splits, one split after the other."""

        def crop(image, seed):
            return resized(self._window(image, crop_areas, seed), self._shape[:2])

        decoding = Decoding(self._decode, self._shape, crop if crop_areas else None)
        infos = [self._builder.info.splits[split] for split in splits]
        count = sum(info.num_examples for info in infos)
        has_index = has_random_access(self._builder)
        if has_index:
            read, parse = self._random_access(splits)
            source = functools.partial(encoded_examples, read, parse, count)
        else:
            source = functools.partial(self._encoded, splits)
        if self._in_memory and not crop_areas:
            batches = decoding.images(source()).batch(small_batch_size(self._shape))
            return read_into_memory(batches, self._shape, count, self._origin)

        path = self._folder / f"labels.{'+'.join(splits)}.npy"
        labels = stored_labels(path, count, len(self.class_names), source)
        everything = decoding, labels, np.arange(count), self._origin
        if has_index:
            return IndexedExamples(read, parse, *everything)
        size = max(1, sum(info.num_bytes for info in infos) // count)  # of an encoded image
        buffer = max(1, min(SHUFFLE_BUFFER, SHUFFLE_BYTES // size))
        return StreamedExamples(source, *everything, buffer)

    def statistics(self, examples: AnyExamples) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of each channel of the examples."""
        if isinstance(examples, Examples):
            return pixel_statistics(examples)
        key = f"{examples.description}, {self._shape}, {self._preprocessing}"
        path = self._folder / "statistics.json"
        return stored_statistics(path, key, self._shape[-1], lambda: pixel_statistics(examples))

    def _random_access(self, splits):
        """Returns `read` and `parse` of `IndexedExamples`."""
        source = self._builder.as_data_source(
            split="+".join(splits), deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        features = self._builder.info.features
        skip_image = {self._image_key: tfds.decode.SkipDecoding()}

        def read(indices):
            try:
                return source.__getitems__(indices.tolist())
            except Exception as error:
                raise UserError(
                    f"{self._folder}: its files are damaged ({first_line(error)}); delete the "
                    "folder to prepare it again"
                ) from error

        def parse(encoded):
            return self._pair(features.deserialize_example(encoded, decoders=skip_image))

        return read, parse

    def _encoded(self, splits):
        """Returns the data set of (encoded image, label), one split after the other."""
        skip_image = {self._image_key: tfds.decode.SkipDecoding()}
        first, *others = (
            self._builder.as_dataset(split=split, shuffle_files=False, decoders=skip_image)
            for split in splits
        )
        return functools.reduce(tf.data.Dataset.concatenate, others, first).map(self._pair)

    def _pair(self, example):
        return example[self._image_key], example[self._label_key]

    def _picture(self, image):
        feature = self._builder.info.features[self._image_key]
        return tf.cond(
            tf.io.is_jpeg(image),
            lambda: tf.io.decode_jpeg(image, feature.shape[-1], dct_method=EXACT),
            lambda: feature.decode_example(image),
        )

    def _window(self, image, areas, seed):
        """Returns a random window of a picture. Of a JPEG file, little more is decoded."""
        channels = self._shape[-1]

        def jpeg_window():
            begin, extent = random_window(tf.io.extract_jpeg_shape(image), areas, seed)
            window = tf.concat([begin[:2], extent[:2]], 0)
            return tf.image.decode_and_crop_jpeg(image, window, channels, dct_method=EXACT)

        def decoded_window():
            picture = self._builder.info.features[self._image_key].decode_example(image)
            return tf.slice(picture, *random_window(tf.shape(picture), areas, seed))

        return tf.cond(tf.io.is_jpeg(image), jpeg_window, decoded_window)

    def _decode(self, image):
        picture = self._picture(image)
        return self._preprocessing(picture, self._shape[:2]) if self._preprocessing else picture
