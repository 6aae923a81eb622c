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
):
    """The data set `name`: "digits" comes with the package, any other is TFDS's.

    data_dir: TFDS's folder; None for TFDS_DATA_DIR, then ~/tensorflow_datasets.
    image_size: (height, width) to resize images to; None keeps the set's own.
    in_memory: hold decoded images; None for where they fit.
    pad, flip: as in `Augmentation`; None keeps the set's own (CIFAR: 4 and True).
    validation_fraction: of the training part that the search takes for validation (§4.1's 7:3),
        where the set has no validation part of its own.
    train_fraction: of the training part that is used at all, the same share of each class.
    Raises UserError where the set is unknown or cannot be had.
    """
    if in_memory not in (None, True, False):
        raise UserError(f"dataset.in_memory is True, False or None, not {in_memory!r}")
    if image_size is not None and not _is_size(image_size):
        raise UserError(f"dataset.image_size is (height, width), not {image_size!r}")
    if name == "digits":
        if image_size:
            raise UserError("digits are 8x8 images: leave dataset.image_size unbound")
        dataset = digits()
    else:
        dataset = prepared(name, data_dir, image_size, in_memory)
    if train_fraction != 1.0:
        _, kept = stratified_split(dataset.train, train_fraction, seed=0)
        dataset = dataclasses.replace(dataset, train=kept)
    augmentation = dataset.augmentation
    if pad is not None:
        augmentation = dataclasses.replace(augmentation, pad=pad)
    if flip is not None:
        augmentation = dataclasses.replace(augmentation, flip=flip)
    return dataclasses.replace(
        dataset, augmentation=augmentation, validation_fraction=validation_fraction
    )


def _is_size(size):
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    return is_pair and all(isinstance(length, int) and length > 0 for length in size)
