"""Labels of a prepared data set, stored beside it once they are read.

The labels of a data set on disk are needed before its images, to split it by class. To read them
from the records, all images are read too, which takes minutes for ImageNet.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.decoding import without_autotuning
from dfa_tf.progress import with_progress

BATCH = 1024


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
    except (OSError, ValueError, EOFError):
        pass  # not stored yet, or damaged
    batches = without_autotuning(source().map(lambda _, label: (0, label)).batch(BATCH))
    progress = with_progress("reading labels", batches.as_numpy_iterator(), count)
    labels = np.concatenate([np.zeros(0, np.int32), *(batch for _, batch in progress)])
    labels = labels.astype(np.int32)
    try:
        with files.replacing(path) as temporary:
            np.save(temporary, labels)
    except OSError:
        pass  # the folder is read-only or the disk is full
    return labels
