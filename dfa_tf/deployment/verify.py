"""Comparison of exported files with the network, on the test images."""

import dataclasses
import os
from collections.abc import Callable

import keras
import numpy as np

from dfa_tf.data.examples import AnyExamples
from dfa_tf.deployment.loading import load_classifier
from dfa_tf.errors import ReportedError

MAX_ERROR = 1e-4  # of a logit in a float32 file, as a fraction of the largest logit
MIN_AGREEMENT = 0.99  # of float32 and float16 files
FLOAT_KINDS = ("float32", "float16")


class ExportError(ReportedError):
    """An exported file differs too much from the network. It was not written."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results of a file on the test images.

    Attributes:
        accuracy: Fraction of the images that the file classifies correctly.
        max_abs_error: Largest absolute difference between a logit of the file and the network's.
        agreement: Fraction of the images for which both predict the same class.
    """

    accuracy: float
    max_abs_error: float
    agreement: float


class Reference:
    """The network's results on the test images.

    Args:
        model: The network's float32 model, as `inference_model` builds it.
        test: The test examples.

    Attributes:
        examples: Number of test examples.
        accuracy: Fraction of them that the network classifies correctly.
    """

    def __init__(self, model: keras.Model, test: AnyExamples):
        self._test = test
        self._logits = _logits(lambda images: model(images, training=False)["logits"].numpy(), test)
        self.examples = len(test)
        self.accuracy = _accuracy(self._logits, test.labels)

    def compare(self, path: str | os.PathLike) -> Comparison:
        """Runs a saved model, of any format, on the test images."""
        logits = _logits(load_classifier(path).logits, self._test)
        return Comparison(
            accuracy=_accuracy(logits, self._test.labels),
            max_abs_error=float(np.abs(logits - self._logits).max()),
            agreement=float(np.mean(logits.argmax(-1) == self._logits.argmax(-1))),
        )

    def check(
        self, path: str | os.PathLike, kind: str, comparison: Comparison, max_loss: float
    ) -> None:
        """Checks a file's results against the limits of its kind.

        Args:
            path: Path of the file, for the message.
            kind: Its kind; "float32" for the SavedModel.
            comparison: Its results.
            max_loss: The accuracy, as a fraction, that it may lose.

        Raises:
            ExportError: If a limit is exceeded, or a logit is not a number.
        """
        limit = MAX_ERROR * max(1.0, float(np.abs(self._logits).max()))
        # Each condition states what must hold, because a comparison with NaN is always false.
        if kind == "float32" and not comparison.max_abs_error <= limit:
            raise ExportError(
                f"{path} was not written: expected a largest logit error of at most {limit:.2g}, "
                f"got {comparison.max_abs_error:.2g}"
            )
        if kind in FLOAT_KINDS and not comparison.agreement >= MIN_AGREEMENT:
            raise ExportError(
                f"{path} was not written: expected the network's class for at least "
                f"{MIN_AGREEMENT:.0%} of the test images, got {comparison.agreement:.2%}"
            )
        if not self.accuracy - comparison.accuracy <= max_loss:
            raise ExportError(
                f"{path} was not written: its accuracy is {comparison.accuracy:.2%}, the network's "
                f"is {self.accuracy:.2%}; export.max_loss allows a loss of {100 * max_loss:g} points"
            )


def _logits(function: Callable, test):
    batches = test.in_order(batch_size=100).as_numpy_iterator()
    return np.concatenate([function(images) for images, _ in batches])


def _accuracy(logits, labels):
    return float(np.mean(logits.argmax(-1) == labels))
