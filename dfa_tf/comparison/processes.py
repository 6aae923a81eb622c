"""Tables and figures of processes: how learnt weights of paths agree between seeds."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dfa_tf.process import POINTS, Process
from dfa_tf.tables import markdown_table, table

HEADING = ("weights of", "n", "correlation of seeds", "between paths", "between seeds")
NOTE = (
    "Agreement of the path weights between seeds. Correlation: Spearman's, of the weights of all "
    "paths and times of two seeds, mean over the pairs. Between paths, between seeds: standard "
    "deviation of the weight's mean over time; that between seeds is averaged over the paths."
)


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of several settings.

    Attributes:
        used: For each row title, the process that the distillation of each seed used. All of a row
            have the same paths, in the same order.
        searched: The same for the processes that the rows searched. A distillation uses its
            process with a threshold.
        epochs: For each row title, the epochs of the distillations, or None.
    """

    used: Mapping[str, Sequence[Process]]
    searched: Mapping[str, Sequence[Process]] = dataclasses.field(default_factory=dict)
    epochs: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    def agreement_cells(self) -> list[tuple[str, ...]]:
        """Returns a table that compares the processes of a row's seeds: the heading, then the rows.

        The list is empty if no row has two seeds.
        """
        settings = dict(self.used) | {f"{t}, search": p for t, p in self.searched.items()}
        rows = []
        for title, processes in settings.items():
            if len(processes) < 2:
                continue
            weights = np.stack([process.stretched(POINTS) for process in processes])
            means = weights.mean(1)  # [seeds, paths]
            between_paths = means.mean(0).std(ddof=1) if means.shape[1] > 1 else 0.0
            between_seeds = means.std(0, ddof=1).mean()
            rows.append(
                (
                    title,
                    str(len(processes)),
                    _correlation(weights),
                    f"{between_paths:.3f}",
                    f"{between_seeds:.3f}",
                )
            )
        return [HEADING, *rows] if rows else []

    def text(self) -> str:
        """Returns the table for a terminal, or an empty text."""
        cells = self.agreement_cells()
        return f"{NOTE}\n{table(cells)}" if cells else ""

    def markdown(self) -> str:
        """Returns the table in Markdown, or an empty text."""
        cells = self.agreement_cells()
        return f"{NOTE}\n\n{markdown_table(cells)}" if cells else ""

    def write(self, folder: pathlib.Path) -> None:
        """Writes the figure weights, as .png and .pdf."""
        from dfa_tf import figures  # matplotlib is slow to import

        figures.draw(lambda: figures.process_lines(self.used, self.epochs), folder, "weights")


def _correlation(weights):
    """Returns the mean correlation over pairs of seeds; an empty text if weights are constant."""
    from scipy.stats import spearmanr  # slow to import

    flat = weights.reshape(len(weights), -1)
    if (np.ptp(flat, axis=1) == 0).any():
        return ""
    pairs = itertools.combinations(flat, 2)
    return f"{np.mean([spearmanr(*pair).statistic for pair in pairs]):.3f}"
