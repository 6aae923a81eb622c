"""What a person would rather look at than read."""

import matplotlib.figure
import numpy as np
from matplotlib.colors import PowerNorm


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


def _title(alpha):
    names = " to ".join(filter(None, [alpha.teacher, alpha.student]))
    return f"{names}, {alpha.dataset}" if alpha.dataset else names


def _edges(at):
    """Borders of cells around the points `at`."""
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0]], middles, [at[-1]]])
