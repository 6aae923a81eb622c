"""Accuracy of several runs as tables and a figure: mean and spread over seeds, by method."""

import csv
import dataclasses
import io
import statistics

from dfa_tf.comparison.paper import Reference
from dfa_tf.comparison.runs import FINISHED
from dfa_tf.comparison.searches import searches_of
from dfa_tf.files import write_text
from dfa_tf.tables import markdown_table, table

HEADING = (
    "method",
    "n",
    "last epoch, %",
    "best epoch, %",
    "parameters",
    "seconds",
    "images/s",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What `runs` say.

    reference: the paper's numbers to stand beside. order: of the rows. of_searches: whether it is
    alpha that is asked for, and no accuracy.
    """

    runs: list
    reference: Reference | None = None
    order: tuple = ()
    of_searches: bool = False

    @property
    def finished(self):
        return [run for run in self.runs if run.state == FINISHED]

    @property
    def unfinished(self):
        """Lines that name the runs that are not in the tables."""
        alike = {}
        for run in self.runs:
            if run.state != FINISHED:
                alike.setdefault(f"{run.state}, {run.note}", []).append(str(run.path))
        return [f"{what}: {', '.join(paths)}" for what, paths in alike.items()]

    @property
    def searches(self):
        """The Searches that these runs distilled from, or made."""
        runs = self.runs if self.of_searches else self.finished
        of_own = [run for run in runs if self.of_searches or run.is_searched]
        return searches_of((run.method, run) for run in of_own)

    @property
    def notes(self):
        """What else to know: `unfinished`, and seeds that are there twice."""
        if self.of_searches:
            lacking = [str(run.path) for run in self.runs if not run.search]
            return [f"no finished search in {', '.join(lacking)}"] if lacking else []
        twice = [
            f"one seed several times, of which one counts: {', '.join(str(run.path) for run in runs)}"
            for methods in self.settings().values()
            for runs in methods.values()
            if len({run.metrics["seed"] for run in runs}) < len(runs)
        ]
        return self.unfinished + twice

    def settings(self):
        """{title of a table: {row: its runs}}, methods in `order`, others after by name.

        A row's runs differ in the seed alone: those of other bindings have rows of their own.
        """
        tables = {}
        for run in self.finished:
            tables.setdefault(run.setting, {}).setdefault(run.method, []).append(run)
        for methods in tables.values():
            for method in list(methods):
                if not methods[method][0].row:
                    methods |= _variants(method, methods.pop(method))
        place = {method: k for k, method in enumerate(self.order)}
        return {
            _title([run for runs in methods.values() for run in runs]): dict(
                sorted(
                    methods.items(),
                    key=lambda item: (place.get(item[1][0].method, len(place)), item[0]),
                )
            )
            for _, methods in sorted(tables.items(), key=lambda item: str(item[0]))
        }

    def rows(self, methods):
        """The rows of one table as texts, its heading first."""
        first = next(iter(methods.values()))[0]
        paper, reference = None, self.reference
        if reference and first.metrics["dataset"] == reference.dataset:
            told = {runs[0].method for runs in methods.values()}
            paper = reference.percent if told & set(reference.percent) else None
        rows = [HEADING + ((f"paper, {reference.networks}, %",) if paper else ())]
        for teacher in _teachers(methods):
            rows.append((*teacher, *([_percent(paper.get("Teacher"))] if paper else [])))
        for method, runs in methods.items():
            runs = list({run.metrics["seed"]: run for run in runs}.values())  # `notes` names others
            row = (
                method,
                str(len(runs)),
                spread([run.metrics["last"]["accuracy"] for run in runs if run.metrics["last"]]),
                spread([run.metrics["best"]["accuracy"] for run in runs if run.metrics["best"]]),
                f"{runs[0].metrics['parameters']:,}",
                f"{statistics.mean(run.seconds for run in runs):.0f}",
                _speed(runs),
            )
            rows.append((*row, *([_percent(paper.get(runs[0].method))] if paper else [])))
        return rows

    def text(self):
        """For the terminal."""
        settings = {} if self.of_searches else self.settings()
        parts = [f"{title}\n{table(self.rows(m))}" for title, m in settings.items()]
        parts += [self.searches.text()] if self.of_searches and self.searches else []
        return "\n\n".join([*parts, *(["\n".join(self.notes)] if self.notes else [])])

    def markdown(self):
        settings = {} if self.of_searches else self.settings()
        parts = [f"{title}\n\n{markdown_table(self.rows(m))}" for title, m in settings.items()]
        parts += [self.searches.markdown()] if self.searches else []
        notes = "\n".join(f"- {line}" for line in self.notes)
        return "\n\n".join([*parts, *([f"To note:\n\n{notes}"] if notes else []), ""])

    def csv(self):
        """One line a run, accuracies as fractions; unfinished ones with their state alone."""
        names = ["workdir", "state", "dataset", "train_examples", "teacher", "student", "method"]
        names += ["seed", "last_accuracy", "best_accuracy", "parameters", "steps", "seconds"]
        names += ["images_per_second"]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        for run in self.runs:
            line = {"workdir": str(run.path), "state": run.state}
            if run.state == FINISHED:
                of = run.metrics
                line |= {name: of[name] for name in names if name in of} | {
                    "method": run.method,
                    "last_accuracy": of["last"] and of["last"]["accuracy"],
                    "best_accuracy": of["best"] and of["best"]["accuracy"],
                    "seconds": round(run.seconds, 1),
                }
            writer.writerow(line)
        return stream.getvalue()

    def write(self, folder):
        """FOLDER/report.md, and as .png and .pdf: the accuracy as bars and over the steps, with
        report.csv; and alpha over the searches, where there are any."""
        from dfa_tf import figures  # matplotlib is slow to import

        write_text(folder / "report.md", self.markdown())
        if self.searches:
            self.searches.write(folder)
        settings = {} if self.of_searches else self.settings()
        if settings:
            write_text(folder / "report.csv", self.csv())
            curves = {
                title: {m: [run.metrics["curve"] for run in runs] for m, runs in methods.items()}
                for title, methods in settings.items()
            }
            figures.save(figures.accuracy_curves(curves), folder, "accuracy")
            figures.save(figures.accuracy_bars(_ends(settings)), folder, "accuracy_bars")


def _ends(settings):
    """{title: {method: [accuracy after the last epoch, of each seed]}}."""
    return {
        title: {
            m: [
                run.metrics["last"]["accuracy"]
                for run in {run.metrics["seed"]: run for run in runs}.values()
                if run.metrics["last"]
            ]
            for m, runs in methods.items()
        }
        for title, methods in settings.items()
    }


def spread(fractions):
    """Percent as "mean +- standard deviation" (n - 1); one value stands alone, none is empty."""
    percent = [100 * fraction for fraction in fractions]
    if not percent:
        return ""
    mean = f"{statistics.mean(percent):.2f}"
    return f"{mean} +- {statistics.stdev(percent):.2f}" if len(percent) > 1 else mean


def _percent(number):
    return f"{number:.2f}" if number else ""


def _variants(method, runs):
    """{row: runs}: one row, or one for each set of bindings, named by those that differ."""
    groups = {}
    for run in runs:
        groups.setdefault(tuple(sorted(run.bindings.items())), []).append(run)
    if len(groups) == 1:
        return {method: runs}
    shared = set.intersection(*(set(bindings) for bindings in groups))
    return {
        f"{method} ({', '.join(f'{n} = {v}' for n, v in bindings if (n, v) not in shared)})": some
        for bindings, some in groups.items()
    }


def _title(runs):
    of = runs[0].metrics
    teachers = sorted({run.metrics["teacher"] for run in runs if run.metrics["teacher"]})
    networks = " to ".join([" and ".join(teachers)] * bool(teachers) + [of["student"]])
    return f"{networks} on {of['dataset'] or 'its data'}: {of['train_examples']:,} training images, {of['steps']:,} steps"


def _teachers(methods):
    """A row for each teacher of these runs."""
    seen = {}
    for runs in methods.values():
        for run in runs:
            last = run.teacher.get("last")
            if last and run.metrics["teacher"]:
                key = run.metrics["teacher"], last["accuracy"], run.teacher["parameters"]
                seen[key] = (
                    f"Teacher {key[0]}",
                    "1",
                    spread([last["accuracy"]]),
                    spread([run.teacher["best"]["accuracy"]]),
                    f"{key[2]:,}",
                    "",
                    "",
                )
    return seen.values()


def _speed(runs):
    speeds = [run.metrics["images_per_second"] for run in runs]
    speeds = [speed for speed in speeds if speed]
    return f"{statistics.median(speeds):.0f}" if speeds else ""
