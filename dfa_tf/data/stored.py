"""Labels and pixel statistics of a data set on disk, stored beside it once they are computed.

Labels are needed before the images, to split the data by class. To read them from the records, all
images are read too, which takes minutes for ImageNet. The statistics need thousands of images.
"""

import contextlib
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.decoding import without_autotuning
from dfa_tf.progress import with_progress

BATCH = 1024

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def stored_labels(
    path: pathlib.Path, count: int, num_classes: int, source: Callable[[], tf.data.Dataset]
) -> np.ndarray:
    """Returns the labels of all examples, and stores them if the folder can be written.

    Args:
        path: The .npy file of the labels.
        count: Number of examples.
        num_classes: Number of classes.
        source: Builds the data set of (encoded image, label) in order.

    Returns:
        int32 [count].
    """
    try:
        labels = np.load(path, allow_pickle=False)
        is_valid = labels.shape == (count,) and labels.dtype == np.int32
        if is_valid and labels.min() >= 0 and labels.max() < num_classes:
            return labels
    except Exception:  # not stored yet, or damaged: NumPy raises errors of many types
        pass
    batches = without_autotuning(source().map(lambda _, label: (0, label)).batch(BATCH))
    progress = with_progress("reading labels", batches.as_numpy_iterator(), count)
    labels = np.concatenate([np.zeros(0, np.int32), *(batch for _, batch in progress)])
    labels = labels.astype(np.int32)
    # The folder may be read-only, or the disk full.
    with contextlib.suppress(OSError), files.replacing(path) as temporary:
        np.save(temporary, labels)
    return labels


def stored_statistics(
    path: pathlib.Path, key: str, channels: int, compute: Callable[[], Statistics]
) -> Statistics:
    """Returns mean and standard deviation of the pixels, and stores them if possible.

    Args:
        path: The .json file of the statistics.
        key: Identifies the images and their preprocessing.
        channels: Number of channels.
        compute: Computes the statistics.
    """
    stored = files.read_json(path)
    with contextlib.suppress(KeyError, TypeError, ValueError):  # not stored yet, or damaged
        mean, std = (tuple(map(float, part)) for part in stored[key])
        is_complete = len(mean) == len(std) == channels
        if is_complete and all(0 <= value <= 1 for value in mean + std) and min(std) > 0:
            return mean, std
    statistics = compute()
    with contextlib.suppress(OSError):
        try:
            files.write_json(path, {**stored, key: statistics})
        except ValueError:  # the others are damaged
            files.write_json(path, {key: statistics})
    return statistics
