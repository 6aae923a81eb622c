"""Class weights: factors of the cross entropy for classes with different numbers of images."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dfa_tf.errors import UserError
from dfa_tf.validation import Positive, check_value

BALANCED = "balanced"
ClassWeights = Literal["balanced"] | Sequence[Positive] | None


def weight_of_each_class(
    class_weights: ClassWeights, labels: np.ndarray, classes: int, name: str
) -> np.ndarray | None:
    """Returns the factor of the cross entropy of each class.

    "balanced" is N / (classes * N_c) for N images, N_c of them of class c, as scikit-learn defines
    it. All classes then have the same total weight, and the mean weight of the images is 1.

    Args:
        class_weights: None, "balanced", or a positive number for each class.
        labels: Labels of the training images, int `[N]`.
        classes: Number of classes.
        name: The setting, for error messages: "distill.class_weights".

    Returns:
        float32 `[classes]`; None for None.

    Raises:
        UserError: If the value has another type or length, or is "balanced" and a class has no
            images.
    """
    check_value(name, class_weights, ClassWeights)
    if class_weights is None:
        return None
    if class_weights != BALANCED:
        if len(class_weights) != classes:
            raise UserError(
                f"{name}: expected {classes} numbers, one for each class, got {len(class_weights)}"
            )
        return np.array(class_weights, np.float32)
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise UserError(
            f"{name}: expected training images of each class for 'balanced', got none of class "
            f"{int(np.argmin(counts))}; list a number for each class"
        )
    return (len(labels) / (classes * counts)).astype(np.float32)
