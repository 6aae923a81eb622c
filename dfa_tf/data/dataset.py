"""A data set: its parts, its classes, and how its images are normalized and augmented."""

import dataclasses

import numpy as np

from dfa_tf.data.examples import Examples, StreamedExamples, stratified_split
from dfa_tf.data.pipeline import Augmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one kind.

    train, test: examples. search_parts: the official (training, validation) parts, where the set
    has them, else None. class_names: by label. mean, std: per channel, as fractions of 255.
    validation_fraction: of the training part, where there is no official validation part.
    """

    name: str
    train: Examples | StreamedExamples
    test: Examples | StreamedExamples
    class_names: tuple
    mean: tuple
    std: tuple
    augmentation: Augmentation = Augmentation()
    search_parts: tuple | None = None
    validation_fraction: float = 0.3

    @property
    def num_classes(self):
        return len(self.class_names)

    @property
    def image_shape(self):
        """(height, width, channels)."""
        return self.train.image_shape

    @property
    def task(self):
        """What a network for this set needs to know: arguments of the functions that build one."""
        return {
            "num_classes": self.num_classes,
            "image_shape": self.image_shape,
            "mean": self.mean,
            "std": self.std,
        }

    def search_split(self, seed):
        """(train, validation) for the search (DFA §4.1): the official parts where there are two,
        else the training part cut class by class."""
        if self.search_parts is not None:
            return self.search_parts
        return stratified_split(self.train, self.validation_fraction, seed)


def pixel_statistics(examples, limit=10_000):
    """(mean, std) per channel, as fractions of 255, over the first `limit` images."""
    seen, pixels, total, squares = 0, 0, 0.0, 0.0
    for images, _ in examples.in_order(1000).as_numpy_iterator():
        images = images.astype(np.float64) / 255
        seen += len(images)
        pixels += images[..., 0].size
        total = total + images.sum((0, 1, 2))
        squares = squares + (images**2).sum((0, 1, 2))
        if seen >= limit:
            break
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return tuple(mean.tolist()), tuple(std.tolist())
