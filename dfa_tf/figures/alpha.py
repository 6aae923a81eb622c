"""The aggregation weights over the search: as heatmaps (the paper's Fig 4, left) and as lines."""

import numpy as np
from matplotlib.colors import PowerNorm

from dfa_tf.figures.styles import line_style, panels


def alpha_heatmap(alpha, steps_per_epoch=None):
    """`alpha_heatmaps` of one search. alpha: an `Alpha` whose groups have histories."""
    return alpha_heatmaps({_title(alpha): [alpha]}, steps_per_epoch)


def alpha_heatmaps(searches, steps_per_epoch=None):
    """The weights of each group's features over the search (the paper's Fig 4, left).

    searches: {title: [Alpha of each seed]}. steps_per_epoch: to label epochs, not steps.
    Returns a matplotlib figure: for each title one row of panels, one panel a group, in it a row a
    feature, the last block on top, darker for more weight, the mean over the seeds; by its square
    root, so that small ones can be told apart. The final weight stands at the right of its row.
    """
    first = next(iter(searches.values()))[0]
    most = max(len(group.features) for group in first.groups)
    figure, axes = panels(
        len(searches), len(first.groups), 3.6, 0.9 + 0.42 * most, extra=(1.0, 0.6)
    )
    for row, (title, alphas) in zip(axes, searches.items(), strict=True):
        for axis, *groups in zip(row, *(alpha.groups for alpha in alphas), strict=True):
            mesh = _heatmap(axis, groups, steps_per_epoch)
        if len(searches) > 1:
            row[0].set_ylabel(_of_seeds(title, alphas))
    figure.colorbar(mesh, ax=axes, label="weight alpha", pad=0.04)
    figure.suptitle(_title(first) if len(searches) > 1 else next(iter(searches)), fontsize=10)
    return figure


def alpha_trajectories(searches, steps_per_epoch=None):
    """The weights of each group's features over the search, as lines.

    Arguments as of `alpha_heatmaps`. Returns a matplotlib figure: panels as there, one line a
    feature, the mean over the seeds, in a band of one standard deviation (n - 1) each way; without
    groups of one feature.
    """
    first = next(iter(searches.values()))[0]
    most = max(len(group.features) for group in first.groups)
    searched = [k for k, group in enumerate(first.groups) if len(group.features) > 1]
    figure, axes = panels(len(searches), len(searched), 3.3, 2.5, extra=(1.4, 0.6))
    handles = {}
    for row, (title, alphas) in zip(axes, searches.items(), strict=True):
        for axis, k in zip(row, searched, strict=True):
            groups = [alpha.groups[k] for alpha in alphas]
            handles = max(handles, _lines(axis, groups, steps_per_epoch, most), key=len)
        row[0].set_ylabel(f"{_of_seeds(title, alphas)}\nweight alpha")
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    figure.suptitle(_title(first), fontsize=10)
    return figure


def _heatmap(axis, groups, steps_per_epoch):
    at, weights = _histories(groups, steps_per_epoch)
    weights = weights.mean(0)
    mesh = axis.pcolormesh(
        _edges(at),
        np.arange(len(weights) + 1) + 0.5,
        weights,
        cmap="Greys",
        norm=PowerNorm(0.5, 0, 1),
    )
    group = groups[0]
    axis.set_title(group.name if len(at) > 1 else f"{group.name} (not searched)")
    axis.set_xlabel(f"{'epoch' if steps_per_epoch else 'step'} of the group's search")
    axis.set_yticks(range(1, len(weights) + 1), _short_names(group), fontsize=8)
    for row, weight in enumerate(np.mean([group.alpha for group in groups], 0), start=1):
        axis.annotate(
            f"{weight:.2f}",
            (1.02, row),
            xycoords=axis.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )
    return mesh


def _lines(axis, groups, steps_per_epoch, most):
    """Draws them. most: features of the largest group. Returns {feature's name: line}."""
    at, weights = _histories(groups, steps_per_epoch)
    mean = weights.mean(0)
    handles = {}
    for place, name in enumerate(_short_names(groups[0])):
        style = line_style(place, most) | {"markevery": 0.2, "label": name}
        (handles[name],) = axis.plot(at, mean[place], **style)
        if len(weights) > 1:
            spread = weights[:, place].std(0, ddof=1)
            axis.fill_between(
                at,
                mean[place] - spread,
                mean[place] + spread,
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
    """(where [T], weights [seeds, features, T]) of one group's searches, which log alike."""
    histories = [group.history or [[0, group.alpha]] for group in groups]
    steps = [step for step, _ in histories[0]]
    alike = [h for h in histories if [step for step, _ in h] == steps]
    weights = np.array([[weights for _, weights in history] for history in alike])
    return np.array(steps, float) / (steps_per_epoch or 1), weights.transpose(0, 2, 1)


def _short_names(group):
    return [feature.removeprefix(f"{group.name}_") for feature in group.features]


def _of_seeds(title, alphas):
    return f"{title}\nn = {len(alphas)}" if len(alphas) > 1 else title


def _title(alpha):
    names = " to ".join(filter(None, [alpha.teacher, alpha.student]))
    return f"{names}, {alpha.dataset}" if alpha.dataset else names


def _edges(at):
    """Borders of cells around the points `at`."""
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0]], middles, [at[-1]]])
