"""Weights of the paths of a distillation over the course of a training."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.colors import PowerNorm

from dfa_tf.figures.styles import label_rows, line_style, panels, wrapped
from dfa_tf.process import POINTS, Process


def process_lines(
    settings: Mapping[str, Sequence[Process]], epochs: Mapping[str, float | None] | None = None
) -> matplotlib.figure.Figure:
    """Plots the weight of each path as a line, on a logarithmic scale if all are positive.

    Args:
        settings: Maps the title of each setting to the processes of its seeds, which have the same
            paths. An empty title is replaced by the names of the networks.
        epochs: Maps titles to the epochs of their runs, to label epochs instead of steps.

    Returns:
        A figure with one panel per setting and one line per path: the mean over the seeds, with a
        band of one standard deviation (n - 1). The legend states the final weights.
    """
    figure, axes = panels(len(settings), 1, 8.0, 4.2, extra=(0, 0))
    for (axis,), (title, processes) in zip(axes, settings.items(), strict=True):
        _lines(axis, processes, title, (epochs or {}).get(title))
    return figure


def process_heatmap(
    processes: Sequence[Process], title: str = "", epochs: float | None = None
) -> matplotlib.figure.Figure:
    """Plots the weight of each path over time as a row of a heatmap.

    Args:
        processes: The processes of several seeds, with the same paths.
        title: Title of the figure.
        epochs: Epochs of the runs, to label epochs instead of steps.

    Returns:
        A figure with one row per path: the mean over the seeds. Darker is more weight. The final
        weight is printed to the right of each row.
    """
    paths = processes[0].paths
    figure, axes = panels(1, 1, 7.0, 0.9 + 0.3 * len(paths), extra=(0, 0))
    axis = axes[0, 0]
    points = min(POINTS, min(process.steps for process in processes))
    weights = np.mean([process.stretched(points) for process in processes], 0)
    edges = np.linspace(0, epochs or processes[0].steps, points + 1)
    mesh = axis.pcolormesh(
        edges,
        np.arange(len(paths) + 1) + 0.5,
        weights.T,
        cmap="Greys",
        norm=PowerNorm(0.5, 0, max(float(weights.max()), 1e-12)),
    )
    axis.set_yticks(range(1, len(paths) + 1), paths, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("epoch; right: last weight" if epochs else "step; right: last weight")
    axis.set_title(wrapped(_title(title, processes), 60), fontsize=10)
    label_rows(axis, weights[-1])
    figure.colorbar(mesh, ax=axis, label="weight", pad=0.09)
    return figure


def _lines(axis, processes, title, epochs):
    points = min(POINTS, min(process.steps for process in processes))
    weights = np.stack([process.stretched(points) for process in processes])
    positions = np.linspace(0, epochs or processes[0].steps, points)
    order = np.argsort(-weights.mean(0)[-1])
    for index in order:
        name, values = processes[0].paths[index], weights[:, :, index]
        mean = values.mean(0)
        style = line_style(int(index), len(order)) | {"markevery": 0.15}
        axis.plot(positions, mean, label=f"{name} {mean[-1]:.3g}", **style)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            low = np.maximum(mean - spread, 0.1 * mean)
            axis.fill_between(
                positions, low, mean + spread, color=style["color"], alpha=0.15, linewidth=0
            )
    if (weights > 0).all():
        axis.set_yscale("log")
    axis.set_xlabel("epoch" if epochs else "step")
    axis.set_ylabel("weight")
    axis.set_title(wrapped(_title(title, processes), 70), fontsize=10)
    axis.grid(color="0.9")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _title(title, processes):
    first = processes[0]
    names = " to ".join(filter(None, [first.teacher, first.student]))
    described = ", ".join(filter(None, [names, first.dataset]))
    count = f"n = {len(processes)}" if len(processes) > 1 else ""
    return ", ".join(filter(None, [title or described, count]))
