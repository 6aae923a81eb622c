"""Aggregation weights during the search, as heatmaps (paper, Fig. 4 left) and as lines."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.colors import PowerNorm

from dfa_tf.alpha import Alpha
from dfa_tf.figures.styles import label_rows, line_style, panels


def alpha_heatmap(alpha: Alpha, steps_per_epoch: float | None = None) -> matplotlib.figure.Figure:
    """Plots the weights of one search as `alpha_heatmaps` does."""
    return alpha_heatmaps({_title(alpha): [alpha]}, steps_per_epoch)


def alpha_heatmaps(
    searches: Mapping[str, Sequence[Alpha]], steps_per_epoch: float | None = None
) -> matplotlib.figure.Figure:
    """Plots the weights of each group's features during the search (paper, Fig. 4 left).

    Args:
        searches: Maps a title to the results of its seeds, whose groups have histories.
        steps_per_epoch: Steps in an epoch, to label epochs instead of steps.

    Returns:
        A figure with one row of panels per title and one panel per group. A panel has one row per
        feature, the last block at the top, and shows the mean over the seeds. Darker is more
        weight, on a square-root scale that separates small weights. The final weight is printed
        to the right of each row.
    """
    first = next(iter(searches.values()))[0]
    largest = max(len(group.features) for group in first.groups)
    figure, axes = panels(
        len(searches), len(first.groups), 3.6, 0.9 + 0.42 * largest, extra=(1.0, 0.6)
    )
    for row, (title, alphas) in zip(axes, searches.items(), strict=True):
        for axis, *groups in zip(row, *(alpha.groups for alpha in alphas), strict=True):
            mesh = _heatmap(axis, groups, steps_per_epoch)
        if len(searches) > 1:
            row[0].set_ylabel(_seeds_title(title, alphas))
    figure.colorbar(mesh, ax=axes, label="weight alpha", pad=0.04)
    figure.suptitle(_title(first) if len(searches) > 1 else next(iter(searches)), fontsize=10)
    return figure


def alpha_trajectories(
    searches: Mapping[str, Sequence[Alpha]], steps_per_epoch: float | None = None
) -> matplotlib.figure.Figure:
    """Plots the weights of each group's features during the search, as lines.

    Args:
        searches: As in `alpha_heatmaps`.
        steps_per_epoch: As in `alpha_heatmaps`.

    Returns:
        A figure with one row of panels per title and one panel per group of several features. A
        panel has one line per feature: the mean over the seeds. Bands show one standard deviation
        (n - 1).
    """
    first = next(iter(searches.values()))[0]
    largest = max(len(group.features) for group in first.groups)
    searched = [k for k, group in enumerate(first.groups) if len(group.features) > 1]
    figure, axes = panels(len(searches), len(searched), 3.3, 2.5, extra=(1.4, 0.6))
    handles = {}
    for row, (title, alphas) in zip(axes, searches.items(), strict=True):
        for axis, k in zip(row, searched, strict=True):
            groups = [alpha.groups[k] for alpha in alphas]
            handles = max(handles, _lines(axis, groups, steps_per_epoch, largest), key=len)
        row[0].set_ylabel(f"{_seeds_title(title, alphas)}\nweight alpha")
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    figure.suptitle(_title(first), fontsize=10)
    return figure


def _heatmap(axis, groups, steps_per_epoch):
    positions, weights = _histories(groups, steps_per_epoch)
    weights = weights.mean(0)
    mesh = axis.pcolormesh(
        _edges(positions),
        np.arange(len(weights) + 1) + 0.5,
        weights,
        cmap="Greys",
        norm=PowerNorm(0.5, 0, 1),
    )
    group = groups[0]
    axis.set_title(group.name if len(positions) > 1 else f"{group.name} (not searched)")
    axis.set_xlabel(f"{'epoch' if steps_per_epoch else 'step'} of the group's search")
    axis.set_yticks(range(1, len(weights) + 1), _short_names(group), fontsize=8)
    label_rows(axis, np.mean([group.alpha for group in groups], 0))
    return mesh


def _lines(axis, groups, steps_per_epoch, largest):
    """Draws one panel. Returns {name of the feature: line}.

    Styles depend on `largest`, the number of features of the largest group, so that a feature
    has the same style in all panels.
    """
    positions, weights = _histories(groups, steps_per_epoch)
    mean = weights.mean(0)
    handles = {}
    for row, name in enumerate(_short_names(groups[0])):
        style = line_style(row, largest) | {"markevery": 0.2, "label": name}
        (handles[name],) = axis.plot(positions, mean[row], **style)
        if len(weights) > 1:
            spread = weights[:, row].std(0, ddof=1)
            axis.fill_between(
                positions,
                mean[row] - spread,
                mean[row] + spread,
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
    axis.set_title(groups[0].name, fontsize=9)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel(f"{'epoch' if steps_per_epoch else 'step'} of the group's search")
    axis.grid(color="0.9")
    return handles


def _histories(groups, steps_per_epoch):
    """Returns the logged steps or epochs [T] and the weights [seeds, features, T] of a group.

    Only seeds that were logged at the same steps can be averaged.
    """
    histories = [group.history or [[0, group.alpha]] for group in groups]
    steps = [step for step, _ in histories[0]]
    matching = [h for h in histories if [step for step, _ in h] == steps]
    weights = np.array([[weights for _, weights in history] for history in matching])
    return np.array(steps, float) / (steps_per_epoch or 1), weights.transpose(0, 2, 1)


def _short_names(group):
    return [feature.removeprefix(f"{group.name}_") for feature in group.features]


def _seeds_title(title, alphas):
    return f"{title}\nn = {len(alphas)}" if len(alphas) > 1 else title


def _title(alpha):
    names = " to ".join(filter(None, [alpha.teacher, alpha.student]))
    return f"{names}, {alpha.dataset}" if alpha.dataset else names


def _edges(positions):
    """Returns the borders of cells around `positions`."""
    if len(positions) == 1:
        return np.array([positions[0] - 0.5, positions[0] + 0.5])
    middles = (positions[1:] + positions[:-1]) / 2
    return np.concatenate([[positions[0]], middles, [positions[-1]]])
