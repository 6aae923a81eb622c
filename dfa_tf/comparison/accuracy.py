"""Accuracy tables: mean and standard deviation over seeds, one row for each method."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Sequence

from dfa_tf.comparison.bindings import shared_bindings
from dfa_tf.comparison.paired import paired_difference
from dfa_tf.comparison.paper import Reference
from dfa_tf.comparison.runs import Run
from dfa_tf.process import Process

HEADING = (
    "method",
    "n",
    "last epoch, %",
    "best epoch, %",
    "kept epoch, %",
    "top-5, %",
    "calibration error, %",
    "agreement, %",
    "epochs",
    "teacher passes",
    "parameters",
    "seconds",
    "images/s",
)
METRICS = (  # of students and teachers
    "last_accuracy",
    "best_accuracy",
    "top_5_accuracy",
    "calibration_error",
)


@dataclasses.dataclass(frozen=True)
class AccuracyRow:
    """Finished runs that differ in the seed alone.

    Attributes:
        title: Title of the row.
        runs: The runs. Of several runs with one seed, the last one counts.
    """

    title: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """The method's title, without the settings that `title` may add."""
        return self.runs[0].method

    @property
    def distinct_runs(self) -> list[Run]:
        """One run for each seed."""
        return list({run.student.seed: run for run in self.runs}.values())

    @property
    def runs_of_repeated_seeds(self) -> list[Run]:
        """The runs whose seed another run has, too."""
        seeds = [run.student.seed for run in self.runs]
        return [run for run in self.runs if seeds.count(run.student.seed) > 1]

    @property
    def accuracy_by_seed(self) -> dict[int, float]:
        """Test accuracy of the student, a fraction, by seed."""
        accuracies = {run.student.seed: run.student.last_accuracy for run in self.runs}
        return {seed: accuracy for seed, accuracy in accuracies.items() if accuracy is not None}

    @property
    def last_accuracies(self) -> list[float]:
        """Test accuracy of the student, a fraction, of each seed."""
        return list(self.accuracy_by_seed.values())

    @property
    def last_weights(self) -> list[tuple[float, float]]:
        """(alpha of the last feature, accuracy) of each run that recorded both."""
        return [
            (run.last_weight, run.student.last_accuracy)
            for run in self.distinct_runs
            if run.last_weight is not None and run.student.last_accuracy is not None
        ]

    @property
    def processes(self) -> list[Process]:
        """The weights of the paths over the training, of each seed for which they are recorded."""
        return _same_paths([run.process for run in self.distinct_runs])

    @property
    def searched_processes(self) -> list[Process]:
        """The processes that searches found, of each seed for which there is one."""
        return _same_paths([run.searched_process for run in self.distinct_runs])

    def cells(self) -> tuple[str, ...]:
        """Returns the row under `HEADING`."""
        runs = self.distinct_runs
        students = [run.student for run in runs]
        return (
            self.title,
            str(len(runs)),
            *_metric_cells(students, runs[0].student.evaluated_on),
            _over_seeds(students, "agreement"),
            _number(runs[0].student.epochs),
            _number(runs[0].student.teacher_passes),
            f"{runs[0].student.parameters:,}",
            f"{statistics.mean(run.seconds for run in runs):.0f}",
            _median_speed(runs),
        )


@dataclasses.dataclass(frozen=True)
class AccuracyTable:
    """Rows with the same data set and student, and the same number of steps or one experiment.

    Attributes:
        title: Title of the table.
        rows: Its rows.
    """

    title: str
    rows: tuple[AccuracyRow, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of all rows."""
        return [run for row in self.rows for run in row.runs]

    @property
    def curves(self) -> dict[str, list]:
        """For each row, the accuracy over the steps of each run."""
        return {row.title: [run.student.curve for run in row.runs] for row in self.rows}

    @property
    def last_accuracies(self) -> dict[str, list[float]]:
        """For each row, the test accuracy of the student of each seed."""
        return {row.title: row.last_accuracies for row in self.rows}

    @property
    def last_weights(self) -> dict[str, list[tuple[float, float]]]:
        """For each row that uses alpha, (weight of the last feature, accuracy) of each run."""
        return {row.title: row.last_weights for row in self.rows if row.last_weights}

    def cells(self, reference: Reference | None = None) -> list[tuple[str, ...]]:
        """Returns the table as text, with the heading and a row for each teacher.

        Columns without an entry are omitted.

        Args:
            reference: The paper's results, for a further column. The column is omitted if the
                data set differs or the paper has none of the methods.
        """
        teachers, methods = _teacher_cells(self.runs), [row.cells() for row in self.rows]
        lines = [HEADING, *teachers, *methods]
        if reference and self._is_in(reference):
            paper = [reference.percent.get("Teacher")] * len(teachers)
            paper += [reference.percent.get(row.method) for row in self.rows]
            column = [f"paper, {reference.networks}, %", *map(_percent, paper)]
            lines = [(*line, cell) for line, cell in zip(lines, column, strict=True)]
        return _without_empty_columns(lines)

    def difference_cells(self, baselines: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns a table of paired differences as text, with the heading.

        Args:
            baselines: Titles of the rows to compare with. Rows that the table lacks are omitted.

        Returns:
            A row for each method: its accuracy minus that of each baseline, in points, with the
            95 % confidence interval. Empty if no baseline is in the table or no seeds match.
        """
        rows = {row.title: row for row in self.rows}
        columns = [title for title in baselines if title in rows]
        cells = []
        for title, row in rows.items():
            differences = [
                paired_difference(row.accuracy_by_seed, rows[column].accuracy_by_seed)
                if title != column
                else None
                for column in columns
            ]
            if any(differences):
                cells.append((title, *(d.text(scale=100) if d else "" for d in differences)))
        return [("method", *(f"minus {c}, points" for c in columns)), *cells] if cells else []

    def _is_in(self, reference):
        methods = {row.method for row in self.rows}
        is_same_dataset = self.runs[0].student.dataset == reference.dataset
        return is_same_dataset and bool(methods & set(reference.percent))


def accuracy_tables(runs: Iterable[Run], row_order: Sequence[str] = ()) -> list[AccuracyTable]:
    """Groups finished runs into tables and rows.

    The runs of a row differ in the seed alone. Runs of a method with different settings get rows
    of their own, unless they name the row of an experiment.

    Args:
        runs: Finished runs.
        row_order: Titles of the first rows. Other rows follow in alphabetical order.
    """
    settings = {}
    for run in runs:
        settings.setdefault(run.setting, {}).setdefault(run.method, []).append(run)
    place = {title: k for k, title in enumerate(row_order)}
    tables = []
    for _, methods in sorted(settings.items(), key=lambda item: str(item[0])):
        rows = [row for title, runs in methods.items() for row in _rows(title, runs)]
        rows.sort(key=lambda row: (place.get(row.method, len(place)), row.title))
        tables.append(AccuracyTable(_title([run for row in rows for run in row.runs]), tuple(rows)))
    return tables


def mean_and_deviation(fractions: Sequence[float]) -> str:
    """Returns "mean +- standard deviation" (n - 1) in percent.

    A single value has no deviation, and the text of no value is empty.
    """
    percent = [100 * fraction for fraction in fractions]
    if not percent:
        return ""
    mean = f"{statistics.mean(percent):.2f}"
    return f"{mean} +- {statistics.stdev(percent):.2f}" if len(percent) > 1 else mean


def _same_paths(processes):
    """Returns those processes that have the paths of the first one."""
    found = [process for process in processes if process]
    return [process for process in found if process.paths == found[0].paths]


def _over_seeds(networks, name):
    """Returns the mean and deviation of a metric, over the networks that have it."""
    values = [getattr(network, name) for network in networks]
    return mean_and_deviation([value for value in values if value is not None])


def _rows(title, runs):
    """Splits the runs of a method by their settings, which then appear in the titles."""
    groups = {}
    for run in runs:
        groups.setdefault(tuple(sorted(run.bindings.items())), []).append(run)
    if runs[0].row_title or len(groups) == 1:
        return [AccuracyRow(title, tuple(runs))]
    shared = shared_bindings(run.bindings for run in runs)
    rows = []
    for bindings, members in groups.items():
        settings = ", ".join(f"{n} = {v}" for n, v in bindings if (n, v) not in shared)
        rows.append(AccuracyRow(f"{title} ({settings})" if settings else title, tuple(members)))
    return rows


def _title(runs):
    student = runs[0].student
    teachers = sorted({run.student.teacher for run in runs if run.student.teacher})
    networks = " to ".join([" and ".join(teachers)] * bool(teachers) + [student.student])
    return (
        f"{networks} on {student.dataset or 'its data'}: "
        f"{student.train_examples:,} training images, {_range(run.student.steps for run in runs)} "
        "steps"
    )


def _range(numbers):
    numbers = sorted(set(numbers))
    return " to ".join(f"{number:,}" for number in dict.fromkeys((numbers[0], numbers[-1])))


def _without_empty_columns(lines):
    kept = [any(column) for column in zip(*lines[1:], strict=True)]
    return [tuple(itertools.compress(line, kept)) for line in lines]


def _teacher_cells(runs):
    """Returns a row for each teacher network of these runs, over its distinct trainings."""
    trainings = {}
    for run in runs:
        name, teacher = run.student.teacher, run.teacher
        # The teacher of a later generation is a student, which has a row of its own.
        is_trained = teacher and teacher.last_accuracy is not None and run.student.generation == 2
        if name and is_trained:
            key = teacher.fingerprint or teacher.last_accuracy
            group = name, teacher.parameters, teacher.evaluated_on
            trainings.setdefault(group, {})[key] = teacher
    rows = []
    for (name, parameters, evaluated_on), teachers in trainings.items():
        metrics = _metric_cells(list(teachers.values()), evaluated_on)
        cells = f"Teacher {name}", str(len(teachers)), *metrics, "", "", ""
        rows.append((*cells, f"{parameters:,}", "", ""))
    return rows


def _metric_cells(networks, evaluated_on):
    """Returns the cells for the last, best and kept epoch, top-5 accuracy and calibration error.

    If validation examples chose the network, its accuracy is that of the kept epoch.
    """
    last, best, *others = (_over_seeds(networks, name) for name in METRICS)
    epochs = ("", "", last) if evaluated_on == "validation" else (last, best, "")
    return *epochs, *others


def _median_speed(runs):
    speeds = [run.student.images_per_second for run in runs]
    speeds = [speed for speed in speeds if speed]
    return f"{statistics.median(speeds):.0f}" if speeds else ""


def _number(number):
    return "" if number is None else f"{number:,g}"


def _percent(number):
    return f"{number:.2f}" if number else ""
