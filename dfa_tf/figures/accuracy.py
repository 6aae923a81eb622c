"""Test accuracy during training, and final accuracy with its spread over seeds."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator

from dfa_tf.figures.styles import line_style, panels

Curve = Sequence[Sequence[float]]  # [[step, accuracy, loss], ...]


def accuracy_curves(
    settings: Mapping[str, Mapping[str, Sequence[Curve]]],
) -> matplotlib.figure.Figure:
    """Plots test accuracy over training steps.

    Args:
        settings: Maps the title of each setting, and in it each method, to the curves of its
            seeds. A curve is [[step, accuracy, loss], ...].

    Returns:
        A figure with one panel per setting and one line per method: the mean over the seeds. The
        legend ranks the methods by final accuracy.
    """
    figure, axes = panels(len(settings), 1, 8.5, 4.8, extra=(0, 0))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _curves(axis, title, methods)
    return figure


def accuracy_bars(
    settings: Mapping[str, Mapping[str, Sequence[float]]],
) -> matplotlib.figure.Figure:
    """Plots final test accuracy.

    Args:
        settings: Maps the title of each setting, and in it each method, to the accuracies of its
            seeds, as fractions.

    Returns:
        A figure with one panel per setting and one bar per method: the mean over the seeds. Error
        bars show one standard deviation (n - 1), dots the seeds.
    """
    largest = max(len(methods) for methods in settings.values())
    figure, axes = panels(len(settings), 1, max(5.5, 0.8 * largest + 1.5), 4.0, extra=(0, 0.2))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _bars(axis, title, methods)
    return figure


def _curves(axis, title, methods):
    lines = {}
    for index, (method, curves) in enumerate(methods.items()):
        curves = [np.array(curve, float) for curve in curves if curve]
        if not curves:
            continue
        # Only seeds that were evaluated at the same steps can be averaged.
        steps = curves[0][:, 0]
        matching = [c[:, 1] for c in curves if len(c) == len(steps) and (c[:, 0] == steps).all()]
        mean = 100 * np.mean(matching, 0)
        count = f" (n = {len(matching)})" if len(matching) > 1 else ""
        label = f"{method} {mean[-1]:.1f}{count}"
        style = line_style(index, len(methods))
        lines[label] = (mean[-1], axis.plot(steps, mean, label=label, **style)[0])
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("test accuracy, %")
    axis.grid(color="0.9")
    ranked = sorted(lines, key=lambda label: -lines[label][0])
    handles = [lines[label][1] for label in ranked]
    axis.legend(handles, ranked, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _bars(axis, title, methods):
    percent = {m: 100 * np.array(seeds) for m, seeds in methods.items() if len(seeds)}
    means = [values.mean() for values in percent.values()]
    spreads = [values.std(ddof=1) if len(values) > 1 else 0.0 for values in percent.values()]
    axis.bar(range(len(means)), means, color="0.8", edgecolor="0.2", width=0.65)
    axis.errorbar(range(len(means)), means, spreads, fmt="none", color="0.1", capsize=5)
    for index, values in enumerate(percent.values()):
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axis.plot(index + np.array(offsets), values, "o", color="0.35", markersize=3)
        top = max(values.max(), means[index] + spreads[index])
        axis.annotate(
            f"{means[index]:.1f}",
            (index, top),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    labels = [f"{method}\nn = {len(values)}" for method, values in percent.items()]
    axis.set_xticks(range(len(labels)), labels, fontsize=8)
    if len(labels) > 4:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_ylabel("test accuracy, %")
    axis.margins(y=0.12)
    axis.set_ylim(bottom=0)
    axis.set_title(textwrap.fill(title, 60), fontsize=10)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
