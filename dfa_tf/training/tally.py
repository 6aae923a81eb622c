"""Counts of a classifier's predictions, and the metrics that follow from them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

BINS = 15  # of the confidence, as in Guo et al. (2017)


class Tally:
    """Counts predictions batch by batch.

    Args:
        num_classes: Number of classes.

    Attributes:
        confusion: int64 [classes, classes]: images by true class (row) and predicted class.
    """

    def __init__(self, num_classes: int):
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self._loss = 0.0
        self._in_top_5 = 0
        self._bins = np.zeros((BINS, 3))  # images, sum of confidences, correct predictions

    @classmethod
    def of(cls, batches: Iterable, predict: Callable[[Any], Any], num_classes: int) -> "Tally":
        """Counts the predictions for all examples.

        Args:
            batches: A finite iterable of (images, labels [B]).
            predict: A function of the images that returns logits [B, classes].
            num_classes: Number of classes.
        """
        tally = cls(num_classes)
        for images, labels in batches:
            tally.add(predict(images), labels)
        return tally

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch.

        Args:
            logits: Array [B, classes].
            labels: Integer array [B].
        """
        logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
        predicted = logits.argmax(-1)
        np.add.at(self.confusion, (labels, predicted), 1)
        largest = logits.max(-1, keepdims=True)
        of_label = np.take_along_axis(logits, labels[:, np.newaxis], -1)
        self._in_top_5 += int(((logits > of_label).sum(-1) < 5).sum())
        # Infinite logits make the loss NaN, which the callers report.
        with np.errstate(invalid="ignore"):
            normalizer = np.exp(logits - largest).sum(-1, dtype=np.float64)
            self._loss += float((np.log(normalizer) + (largest - of_label)[:, 0]).sum())
        confidence = 1 / normalizer
        place = np.clip(np.ceil(np.nan_to_num(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
        rows = np.stack([np.ones(len(labels)), confidence, predicted == labels], 1)
        np.add.at(self._bins, place, rows)

    @property
    def class_accuracy(self) -> np.ndarray:
        """The accuracy of each class, float [classes]; NaN for a class without images."""
        images = self.confusion.sum(1)
        return np.diag(self.confusion) / np.where(images, images, np.nan)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of all batches.

        Returns:
            `accuracy`: Share of images whose class is predicted.
            `loss`: The mean cross entropy.
            `macro_accuracy`: The mean of `class_accuracy` over the classes that have images.
            `top_5_accuracy`: Share of images whose class is among the five largest logits; absent
            with five classes or fewer.
            `calibration_error`: The expected calibration error with 15 bins of equal width
            [Guo et al., 2017, Eqn 3]: the mean of |accuracy - confidence| over the bins, weighted by
            their numbers of images.
        """
        images = int(self.confusion.sum())
        errors = np.abs(self._bins[:, 2] - self._bins[:, 1])
        found = {
            "accuracy": int(np.trace(self.confusion)) / images,
            "loss": self._loss / images,
            "macro_accuracy": float(np.nanmean(self.class_accuracy)),
        }
        if len(self.confusion) > 5:
            found["top_5_accuracy"] = self._in_top_5 / images
        return found | {"calibration_error": float(errors.sum() / images)}
