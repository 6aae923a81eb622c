"""Test accuracy during training, and final accuracy with its spread over seeds."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator

from dfa_tf.figures.styles import line_style, panels, wrapped

Curve = Sequence[Sequence[float]]  # [[step, accuracy, loss], ...]


def accuracy_curves(
    settings: Mapping[str, Mapping[str, Sequence[Curve]]],
) -> matplotlib.figure.Figure:
    """Plots test accuracy over training steps.

    Args:
        settings: Maps the title of each setting, and in it each method, to the curves of its
            seeds. A curve is [[step, accuracy, loss], ...].

    Returns:
        A figure with one panel per setting and one line per method: the mean over the seeds, with a
        band of one standard deviation (n - 1). The legend ranks the methods by final accuracy.
    """
    figure, axes = panels(len(settings), 1, 8.5, 4.8, extra=(0, 0))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _curves(axis, title, methods)
    return figure


def accuracy_ranking(
    settings: Mapping[str, Mapping[str, Sequence[float]]], baseline: str = ""
) -> matplotlib.figure.Figure:
    """Plots final test accuracy, methods in the order of their mean.

    Args:
        settings: Maps the title of each setting, and in it each method, to the accuracies of its
            seeds, as fractions.
        baseline: Method whose mean is also drawn as a vertical line, where a setting has it.

    Returns:
        A figure with one panel per setting and one row per method. Dots are seeds, diamonds are
        means, and error bars show one standard deviation (n - 1).
    """
    heights = [
        sum(0.17 + 0.15 * (1 + wrapped(method).count("\n")) for method in methods)
        for methods in settings.values()
    ]
    figure, axes = panels(len(settings), 1, 6.0, max(heights) + 1.1, extra=(0, 0))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _ranking(axis, title, methods, baseline)
    return figure


def accuracy_by_last_weight(
    points: Mapping[str, Sequence[tuple[float, float]]],
    without_features: Mapping[str, Sequence[float]] | None = None,
) -> matplotlib.figure.Figure:
    """Plots final test accuracy over alpha's weight on the last feature.

    Args:
        points: Maps each method to (weight, accuracy) of its runs. The weight is the mean over the
            groups with several features; the accuracy is a fraction.
        without_features: Maps each method that uses no features to the accuracies of its seeds.
            Their means are drawn as horizontal lines, with a band of one standard deviation.

    Returns:
        A figure with one point for each run. A bar beside the runs of a method that have the same
        weight shows mean and standard deviation, that is, the spread of the seeds alone.
    """
    figure, axes = panels(1, 1, 6.5, 4.2, extra=(0, 0))
    axis = axes[0, 0]
    for title, accuracies in (without_features or {}).items():
        percent = 100 * np.array(accuracies)
        axis.axhline(percent.mean(), color="0.4", linestyle="--", linewidth=1)
        axis.annotate(
            title, (0.01, percent.mean()), xycoords=("axes fraction", "data"), va="bottom"
        )
        if len(percent) > 1:
            spread = percent.std(ddof=1)
            axis.axhspan(percent.mean() - spread, percent.mean() + spread, color="0.9", zorder=0)
    for index, (method, runs) in enumerate(points.items()):
        style = line_style(index, len(points)) | {"linestyle": "none", "markersize": 6}
        weights, accuracies = np.array(runs, float).T
        percent = 100 * accuracies
        axis.plot(weights, percent, label=f"{wrapped(method)} (n = {len(runs)})", **style)
        if len(runs) > 1 and np.ptp(weights) < 1e-6:
            axis.errorbar(
                weights[0] + 0.015,
                percent.mean(),
                percent.std(ddof=1),
                fmt="_",
                color=style["color"],
                capsize=4,
            )
    axis.set_xlabel("alpha of the last feature, mean over the groups")
    axis.set_ylabel("test accuracy, %")
    axis.grid(color="0.9")
    axis.legend(fontsize=8)
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
        label = f"{wrapped(method)} {mean[-1]:.1f}{count}"
        style = line_style(index, len(methods))
        lines[label] = (mean[-1], axis.plot(steps, mean, label=label, **style)[0])
        if len(matching) > 1:
            spread = 100 * np.std(matching, 0, ddof=1)
            axis.fill_between(
                steps, mean - spread, mean + spread, color=style["color"], alpha=0.15, linewidth=0
            )
    axis.set_title(wrapped(title, 70), fontsize=10)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("test accuracy, %")
    axis.grid(color="0.9")
    ranked = sorted(lines, key=lambda label: -lines[label][0])
    handles = [lines[label][1] for label in ranked]
    axis.legend(handles, ranked, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _ranking(axis, title, methods, baseline):
    percent = {m: 100 * np.array(seeds) for m, seeds in methods.items() if len(seeds)}
    ranked = sorted(percent, key=lambda method: percent[method].mean())
    if baseline in percent:
        axis.axvline(percent[baseline].mean(), color="0.4", linestyle="--", linewidth=1)
    for place, method in enumerate(ranked):
        values = percent[method]
        mean, spread = values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0
        axis.errorbar(
            mean, place, xerr=spread, fmt="D", color="#0072b2", markersize=5, capsize=4, zorder=3
        )
        offsets = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        axis.plot(values, place + np.array(offsets), "o", color="#e69f00", markersize=3, zorder=4)
        text = f"{mean:.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")
        axis.annotate(
            f"{text}, n = {len(values)}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(len(ranked)), [wrapped(method) for method in ranked], fontsize=9)
    axis.set_ylim(-0.6, len(ranked) - 0.4)
    axis.margins(x=0.08)
    axis.set_xlabel("test accuracy, %")
    axis.set_title(wrapped(title, 50), fontsize=10)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
