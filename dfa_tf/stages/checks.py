"""Checks that networks, examples and a schedule are compatible."""

from collections.abc import Sequence

import numpy as np

from dfa_tf.data.pipeline import check_batches
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.training.recipe import Training


def check_pair(teacher: Network, student: Network) -> None:
    """Checks that a student can learn from a teacher: the same image shape and number of classes.

    Raises:
        UserError: If the shapes or the numbers differ, or a weight of the teacher is not finite.
    """
    check_finite(teacher, f"the teacher {teacher.name}")
    pair = f"the teacher {teacher.name} and the student {student.name}"
    if teacher.image_shape != student.image_shape:
        raise UserError(
            f"{pair} must have the same image shape, got {teacher.image_shape} and "
            f"{student.image_shape}"
        )
    if teacher.num_classes != student.num_classes:
        raise UserError(
            f"{pair} must have the same number of classes, got {teacher.num_classes} and "
            f"{student.num_classes} classes"
        )


def check_finite(network: Network, source: str) -> None:
    """Checks that the weights of a trained network are numbers.

    Args:
        network: The network.
        source: Where the network comes from, for the error message.

    Raises:
        UserError: If a weight is NaN or infinite.
    """
    for variable in network.weights:
        if not np.isfinite(variable.numpy()).all():
            raise UserError(
                f"{source}: expected finite weights, got NaN or infinity in {variable.path}; its "
                "training diverged, so use another file"
            )


def check_same_features(searched: Network, teacher: Network, source: str) -> None:
    """Checks that the alpha of one teacher has a weight for each feature of another teacher.

    Args:
        searched: The teacher that alpha was searched for.
        teacher: The teacher to use it with.
        source: Where the search comes from, for the error message.

    Raises:
        UserError: If the numbers of features differ in any group.
    """
    counts = [
        [len(network.group(name).features) for name in network.group_names]
        for network in (searched, teacher)
    ]
    if counts[0] != counts[1]:
        features = " and ".join(", ".join(map(str, network)) for network in counts)
        raise UserError(
            f"distill.aggregation: {searched.name} of {source} and {teacher.name} must have the "
            f"same number of features in each group, got {features}"
        )


def check_task(network: Network, num_classes: int, image_shape: Sequence[int], path: str) -> None:
    """Checks that a network has the classes and the image shape of a data set.

    Args:
        network: The network.
        num_classes: Number of classes of the data set.
        image_shape: (height, width, channels) of the data set.
        path: Where the network comes from, for the error message.

    Raises:
        UserError: If the number of classes or the image shape differs, or a weight is not finite.
    """
    check_finite(network, path)
    advice = "give a network trained on this data set, or remove the file"
    if network.num_classes != num_classes:
        raise UserError(
            f"{path}: expected {num_classes} classes, as the data set has, got "
            f"{network.num_classes}; {advice}"
        )
    if network.image_shape != tuple(image_shape):
        raise UserError(
            f"{path}: expected images of shape {tuple(image_shape)}, as the data set has, got "
            f"{network.image_shape}; {advice}"
        )


def check_examples(network: Network, *examples) -> None:
    """Checks that a network accepts the images of each set of examples and has all their classes.

    Args:
        network: The network.
        *examples: The sets; None for a set that is not used.

    Raises:
        UserError: If a set is empty, an image shape differs, or a label is outside the network's
            classes.
    """
    for part in examples:
        if part is None:
            continue
        if len(part) == 0:
            raise UserError(
                f"{network.name}: expected sets of examples with images, got an empty one"
            )
        if part.labels.min() < 0:
            raise UserError(
                f"{network.name}: expected labels from 0, got the label {part.labels.min()}"
            )
        if network.image_shape != part.image_shape:
            raise UserError(
                f"{network.name}: expected images of shape {network.image_shape}, got examples of "
                f"shape {part.image_shape}"
            )
        if network.num_classes <= part.labels.max():
            raise UserError(
                f"{network.name}: expected labels of {network.num_classes} classes, got the label "
                f"{part.labels.max()}; build it for {part.labels.max() + 1} classes"
            )


def check_schedule(stage: str, examples: Sequence, training: Training, replicas: int) -> None:
    """Checks that a run can draw its batches.

    Args:
        stage: Name of the stage, for the error message.
        examples: The sets to draw batches from. Epochs are passes over the first set.
        training: The recipe.
        replicas: Number of replicas that share a batch.

    Raises:
        UserError: If the batch size or the padding is too large, or the epochs are too few.
    """
    try:
        for part in examples:
            check_batches(part, training.batch_size, training.augmentation, replicas)
        training.steps(len(examples[0]))
    except UserError as error:
        prefix = "" if str(error).startswith("dataset.") else f"{stage}."
        raise UserError(f"{prefix}{error}") from error
