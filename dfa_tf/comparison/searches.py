"""What searches ended in, and which force moved them: alpha as tables and figures."""

import dataclasses
import statistics

from dfa_tf.alpha import Alpha
from dfa_tf.errors import UserError
from dfa_tf.tables import markdown_table, table

HEADING = ("search", "n", "group", "feature", "alpha", "loss gradient, 1e-3", "decay, 1e-3")


@dataclasses.dataclass(frozen=True)
class Searches:
    """Finished searches to compare.

    alphas: {title: [Alpha of each seed]}. steps_per_epoch: of all, None where they differ.
    """

    alphas: dict
    steps_per_epoch: float | None = None

    def rows(self):
        """One row a feature, texts, the heading first: means over seeds, +- one deviation."""
        rows = [HEADING]
        for title, alphas in self.alphas.items():
            for groups in zip(*(alpha.groups for alpha in alphas), strict=True):
                if len(groups[0].features) == 1:
                    continue
                for j, feature in enumerate(groups[0].features):
                    short = feature.removeprefix(f"{groups[0].name}_")
                    of_seeds = [
                        [getattr(group, name)[j] * factor for group in groups]
                        for name, factor in (
                            ("alpha", 1),
                            ("mean_loss_gradient", 1000),
                            ("mean_decay", 1000),
                        )
                    ]
                    row = (title, str(len(alphas)), groups[0].name, short)
                    rows.append((*row, *map(_spread, of_seeds)))
        return rows

    def text(self):
        """For the terminal."""
        return table(self.rows())

    def markdown(self):
        return (
            "alpha at the end of the search. Loss gradient and decay are the two terms of beta's "
            "gradient, means over the search: a positive one lowers the feature's weight.\n\n"
            + markdown_table(self.rows())
        )

    def write(self, folder):
        """FOLDER/alpha_heatmap and alpha_trajectories, .png and .pdf: each of searches that have
        the same groups."""
        from dfa_tf import figures  # matplotlib is slow to import

        figures.save(
            figures.alpha_heatmaps(self.alphas, self.steps_per_epoch), folder, "alpha_heatmap"
        )
        figures.save(
            figures.alpha_trajectories(self.alphas, self.steps_per_epoch),
            folder,
            "alpha_trajectories",
        )


def searches_of(runs):
    """The Searches of the first setting among `runs`: (title, Run) pairs. None where none has one."""
    alphas, layout, epochs = {}, None, set()
    for title, run in runs:
        try:
            alpha = Alpha.load(run.path / "search/alpha.json")
        except UserError:
            continue
        its = [(group.name, len(group.features)) for group in alpha.groups]
        layout = layout or its
        if its == layout and any(len(group.history) > 1 for group in alpha.groups):
            alphas.setdefault(title, []).append(alpha)
            steps, of_all = (run.search.get(name) for name in ("steps", "epochs"))
            epochs.add(steps / of_all if steps and of_all else None)
    return Searches(alphas, epochs.pop() if len(epochs) == 1 else None) if alphas else None


def _spread(values):
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} +- {statistics.stdev(values):.3f}" if len(values) > 1 else mean
