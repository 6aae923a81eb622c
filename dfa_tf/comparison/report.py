"""The report on several runs, as text, Markdown, CSV and figures."""

import csv
import dataclasses
import functools
import io
import pathlib

from dfa_tf.comparison.accuracy import AccuracyTable, accuracy_tables
from dfa_tf.comparison.metrics import STUDENT_METRICS
from dfa_tf.comparison.paper import Reference
from dfa_tf.comparison.processes import Processes
from dfa_tf.comparison.runs import FINISHED, Run
from dfa_tf.comparison.searches import Searches, load_searches
from dfa_tf.comparison.titles import TITLES
from dfa_tf.files import write_text
from dfa_tf.tables import markdown_table, table

DIFFERENCES = "Difference in test accuracy, paired by seed: mean +- 95 % interval"
CSV_COLUMNS = (
    "workdir",
    "state",
    "dataset",
    "train_examples",
    "teacher",
    "student",
    "method",
    "seed",
    *STUDENT_METRICS,
    "parameters",
    "steps",
    "epochs",
    "teacher_passes",
    "seconds",
    "images_per_second",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """A report on several runs.

    Attributes:
        runs: The runs, finished or not.
        reference: The paper's results, for a column of the tables.
        row_order: Titles of the first rows.
        baselines: Titles of the rows that the others are compared with by seed.
        searches_only: Whether only alpha is compared, without accuracies.
    """

    runs: list[Run]
    reference: Reference | None = None
    row_order: tuple[str, ...] = ()
    baselines: tuple[str, ...] = (TITLES["plain"],)
    searches_only: bool = False

    @property
    def finished(self) -> list[Run]:
        """The runs with a finished distillation."""
        return [run for run in self.runs if run.state == FINISHED]

    @functools.cached_property
    def tables(self) -> list[AccuracyTable]:
        """The accuracy tables."""
        return [] if self.searches_only else accuracy_tables(self.finished, self.row_order)

    @functools.cached_property
    def searches(self) -> Searches | None:
        """The searches of these runs, or None if there are none."""
        if self.searches_only:
            return load_searches(self.runs)
        return load_searches(run for run in self.finished if run.is_searched)

    @functools.cached_property
    def processes(self) -> Processes:
        """The learnt weights and the processes of these runs."""
        several = len(self.tables) > 1
        rows = {
            f"{table.title}: {row.title}" if several else row.title: row
            for table in self.tables
            for row in table.rows
        }
        return Processes(
            used={title: row.processes for title, row in rows.items() if row.processes},
            searched={title: p for title, row in rows.items() if (p := row.searched_processes)},
            epochs={title: row.runs[0].student.epochs for title, row in rows.items()},
        )

    @property
    def notes(self) -> list[str]:
        """The runs that are not in the tables, and why."""
        if self.searches_only:
            missing = [str(run.path) for run in self.runs if not run.search]
            return [f"no finished search in {', '.join(missing)}"] if missing else []
        return self._unfinished_notes() + self._duplicate_notes()

    def text(self) -> str:
        """Returns the report for a terminal."""
        parts = []
        for t in self.tables:
            parts.append(f"{t.title}\n{table(t.cells(self.reference))}")
            if differences := t.difference_cells(self.baselines):
                parts.append(f"{DIFFERENCES}\n{table(differences)}")
        if self.searches_only and self.searches:
            parts.append(self.searches.text())
        parts += [agreement] if (agreement := self.processes.text()) else []
        if self.notes:
            parts.append("\n".join(self.notes))
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """Returns the report in Markdown."""
        parts = []
        for t in self.tables:
            parts.append(f"{t.title}\n\n{markdown_table(t.cells(self.reference))}")
            if differences := t.difference_cells(self.baselines):
                parts.append(f"{DIFFERENCES}\n\n{markdown_table(differences)}")
        if self.searches:
            parts.append(self.searches.markdown())
        parts += [agreement] if (agreement := self.processes.markdown()) else []
        if self.notes:
            parts.append("\n".join(["Notes:", "", *(f"- {note}" for note in self.notes)]))
        return "\n\n".join([*parts, ""])

    def csv(self) -> str:
        """Returns one line for each run. Accuracies and the calibration error are fractions."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_csv_entries, self.runs))
        return stream.getvalue()

    def write(self, folder: pathlib.Path) -> None:
        """Writes report.md, report.csv, the figures as .png and .pdf, and hparams/ for TensorBoard.

        The figures are accuracy, accuracy_ranking, and those of `Searches.write`. If runs used
        several alphas, accuracy_by_last_weight is written, too; if their paths had weights that
        changed, weights. Without accuracy tables, report.csv, hparams/
        and the figures of accuracy are omitted.
        """
        # Matplotlib and TensorBoard are slow to import.
        from dfa_tf import figures
        from dfa_tf.comparison.hparams import write_hparams

        write_text(folder / "report.md", self.markdown())
        if self.searches:
            self.searches.write(folder)
        if self.tables:
            write_text(folder / "report.csv", self.csv())
            write_hparams(self.finished, folder / "hparams")
            curves = {t.title: t.curves for t in self.tables}
            figures.draw(lambda: figures.accuracy_curves(curves), folder, "accuracy")
            accuracies = {t.title: t.last_accuracies for t in self.tables}
            plain = TITLES["plain"]
            figures.draw(
                lambda: figures.accuracy_ranking(accuracies, baseline=plain),
                folder,
                "accuracy_ranking",
            )
            if self.processes.used:
                self.processes.write(folder)
            if several := self._several_alphas():
                figures.draw(
                    lambda: figures.accuracy_by_last_weight(*several),
                    folder,
                    "accuracy_by_last_weight",
                )

    @property
    def _rows(self):
        return [row for t in self.tables for row in t.rows]

    def _several_alphas(self):
        """Returns the points of the first table whose runs used at least three alphas, if any."""
        for t in self.tables:
            if len({weight for points in t.last_weights.values() for weight, _ in points}) >= 3:
                plain = {r.title: r.last_accuracies for r in t.rows if r.title == TITLES["plain"]}
                return t.last_weights, plain
        return None

    def _unfinished_notes(self):
        paths = {}
        for run in self.runs:
            if run.state != FINISHED:
                paths.setdefault(f"{run.state}, {run.note}", []).append(str(run.path))
        return [f"{reason}: {', '.join(group)}" for reason, group in paths.items()]

    def _duplicate_notes(self):
        groups = [row.runs_of_repeated_seeds for row in self._rows]
        return [
            "runs with the same seed, of which only the last counts: "
            + ", ".join(str(run.path) for run in runs)
            for runs in groups
            if runs
        ]


def _csv_entries(run):
    entries = {"workdir": str(run.path), "state": run.state}
    if run.state != FINISHED:
        return entries
    student = run.student
    values = {name: getattr(student, name) for name in CSV_COLUMNS if hasattr(student, name)}
    return entries | values | {"method": run.method, "seconds": round(run.seconds, 1)}
