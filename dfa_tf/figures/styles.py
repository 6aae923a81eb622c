"""What the figures share: line styles that differ in greyscale, texts, and panels."""

import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.text
import numpy as np

_DASHES = ("-", "--", ":", "-.")
_MARKERS = "os^vD*Px<>hd"


def line_style(index: int, count: int) -> dict[str, Any]:
    """Returns arguments of `Axes.plot` for one of several lines.

    Args:
        index: Index of the line.
        count: Number of lines.

    Returns:
        Colour, dashes and marker of the line.
    """
    return {
        "linestyle": _DASHES[index % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "color": matplotlib.colormaps["viridis"](0.85 * index / max(1, count - 1)),
        "markersize": 4,
        "linewidth": 1.3,
    }


def wrapped(title: str, width: int = 36, lines: int = 3) -> str:
    """Returns a title in several lines. If it is too long, "..." replaces its middle.

    The settings at its end, which distinguish it from others, remain.

    Args:
        title: The title, such as that of a row with its settings.
        width: Characters in a line.
        lines: Number of lines.
    """
    if len(title) > width * lines:
        title = f"{title[:width]} ... {title[-width * (lines - 1) :]}"
    return "\n".join(textwrap.wrap(title, width))


def label_rows(axis: matplotlib.axes.Axes, values: Iterable[float]) -> None:
    """Prints a number to the right of each row of a heatmap, whose rows are 1, 2, and so on."""
    for row, value in enumerate(values, start=1):
        axis.annotate(
            f"{value:.2f}",
            (1.02, row),
            xycoords=axis.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )


def panels(
    rows: int,
    columns: int,
    width: float,
    height: float,
    extra: tuple[float, float] = (1.0, 1.0),
) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    """Creates a figure with a grid of panels.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        width: Width of a panel, in inches.
        height: Height of a panel, in inches.
        extra: (width, height) around all panels, in inches.

    Returns:
        The figure and its axes, [rows, columns].
    """
    size = (columns * width + extra[0], rows * height + extra[1])
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def make_literal(figure: matplotlib.figure.Figure) -> None:
    """Makes all texts of a figure literal: a "$" in a name does not begin a formula.

    Powers of ten on axes remain formulas.
    """
    for text in figure.findobj(matplotlib.text.Text):
        if "$" in text.get_text():
            text.set_parse_math(False)
