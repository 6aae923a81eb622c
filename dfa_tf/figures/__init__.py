"""Figures of accuracy, predictions and aggregation weights."""

import pathlib
import sys
from collections.abc import Callable

import matplotlib.figure

from dfa_tf.errors import first_line
from dfa_tf.figures.accuracy import (
    accuracy_by_last_weight,
    accuracy_curves,
    accuracy_ranking,
)
from dfa_tf.figures.alpha import alpha_heatmap, alpha_heatmaps, alpha_trajectories
from dfa_tf.figures.confusion import confusion_matrix
from dfa_tf.figures.process import process_heatmap, process_lines
from dfa_tf.figures.styles import make_literal
from dfa_tf.files import replacing

__all__ = [
    "accuracy_by_last_weight",
    "accuracy_curves",
    "accuracy_ranking",
    "alpha_heatmap",
    "alpha_heatmaps",
    "alpha_trajectories",
    "confusion_matrix",
    "draw",
    "make_literal",
    "process_heatmap",
    "process_lines",
    "save",
]


def save(figure: matplotlib.figure.Figure, folder: pathlib.Path, name: str, dpi: int = 150) -> None:
    """Writes FOLDER/NAME.png and FOLDER/NAME.pdf."""
    make_literal(figure)
    for suffix in ("png", "pdf"):
        with replacing(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, dpi=dpi)


def draw(
    make: Callable[[], matplotlib.figure.Figure],
    folder: pathlib.Path,
    name: str,
    dpi: int = 150,
) -> None:
    """Makes and writes a figure. A failure is only a warning, because the results are complete.

    Args:
        make: A function that returns the figure.
        folder, name, dpi: See `save`.
    """
    try:
        save(make(), folder, name, dpi)
    except Exception as error:
        print(f"{folder / name}.png: cannot be drawn ({first_line(error)})", file=sys.stderr)
