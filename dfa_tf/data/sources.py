"""Data sets by name."""

import dataclasses

from dfa_tf.data.digits import digits
from dfa_tf.data.examples import stratified_split
from dfa_tf.data.prepared import prepared
from dfa_tf.errors import UserError


def load(
    name,
    data_dir=None,
    image_size=None,
    in_memory=None,
    pad=None,
    flip=None,
    validation_fraction=0.3,
    train_fraction=1.0,
    source=None,
    train_with_validation=False,
):
    """The data set `name`: "digits" comes with the package, "folder:PATH" is a folder of images by
    split and class, or an archive of one, any other is TFDS's or "cinic10".

    data_dir: TFDS's folder; None for TFDS_DATA_DIR, then ~/tensorflow_datasets.
    image_size: (height, width) to resize images to; None keeps the set's own.
    in_memory: hold decoded images; None for where they fit.
    pad, flip: as in `Augmentation`; None keeps the set's own (CIFAR: 4 and True).
    validation_fraction: of the training part that the search takes for validation (§4.1's 7:3),
        where the set has no validation part of its own.
    train_fraction: of the training part that is used at all, the same share of each class; of an
        official validation part too.
    source: where CINIC-10 lies, as an archive or a folder; None to download it.
    train_with_validation: students and teachers learn from an official validation part too.
    Raises UserError where the set is unknown or cannot be had.
    """
    if in_memory not in (None, True, False):
        raise UserError(f"dataset.in_memory is True, False or None, not {in_memory!r}")
    if image_size is not None and not _is_size(image_size):
        raise UserError(f"dataset.image_size is (height, width), not {image_size!r}")
    if not isinstance(train_with_validation, bool):
        raise UserError(
            f"dataset.train_with_validation is True or False, not {train_with_validation!r}"
        )
    if name == "digits":
        if image_size:
            raise UserError("digits are 8x8 images: leave dataset.image_size unbound")
        if source:
            raise UserError("digits come with the package: leave dataset.source unbound")
        dataset = digits()
    else:
        dataset = prepared(name, data_dir, image_size, in_memory, source, train_with_validation)
    if train_fraction != 1.0:
        dataset = _reduced(dataset, train_fraction)
    augmentation = dataset.augmentation
    if pad is not None:
        augmentation = dataclasses.replace(augmentation, pad=pad)
    if flip is not None:
        augmentation = dataclasses.replace(augmentation, flip=flip)
    return dataclasses.replace(
        dataset, augmentation=augmentation, validation_fraction=validation_fraction
    )


def _reduced(dataset, fraction):
    """The data set with this share of each class of its training part, and of its search's."""

    def part(examples):
        return stratified_split(examples, fraction, seed=0)[1]

    parts = dataset.search_parts
    return dataclasses.replace(
        dataset, train=part(dataset.train), search_parts=parts and tuple(map(part, parts))
    )


def _is_size(size):
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    return is_pair and all(isinstance(length, int) and length > 0 for length in size)
