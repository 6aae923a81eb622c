"""What a person would rather look at than read."""

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator


def alpha_heatmap(alpha, steps_per_epoch=None):
    """The weights of each group's features over the search (the paper's Fig 4, left).

    alpha: an `Alpha` whose groups have histories. steps_per_epoch: to label epochs, not steps.
    Returns a matplotlib figure: one panel a group, a row a feature, the last block on top,
    darker for more weight, by its square root, so that small ones can be told apart; the final
    weight stands at the right of its row.
    """
    count = len(alpha.groups)
    rows = max(len(group.features) for group in alpha.groups)
    figure = matplotlib.figure.Figure(
        figsize=(3.6 * count + 1.0, 1.5 + 0.42 * rows), layout="constrained"
    )
    unit = "epoch" if steps_per_epoch else "step"
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, group in zip(axes, alpha.groups, strict=True):
        history = group.history or [[0, group.alpha]]
        at = np.array([step for step, _ in history], float) / (steps_per_epoch or 1)
        weights = np.array([weights for _, weights in history]).T
        edges = _edges(at)
        mesh = axis.pcolormesh(
            edges,
            np.arange(len(weights) + 1) + 0.5,
            weights,
            cmap="Greys",
            norm=PowerNorm(0.5, 0, 1),
        )
        axis.set_title(f"{group.name}" if len(history) > 1 else f"{group.name} (not searched)")
        axis.set_xlabel(f"{unit} of the group's search")
        names = [feature.removeprefix(f"{group.name}_") for feature in group.features]
        axis.set_yticks(range(1, len(weights) + 1), names, fontsize=8)
        for row, weight in enumerate(group.alpha, start=1):
            axis.annotate(
                f"{weight:.2f}",
                (1.02, row),
                xycoords=axis.get_yaxis_transform(),
                va="center",
                fontsize=8,
            )
    figure.colorbar(mesh, ax=list(axes), label="weight alpha", pad=0.04)
    figure.suptitle(_title(alpha), fontsize=10)
    return figure


LINES = ("-", "--", ":", "-.")  # told apart in grey, with the markers
MARKERS = "os^vD*Px<>hd"


def accuracy_curves(settings):
    """Test accuracy over the steps.

    settings: {title: {method: [curve of each seed]}}, a curve being [[step, accuracy, loss], ...].
    Returns a matplotlib figure: one panel a setting, one line a method, the mean over its seeds,
    in the order in which they end.
    """
    count = len(settings)
    figure = matplotlib.figure.Figure(figsize=(8.5, 4.8 * count), layout="constrained")
    for axis, (title, methods) in zip(
        figure.subplots(count, squeeze=False), settings.items(), strict=True
    ):
        _accuracy_panel(axis[0], title, methods)
    return figure


def _accuracy_panel(axis, title, methods):
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
        style = {
            "linestyle": LINES[place % len(LINES)],
            "marker": MARKERS[place % len(MARKERS)],
            "color": matplotlib.colormaps["viridis"](0.85 * place / max(1, len(methods) - 1)),
            "markersize": 4,
            "linewidth": 1.3,
        }
        lines[label] = (mean[-1], axis.plot(steps, mean, label=label, **style)[0])
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("test accuracy, %")
    axis.grid(color="0.9")
    ranked = sorted(lines, key=lambda label: -lines[label][0])
    handles = [lines[label][1] for label in ranked]
    axis.legend(handles, ranked, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _title(alpha):
    names = " to ".join(filter(None, [alpha.teacher, alpha.student]))
    return f"{names}, {alpha.dataset}" if alpha.dataset else names


def _edges(at):
    """Borders of cells around the points `at`."""
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0]], middles, [at[-1]]])
