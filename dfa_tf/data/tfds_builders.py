"""Builders of TensorFlow Datasets: opened by name, checked, and prepared."""

import difflib
import os
import pathlib
import shutil
import sys

import requests
import tensorflow_datasets as tfds

from dfa_tf import files
from dfa_tf.data import cinic10, image_folder
from dfa_tf.errors import UserError, first_line

RANDOM_ACCESS = tfds.core.file_adapters.FileFormat.ARRAY_RECORD


def open_builder(
    name: str,
    data_dir: str | os.PathLike | None,
    source: str | os.PathLike | None = None,
    test_fraction: float | None = None,
) -> tfds.core.DatasetBuilder:
    """Opens the builder of a data set, whose data need not be prepared.

    Args:
        name: Name of a TFDS data set, "cinic10", or "folder:PATH".
        data_dir: Folder of TFDS's prepared data sets; None for its default.
        source: Archive or folder of CINIC-10, see `Cinic10`.
        test_fraction: Share of the test split of "folder:PATH", see `with_test_split`.

    Raises:
        UserError: If the data set is unknown or cannot be opened, or if `source` is given for
            another one than CINIC-10.
    """
    if source and name != "cinic10":
        raise UserError(f"dataset.source: expected None for {name!r}, got {source!r}; unbind it")
    try:
        if name.startswith(image_folder.PREFIX):
            path = name.removeprefix(image_folder.PREFIX)
            return image_folder.image_folder(path, data_dir, test_fraction)
        if source:
            return cinic10.Cinic10(source=source, data_dir=data_dir)
        return tfds.builder(name, data_dir=data_dir)
    except UserError:
        raise
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name, ["digits", *tfds.list_builders()], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see tfds.list_builders()"
        raise UserError(f"dataset.name: unknown data set {name!r}; {hint}") from error
    except Exception as error:
        raise UserError(
            f"dataset.name: the data set {name!r} cannot be opened ({first_line(error)})"
        ) from error


def prepared_builder(
    name: str,
    data_dir: str | os.PathLike | None,
    source: str | os.PathLike | None = None,
    test_fraction: float | None = None,
) -> tfds.core.DatasetBuilder:
    """Opens the builder of a data set, and downloads and prepares the data if necessary.

    Takes the arguments of `open_builder`.

    Raises:
        UserError: As `open_builder`, and if the data is not suitable, cannot be downloaded, or
            cannot be prepared.
    """
    builder = open_builder(name, data_dir, source, test_fraction)
    image_and_label_keys(builder)  # fails for unsuitable data before a download
    if builder.is_prepared():
        return builder
    problem = f"{name} is not prepared in {builder.data_dir}"
    remedy = "set its folder with --data_dir, or prepare it on a machine with a network"
    if not _source_is_reachable(builder):
        raise UserError(f"{problem} and its source cannot be reached; {remedy}")
    folder = pathlib.Path(builder.data_dir).parent
    try:
        with files.exclusive(folder, f"another process prepares {name} in {folder}"):
            for leftover in folder.glob("*incomplete*"):  # of killed processes
                shutil.rmtree(leftover, ignore_errors=True)
            # Another process may have prepared it.
            builder = open_builder(name, data_dir, source, test_fraction)
            if not builder.is_prepared():
                builder.download_and_prepare(file_format=_new_format(builder))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{problem} and preparing it failed ({first_line(error)}); {remedy}"
        ) from error
    return builder


def has_random_access(builder: tfds.core.DatasetBuilder) -> bool:
    """Returns whether the examples of a prepared data set can be read by their index."""
    return builder.info.file_format == RANDOM_ACCESS


def image_and_label_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Returns the names of the image and label features.

    Raises:
        UserError: If the examples are not an image and a class label.
    """
    keys = builder.info.supervised_keys
    features = builder.info.features
    if (
        not keys
        or len(keys) != 2
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(
            f"dataset.name: {builder.name} is not an image classification data set; choose one with an image and a label"
        )
    return keys


def shape_and_classes(
    builder: tfds.core.DatasetBuilder, name: str, image_size: tuple[int, int] | None
) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of the images after resizing, and the number of classes.

    Args:
        builder: Builder of the data set.
        name: Its name, for the message.
        image_size: (height, width) after resizing, or None.

    Returns:
        (height, width, channels) and the number of classes.

    Raises:
        UserError: If the images differ in size and `image_size` is None.
    """
    image_key, label_key = image_and_label_keys(builder)
    features = builder.info.features
    *size, channels = features[image_key].shape
    shape = (*(image_size or size), channels)
    if None in shape:
        raise UserError(
            f"dataset.image_size: expected (height, width), got None; the images of {name} differ in size"
        )
    return shape, features[label_key].num_classes


def _new_format(builder):
    """Returns the format to prepare a data set in, or None for TFDS's default.

    Only data sets of this package are written for random access: `as_dataset`, which other programs
    use for those of TFDS, cannot read the format.
    """
    is_own = type(builder).__module__.startswith("dfa_tf.")
    return RANDOM_ACCESS if is_own and sys.platform == "linux" else None


def _source_is_reachable(builder):
    """Returns whether the first server answers. TFDS itself would retry for minutes."""
    downloads = os.path.join(builder.data_dir_root, "downloads")
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    if not urls or os.path.isdir(downloads):
        return True
    try:
        requests.head(urls[0], timeout=15, allow_redirects=True)
    except requests.exceptions.RequestException:
        return False
    return True
