"""Tables and figures of alpha: the result of each search, and the gradients that led to it."""

import dataclasses
import itertools
import pathlib
import statistics
from collections.abc import Iterable

import numpy as np

from dfa_tf.alpha import Alpha
from dfa_tf.comparison.runs import Run
from dfa_tf.errors import UserError
from dfa_tf.tables import markdown_table, table

SIMILARITY = ("alpha of", "group", "pairs", "correlation", "distance")
HEADING = ("search", "n", "group", "feature", "alpha", "loss gradient, 1e-3", "decay, 1e-3")


@dataclasses.dataclass(frozen=True)
class Searches:
    """Finished searches to compare. Their teachers have the same groups.

    Attributes:
        alphas: For each row title, alpha of each seed.
        steps_per_epoch: Steps in an epoch of all searches; None if they differ.
    """

    alphas: dict[str, list[Alpha]]
    steps_per_epoch: float | None = None

    def cells(self) -> list[tuple[str, ...]]:
        """Returns the table as text: the heading, then a row for each feature.

        Values are means over the seeds, "+-" one standard deviation (n - 1).
        """
        rows: list[tuple[str, ...]] = [HEADING]
        for title, alphas in self.alphas.items():
            for groups in zip(*(alpha.groups for alpha in alphas), strict=True):
                if len(groups[0].features) == 1:
                    continue
                for j, feature in enumerate(groups[0].features):
                    rows.append(
                        (
                            title,
                            str(len(alphas)),
                            groups[0].name,
                            feature.removeprefix(f"{groups[0].name}_"),
                            _mean_and_deviation([group.alpha[j] for group in groups]),
                            _mean_and_deviation([g.mean_loss_gradient[j] * 1000 for g in groups]),
                            _mean_and_deviation([group.mean_decay[j] * 1000 for group in groups]),
                        )
                    )
        return rows

    def similarity_cells(self) -> list[tuple[str, ...]]:
        """Returns a table that compares alpha between seeds of a row, and between rows by seed.

        Each value is a mean over the pairs of searches. "correlation" is Pearson's, over the features
        of a group. "distance" is half the sum of the absolute differences, from 0 to 1. The list is
        empty if there are no pairs.
        """
        pairs = {
            f"{title}, two seeds": list(itertools.combinations(alphas, 2))
            for title, alphas in self.alphas.items()
        }
        for (title, alphas), (other, others) in itertools.combinations(self.alphas.items(), 2):
            pairs[f"{title} and {other}, same seed"] = [
                (a, b) for a in alphas for b in others if a.seed == b.seed
            ]
        rows = []
        for title, compared in pairs.items():
            names = [g.name for g in compared[0][0].groups if len(g.alpha) > 1] if compared else []
            for name in names:
                weights = [(a[name], b[name]) for a, b in compared]
                distance = np.mean([np.abs(a - b).sum() / 2 for a, b in weights])
                # Equal weights have no correlation.
                varied = all(np.ptp(alpha) > 0 for each in weights for alpha in each)
                r = np.mean([np.corrcoef(*each)[0, 1] for each in weights]) if varied else None
                correlation = "" if r is None else f"{r:.3f}"
                rows.append((title, name, str(len(compared)), correlation, f"{distance:.3f}"))
        return [SIMILARITY, *rows] if rows else []

    def text(self) -> str:
        """Returns the table for a terminal."""
        return table(self.cells())

    def markdown(self) -> str:
        """Returns the tables in Markdown."""
        parts = [
            "alpha at the end of the search. Loss gradient and decay are the two terms of beta's "
            "gradient, averaged over the search; a positive term reduces the feature's weight.",
            markdown_table(self.cells()),
        ]
        if similarity := self.similarity_cells():
            parts += [
                "Similarity of alpha over the features of a group: Pearson's correlation, and half "
                "the sum of the absolute differences. Means over the pairs.",
                markdown_table(similarity),
            ]
        return "\n\n".join(parts)

    def write(self, folder: pathlib.Path) -> None:
        """Writes the figures alpha_heatmap and alpha_trajectories, as .png and .pdf."""
        from dfa_tf import figures  # matplotlib is slow to import

        arguments = self.alphas, self.steps_per_epoch
        figures.draw(lambda: figures.alpha_heatmaps(*arguments), folder, "alpha_heatmap")
        figures.draw(lambda: figures.alpha_trajectories(*arguments), folder, "alpha_trajectories")


def load_searches(runs: Iterable[Run]) -> Searches | None:
    """Loads the searches of runs. Runs without a search are skipped.

    If the teachers differ, those with the groups of the first one are kept.

    Returns:
        The searches, or None if there are none.
    """
    alphas, layout, steps_per_epoch = {}, None, set()
    for run in runs:
        try:
            alpha = Alpha.load(run.path / "search/alpha.json")
        except UserError:
            continue
        run_layout = [(group.name, len(group.features)) for group in alpha.groups]
        layout = layout or run_layout
        if run_layout == layout and _is_searched(alpha):
            alphas.setdefault(run.method, []).append(alpha)
            steps, epochs = (run.search.steps, run.search.epochs) if run.search else (None, None)
            steps_per_epoch.add(steps / epochs if steps and epochs else None)
    if not alphas:
        return None
    return Searches(alphas, steps_per_epoch.pop() if len(steps_per_epoch) == 1 else None)


def _is_searched(alpha):
    """Returns whether alpha records a search of at least one group."""
    records = (
        (len(group.alpha), len(each))
        for group in alpha.groups
        for each in (group.features, group.mean_loss_gradient, group.mean_decay)
    )
    is_complete = all(count == length for count, length in records)
    return is_complete and any(len(group.history) > 1 for group in alpha.groups)


def _mean_and_deviation(values):
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} +- {statistics.stdev(values):.3f}" if len(values) > 1 else mean
