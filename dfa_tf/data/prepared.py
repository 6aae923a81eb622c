"""Image classification sets of TensorFlow Datasets, by name."""

import difflib
import functools
import os
import pathlib

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from dfa_tf.data import cinic10, image_folder
from dfa_tf.data.dataset import Dataset, pixel_statistics
from dfa_tf.data.examples import read_into_memory, read_labels
from dfa_tf.errors import UserError, first_line

# CIFAR-10's mean and deviation, as fractions of 255: the literature takes them for CIFAR-100 too.
CIFAR_STATISTICS = (
    (125.3 / 255, 123.0 / 255, 113.9 / 255),
    (63.0 / 255, 62.1 / 255, 66.7 / 255),
)
STATISTICS = {
    "cifar10": CIFAR_STATISTICS,
    "cifar100": CIFAR_STATISTICS,
    "cinic10": cinic10.STATISTICS,
}


def prepared(
    name, data_dir=None, image_size=None, in_memory=None, source=None, train_with_validation=False
):
    """The TFDS set `name`, downloaded and prepared first where it is not.

    name: of a set of TFDS, "cinic10", or "folder:PATH" for a folder of images (see
        `class_folders`), or an archive of one.

    data_dir: TFDS's folder; None for TFDS_DATA_DIR, then ~/tensorflow_datasets.
    image_size: (height, width) to resize to; None keeps the set's own, where it has one size.
    in_memory: hold decoded images; None for where they fit into half of the free memory.
    source: of CINIC-10, see `Cinic10`. train_with_validation: whether students and teachers learn
        from the official validation part too, where there is one.
    Raises UserError for an unknown name, a set that is no image classification, one that cannot
    be had, or one whose images differ in size without `image_size`.
    """
    builder = _prepared_builder(name, data_dir, source)
    shape, _ = _outline(builder, name, image_size)
    image_key, label_key = _supervised_keys(builder)
    features = builder.info.features
    splits = builder.info.splits
    if "train" not in splits or not {"test", "validation"} & set(splits):
        raise UserError(f"{name} has the splits {', '.join(splits)}: it needs train and test")
    test = "test" if "test" in splits else "validation"
    official = test == "test" and "validation" in splits
    whole = ["train", *(["validation"] if official else [])]
    if in_memory is None:
        count = sum(splits[split].num_examples for split in {*whole, test})
        in_memory = count * int(np.prod(shape)) < _free_memory() / 2

    # Of a folder the contents, which any hand may change.
    digests = builder.info.metadata if name.startswith(image_folder.PREFIX) else None
    origin = " ".join(digests[split] for split in sorted(digests)) if digests else ""

    def source_of(split):
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders={image_key: tfds.decode.SkipDecoding()},
        )
        return dataset.map(lambda example: (example[image_key], example[label_key]))

    def decode(image):
        image = features[image_key].decode_example(image)
        if image_size:
            resized = tf.image.resize(image, image_size, antialias=True)
            image = tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8)
        return image

    def examples(*parts):
        def pairs():
            first, *others = map(source_of, parts)
            return functools.reduce(tf.data.Dataset.concatenate, others, first)

        if in_memory:
            count = sum(splits[part].num_examples for part in parts)
            return read_into_memory(pairs, decode, shape, count, origin)
        return read_labels(pairs, decode, shape, origin)

    both = examples(*whole)
    train, validation = both, None
    if official:
        count = splits["train"].num_examples
        train, validation = (both.select(part) for part in np.split(np.arange(len(both)), [count]))
    mean, std = STATISTICS.get(name) or pixel_statistics(train)
    return Dataset(
        name,
        both if train_with_validation else train,
        examples(test),
        tuple(features[label_key].names),
        mean,
        std,
        search_parts=(train, validation) if official else None,
    )


def outline(name, data_dir=None, image_size=None):
    """(image_shape, num_classes) of a TFDS set, which need not be prepared.

    Arguments and errors as of `prepared`.
    """
    return _outline(_builder(name, data_dir), name, image_size)


def _outline(builder, name, image_size):
    image_key, label_key = _supervised_keys(builder)
    features = builder.info.features
    *size, channels = features[image_key].shape
    shape = (*(image_size or size), channels)
    if None in shape:
        raise UserError(
            f"the images of {name} have no one size: bind dataset.image_size=(height, width)"
        )
    return shape, features[label_key].num_classes


def _builder(name, data_dir, source=None):
    if source and name != "cinic10":
        raise UserError(f"dataset.source is of cinic10, not of {name}: unbind it")
    try:
        if name.startswith(image_folder.PREFIX):
            return image_folder.image_folder(name.removeprefix(image_folder.PREFIX), data_dir)
        if source:
            return cinic10.Cinic10(source=source, data_dir=data_dir)
        return tfds.builder(name, data_dir=data_dir)
    except UserError:
        raise
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name, ["digits", *tfds.list_builders()], n=3)
        hint = f"did you mean {' or '.join(close)}" if close else "see tfds.list_builders()"
        raise UserError(f"there is no data set {name!r}: {hint}") from error
    except Exception as error:
        raise UserError(f"the data set {name!r} cannot be opened: {first_line(error)}") from error


def _prepared_builder(name, data_dir, source):
    builder = _builder(name, data_dir, source)
    _supervised_keys(builder)  # raises for what is not worth a download
    if not builder.is_prepared():
        mend = "name its folder with --data_dir, or prepare it where there is a network"
        where = f"{name} is not prepared in {builder.data_dir}"
        _check_network(builder, f"{where} and its source cannot be reached: {mend}")
        try:
            builder.download_and_prepare()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{where} and preparing it failed ({first_line(error)}): {mend}"
            ) from error
    return builder


def _check_network(builder, message):
    """Raises UserError at once where TFDS would try for minutes to reach the set's source."""
    downloaded = os.path.join(builder.data_dir_root, "downloads")
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    if not urls or os.path.isdir(downloaded):
        return
    try:
        requests.head(urls[0], timeout=15, allow_redirects=True)
    except requests.exceptions.RequestException as error:
        raise UserError(message) from error


def _supervised_keys(builder):
    keys = builder.info.supervised_keys
    features = builder.info.features
    if (
        not keys
        or len(keys) != 2
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(f"{builder.name} is not an image classification set")
    return keys


def _free_memory():
    """Bytes of memory that are free for use, on the machine and within its container."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        group = pathlib.Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{what}").read_text() for what in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return free
