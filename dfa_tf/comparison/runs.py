"""The distillation in a workdir: finished, unfinished or missing."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from dfa_tf.alpha import Alpha
from dfa_tf.comparison.bindings import (
    UNRECORDED,
    load_or_none,
    process_file,
    run_bindings,
    uses_other_search,
)
from dfa_tf.comparison.metrics import SearchMetrics, StudentMetrics, TeacherMetrics
from dfa_tf.comparison.titles import run_title
from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.process import Process

State = Literal["finished", "unfinished", "missing"]
FINISHED, UNFINISHED, MISSING = get_args(State)


@dataclasses.dataclass(frozen=True)
class Run:
    """The distillation in one workdir.

    Attributes:
        path: The workdir.
        state: FINISHED, UNFINISHED or MISSING.
        student: Metrics of the distillation; None unless it is finished.
        teacher: Metrics of the teacher; None if it is missing.
        search: Metrics of the search; None if it is missing.
        bindings: Settings that distinguish it from other runs of the same method, without seed
            and paths; empty unless it is finished.
        last_weight: Weight of the last feature in the alpha that it used (`Alpha.last_weight`);
            None if it used no alpha.
        note: Why it is not finished.
        row_title: Title of the experiment's row it belongs to, if any.
    """

    path: pathlib.Path
    state: State
    student: StudentMetrics | None = None
    teacher: TeacherMetrics | None = None
    search: SearchMetrics | None = None
    bindings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    last_weight: float | None = None
    note: str = ""
    row_title: str = ""

    @property
    def method(self) -> str:
        """Title of its row: `row_title`, or by default the title of its method."""
        return self.row_title or run_title(self.student)

    @property
    def is_searched(self) -> bool:
        """Whether it uses the alpha of its own search."""
        return self.student.aggregation == "search"

    @property
    def seconds(self) -> float:
        """Duration of the training, with the search and the pretraining that it needs."""
        search = [self.search.seconds] if self.is_searched and self.search else []
        return sum([self.student.seconds, *search, *self.student.pretraining_seconds])

    @property
    def setting(self) -> tuple:
        """What the runs of one table have in common.

        The rows of an experiment differ as the experiment intends, also in length.
        """
        student = self.student
        steps = None if self.row_title else student.steps
        return student.dataset, student.train_examples, student.student, steps

    @property
    def process(self) -> Process | None:
        """The weights of the paths over the training, if they were not constant."""
        return load_or_none(Process, self.path / "distill/process.json")

    @property
    def searched_process(self) -> Process | None:
        """The process that this workdir's search found, if the run followed it."""
        if process_file(self.bindings):
            return None
        return load_or_none(Process, self.path / "process/process.json")


def find_runs(paths: Iterable[str | os.PathLike]) -> list[Run]:
    """Returns the run of each path that is a workdir, and of each workdir within other paths."""
    workdirs = [workdir for path in paths for workdir in _workdirs(pathlib.Path(path))]
    return [read_run(workdir) for workdir in {path.resolve(): path for path in workdirs}.values()]


def read_run(workdir: pathlib.Path) -> Run:
    """Returns the run of a workdir, which may be missing.

    Metrics without a student and without checkpoints are those of a finished run whose other files
    were not kept (see `kept.py`).
    """
    stage = workdir / "distill"
    content = read_json(stage / "metrics.json")
    run = Run(
        workdir,
        UNFINISHED,
        teacher=_metrics(TeacherMetrics, workdir / "teacher"),
        search=_metrics(SearchMetrics, workdir / "search"),
    )
    if not stage.is_dir():
        note = "contains no distillation" if workdir.is_dir() else "no such folder"
        return dataclasses.replace(run, state=MISSING, note=note)
    if not content and (stage / "metrics.json").exists():
        return dataclasses.replace(run, note="metrics.json is damaged")
    is_kept = not (stage / "checkpoints").exists()
    if not content or not (is_kept or (stage / "student.keras").exists()):
        return dataclasses.replace(run, note=_progress(stage))
    try:
        student = StudentMetrics.from_json(content)
    except UserError as error:
        return dataclasses.replace(run, note=f"metrics.json is damaged: {error}")
    bindings = run_bindings(workdir, student, run.teacher)
    if uses_other_search(workdir, student) and bindings != UNRECORDED:
        student = dataclasses.replace(student, aggregation="another search")
    alpha = load_or_none(Alpha, stage / "alpha.json")
    return dataclasses.replace(
        run,
        state=FINISHED,
        student=student,
        bindings=bindings,
        last_weight=alpha.last_weight if alpha else None,
    )


def _metrics(kind, stage):
    """Returns the metrics of a stage, or None if they are missing or damaged."""
    content = read_json(stage / "metrics.json")
    try:
        return kind.from_json(content) if content else None
    except UserError:
        return None


def _workdirs(path):
    if (path / "distill").is_dir() or not path.is_dir():
        return [path]
    stages = [
        stage for name in ("teacher", "search", "distill") for stage in path.glob(f"**/{name}")
    ]
    # A reproduction's workdir named "teacher" is not a stage: it contains one.
    return sorted({s.parent for s in stages if (s / "config.gin").exists()}) or [path]


def _progress(stage):
    """Returns where an unfinished distillation stopped."""
    phases = sorted(stage.glob("pretraining_*"), key=lambda path: path.stat().st_mtime)
    for folder in (stage, *reversed(phases)):
        steps = [
            int(match[1])
            for file in (folder / "checkpoints").glob("step-*.index")
            if (match := re.search(r"step-(\d+)\.index$", file.name))
        ]
        if steps:
            name = folder.name.removeprefix("pretraining_")
            phase = "" if folder == stage else f" of the pretraining for {name}"
            return f"saved at step {max(steps)}{phase}"
    return "no checkpoint"
