"""Evaluation of any saved model on the test examples of a data set."""

import dataclasses
import os

import numpy as np

from dfa_tf.data.dataset import Dataset
from dfa_tf.deployment.loading import as_logits, load_classifier
from dfa_tf.errors import UserError
from dfa_tf.models.from_keras import Scaling
from dfa_tf.progress import with_progress
from dfa_tf.training.evaluation import evaluation_batch_size
from dfa_tf.training.tally import Tally


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        metrics: Those of `Tally.metrics`.
        tally: The predictions.
        class_names: Names of the classes.
    """

    metrics: dict[str, float]
    tally: Tally
    class_names: tuple[str, ...]


def evaluate(
    path: str | os.PathLike,
    dataset: Dataset,
    batch_size: int | None = None,
    scale: Scaling = 1.0,
    offset: Scaling = 0.0,
) -> Evaluation:
    """Evaluates a saved model on all test examples.

    Args:
        path: A `.keras` file, a SavedModel folder or a `.tflite` file.
        dataset: The data set that the model was trained on.
        batch_size: Number of images in a batch; None for `evaluation_batch_size`.
        scale, offset: See `from_keras`; for `.keras` files that this package did not save.

    Returns:
        The metrics and the predictions.

    Raises:
        UserError: If the file is not a classifier, or its images or classes are not those of the
            data set.
    """
    model = load_classifier(path, scale, offset)
    advice = "name the config of its data set with --gin_file"
    fits = len(model.image_shape) == 3 and all(
        size in (None, expected)
        for size, expected in zip(model.image_shape, dataset.image_shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"{path}: expected images of shape {dataset.image_shape}, as {dataset.name} has, got "
            f"a model for {model.image_shape}; {advice}"
        )
    output_shape = model.logits(np.zeros((1, *dataset.image_shape), np.uint8)).shape
    if len(output_shape) != 2:
        raise UserError(
            f"{path}: expected a classifier with outputs (batch, classes), got {output_shape}"
        )
    if output_shape[-1] != dataset.num_classes:
        raise UserError(
            f"{path}: expected {dataset.num_classes} classes, as {dataset.name} has, got "
            f"{output_shape[-1]}; {advice}"
        )
    batches = dataset.test.in_order(batch_size or evaluation_batch_size(dataset.image_shape))
    tally = Tally.of(
        with_progress(str(path), batches, len(dataset.test)),
        lambda images: as_logits(model.logits(images)),
        dataset.num_classes,
    )
    metrics = tally.metrics()
    if not np.isfinite(metrics["loss"]):
        raise UserError(
            f"{path}: expected finite outputs, got NaN or infinity; retrain the model, or check "
            "keras_file.scale"
        )
    return Evaluation(metrics, tally, dataset.class_names)
