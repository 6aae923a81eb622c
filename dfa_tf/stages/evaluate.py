"""Accuracy of any saved model."""

import numpy as np

from dfa_tf.errors import UserError
from dfa_tf.stages.saved_models import classifier
from dfa_tf.training.evaluation import evaluation_counts, mean_counts


def evaluate(path, dataset, batch_size=500):
    """{"accuracy": fraction, "loss": mean cross entropy} of a saved model on a data set's test part.

    path: see `classifier`. Raises UserError where it is no model, or not one of this data set.
    """
    run, image_shape = classifier(path)
    mend = "name the config whose data it was trained on with --gin_file"
    matches = len(image_shape) == 3 and all(
        mine in (None, theirs)
        for mine, theirs in zip(image_shape, dataset.image_shape, strict=True)
    )
    if not matches:
        raise UserError(
            f"{path} takes images {image_shape}, {dataset.name}'s are {dataset.image_shape}: {mend}"
        )
    outputs = run(np.zeros((1, *dataset.image_shape), np.uint8)).shape
    if len(outputs) != 2:
        raise UserError(f"{path} gives outputs {outputs} for an image: it is no classifier")
    classes = outputs[-1]
    if classes != dataset.num_classes:
        raise UserError(
            f"{path} tells {classes} classes, {dataset.name} has {dataset.num_classes}: {mend}"
        )
    return mean_counts(
        dataset.test.in_order(batch_size),
        lambda images, labels: evaluation_counts(run(images), labels),
    )
