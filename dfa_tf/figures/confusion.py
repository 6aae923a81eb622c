"""The confusion matrix of a classifier."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

NAMED, NUMBERED = 40, 15  # most classes with names on the axes, and with numbers in the cells


def confusion_matrix(confusion: np.ndarray, names: Sequence[str] = ()) -> matplotlib.figure.Figure:
    """Draws a confusion matrix. Colours are shares of the images of a true class.

    Args:
        confusion: Integers [classes, classes]: images by true class (row) and predicted class.
        names: Names of the classes; their numbers, from 0, if empty.

    Returns:
        The figure.
    """
    count = len(confusion)
    names = names or [str(label) for label in range(count)]
    size = min(12.0, 3.0 + 0.3 * count)
    figure = matplotlib.figure.Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    if count <= NAMED:
        axis.set_xticks(range(count), names, rotation=90)
        axis.set_yticks(range(count), names)
    if count <= NUMBERED:
        for row, column in np.ndindex(confusion.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            number = str(confusion[row, column])
            axis.text(column, row, number, ha="center", va="center", color=colour, fontsize=8)
    return figure
