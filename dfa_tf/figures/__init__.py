"""Figures of accuracy and aggregation weights."""

import pathlib

import matplotlib.figure

from dfa_tf.figures.accuracy import (
    accuracy_by_last_weight,
    accuracy_curves,
    accuracy_ranking,
)
from dfa_tf.figures.alpha import alpha_heatmap, alpha_heatmaps, alpha_trajectories
from dfa_tf.figures.process import process_heatmap, process_lines
from dfa_tf.files import replacing

__all__ = [
    "accuracy_by_last_weight",
    "accuracy_curves",
    "accuracy_ranking",
    "alpha_heatmap",
    "alpha_heatmaps",
    "alpha_trajectories",
    "process_heatmap",
    "process_lines",
    "save",
]


def save(figure: matplotlib.figure.Figure, folder: pathlib.Path, name: str, dpi: int = 150) -> None:
    """Writes FOLDER/NAME.png and FOLDER/NAME.pdf."""
    for suffix in ("png", "pdf"):
        with replacing(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, dpi=dpi)
