"""Data sets by name."""

import dataclasses
import os
from typing import Annotated, Literal

from dfa_tf.data.augmentation import Augmentation, ChangesAndMagnitude, Pixels, Strengths
from dfa_tf.data.dataset import Dataset, imbalance
from dfa_tf.data.digits import digits
from dfa_tf.data.preprocessing import Preprocessing
from dfa_tf.data.splits import stratified_split
from dfa_tf.data.tfds_dataset import tfds_dataset
from dfa_tf.errors import UserError
from dfa_tf.validation import Count, Interval, checked_arguments

Share = Annotated[float, Interval(0, 1, open=True)]
Portion = Annotated[float, Interval(0, 1, open=True, open_high=True)]


@checked_arguments("dataset")
def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    image_size: tuple[Count, Count] | None = None,
    in_memory: bool | None = None,
    pad: Pixels | None = None,
    flip: bool | None = None,
    validation_fraction: Portion = 0.3,
    train_fraction: Share = 1.0,
    source: str | os.PathLike | None = None,
    train_with_validation: bool = False,
    test_fraction: Portion | None = None,
    resize: Literal["crop", "stretch"] = "crop",
    crop_fraction: Share = 1.0,
    random_resized_crop: tuple[Share, Share] | None = None,
    color_jitter: Strengths | None = None,
    rand_augment: ChangesAndMagnitude | None = None,
) -> Dataset:
    """Loads an image classification data set.

    Args:
        name: "digits", which needs no download; "folder:PATH" for images in a folder or an archive
            by class, see `class_folders`, or in a CSV file, see `label_table`; "cinic10"; or the
            name of a TFDS data set.
        data_dir: Folder of TFDS's prepared data sets. None for the environment variable
            TFDS_DATA_DIR, or ~/tensorflow_datasets if that is not set.
        image_size: (height, width) to resize images to. None keeps their size.
        in_memory: Whether to hold decoded images in memory. None to do so if they fit in half of
            the free memory.
        pad: As in `Augmentation`. None for the data set's default: 1 for digits, 0 with
            `random_resized_crop`, else 4.
        flip: As in `Augmentation`. None for the data set's default: False for digits, else True.
        validation_fraction: Share of the training split that the search uses as validation
            examples if there is no official validation split: 0.3 for the paper's 7:3 (DFA, §4.1).
        train_fraction: Share of the training split to use, the same for each class. It applies to
            an official validation split too.
        source: Archive or folder of CINIC-10. None to download it.
        train_with_validation: Whether teachers and students also train on an official validation
            split.
        test_fraction: Share of each class that becomes the test split if the data set has no other;
            None for 0.2.
        resize, crop_fraction: As in `Preprocessing`, for `image_size`.
        random_resized_crop: Least and greatest area of the window of each picture that is resized
            to a training image, see `preprocessing.random_window`. (0.08, 1.0) is ImageNet's.
            Training images are then decoded in each epoch. None for the images of `resize`.
        color_jitter, rand_augment: As in `Augmentation`.

    Returns:
        The data set.

    Raises:
        UserError: If an argument is invalid, or the data set is unknown, unsuitable or cannot be
            prepared.
    """
    preprocessing = Preprocessing(resize, crop_fraction)
    if preprocessing != Preprocessing() and image_size is None and name != "digits":
        raise UserError(
            "dataset.image_size: expected (height, width) for dataset.resize and "
            "dataset.crop_fraction, got None"
        )
    _check_areas(random_resized_crop, in_memory)
    if name == "digits":
        _check_digits(
            image_size=(image_size, None),
            source=(source, None),
            test_fraction=(test_fraction, None),
            random_resized_crop=(random_resized_crop, None),
            resize=(resize, "crop"),
            crop_fraction=(crop_fraction, 1),
        )
        dataset = digits()
    else:
        dataset = tfds_dataset(
            name,
            data_dir,
            image_size,
            in_memory,
            source,
            train_with_validation,
            test_fraction,
            preprocessing,
            random_resized_crop,
        )
    if train_fraction != 1:
        dataset = _reduced(dataset, train_fraction)
    default, note = dataset.augmentation, imbalance(dataset)
    return dataclasses.replace(
        dataset,
        augmentation=Augmentation(
            pad=(0 if random_resized_crop else default.pad) if pad is None else pad,
            flip=default.flip if flip is None else flip,
            color_jitter=color_jitter,
            rand_augment=rand_augment,
        ),
        validation_fraction=validation_fraction,
        notes=dataset.notes + ((note,) if note else ()),
    )


def _check_digits(**settings):
    """Raises UserError if a setting, given as (value, default), is not at its default."""
    for name, (value, default) in settings.items():
        if value != default:
            raise UserError(
                f"dataset.{name}: expected {default!r} for 'digits', got {value!r}; unbind it"
            )


def _check_areas(areas, in_memory):
    if areas and areas[0] > areas[1]:
        raise UserError(
            f"dataset.random_resized_crop: expected (least, greatest) area, got {areas}"
        )
    if areas and in_memory:
        raise UserError(
            "dataset.in_memory: expected None or False with dataset.random_resized_crop, which needs "
            "the whole pictures, got True"
        )


def _reduced(dataset, fraction):
    """Returns the data set with this share of each class in the training and search splits."""

    def reduced(examples):
        return stratified_split(examples, fraction, 0, "dataset.train_fraction")[1]

    splits = dataset.official_splits
    return dataclasses.replace(
        dataset,
        train=reduced(dataset.train),
        official_splits=splits and tuple(map(reduced, splits)),
    )
