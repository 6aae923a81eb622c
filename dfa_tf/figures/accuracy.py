"""Test accuracy: over the steps, and at the end, with its spread over seeds."""

import textwrap

import numpy as np
from matplotlib.ticker import MaxNLocator

from dfa_tf.figures.styles import line_style, panels


def accuracy_curves(settings):
    """Test accuracy over the steps.

    settings: {title: {method: [curve of each seed]}}, a curve being [[step, accuracy, loss], ...].
    Returns a matplotlib figure: one panel a setting, one line a method, the mean over its seeds,
    in the order in which they end.
    """
    figure, axes = panels(len(settings), 1, 8.5, 4.8, extra=(0, 0))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _curves(axis, title, methods)
    return figure


def accuracy_bars(settings):
    """Test accuracy at the end.

    settings: {title: {method: [accuracy of each seed]}}, accuracies as fractions.
    Returns a matplotlib figure: one panel a setting, one bar a method, the mean over its seeds,
    a whisker of one standard deviation (n - 1) each way, a dot a seed.
    """
    most = max(len(methods) for methods in settings.values())
    figure, axes = panels(len(settings), 1, max(5.5, 0.8 * most + 1.5), 4.0, extra=(0, 0.2))
    for (axis,), (title, methods) in zip(axes, settings.items(), strict=True):
        _bars(axis, title, methods)
    return figure


def _curves(axis, title, methods):
    lines = {}
    for place, (method, curves) in enumerate(methods.items()):
        curves = [np.array(curve, float) for curve in curves if curve]
        if not curves:
            continue
        # Seeds of one setting are evaluated at the same steps; an odd one out is left out.
        steps = curves[0][:, 0]
        alike = [c[:, 1] for c in curves if len(c) == len(steps) and (c[:, 0] == steps).all()]
        mean = 100 * np.mean(alike, 0)
        label = f"{method} {mean[-1]:.1f}" + (f" (n = {len(alike)})" if len(alike) > 1 else "")
        style = line_style(place, len(methods))
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
    for place, values in enumerate(percent.values()):
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axis.plot(place + np.array(offsets), values, "o", color="0.35", markersize=3)
        top = max(values.max(), means[place] + spreads[place])
        axis.annotate(
            f"{means[place]:.1f}",
            (place, top),
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
