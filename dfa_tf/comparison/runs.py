"""The distillation in a workdir: finished, unfinished or missing."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from dfa_tf.alpha import Alpha
from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.process import Process
from dfa_tf.validation import Positive, Whole, annotations, check_value

State = Literal["finished", "unfinished", "missing"]
FINISHED, UNFINISHED, MISSING = get_args(State)

TITLES = {
    "plain": "Student",
    "dfa": "DFA",
    "kd": "KD",
    "fitnets": "FitNets",
    "at": "AT",
    "jacobian": "Jacobian",
    "ft": "FT",
    "ab": "AB",
    "sp": "SP",
    "margin": "Margin",
    "nst": "NST",
    "vid": "VID",
    "rkd": "RKD",
    "crd": "CRD",
    "dkd": "DKD",
    "reviewkd": "ReviewKD",
    "dist": "DIST",
    "logits": "Logits",
    "srrl": "SRRL",
    "feed": "FEED",
    "ensemble_kd": "Ensemble KD",
    "pathways": "Pathways",
}
STUDENT_METRICS = (  # of `StudentMetrics`, on the test images
    "last_accuracy",
    "best_accuracy",
    "top_5_accuracy",
    "macro_accuracy",
    "calibration_error",
    "agreement",
)
UNRECORDED = {"config.gin": "missing"}  # the bindings of a run whose config.gin was deleted
AGGREGATIONS = {"last": "Last", "average": "Average", "random": "Random"}


DERIVED = ("last_accuracy", "best_accuracy", "pretraining_seconds")  # from other entries
LAST = ("top_5_accuracy", "macro_accuracy", "calibration_error")  # from the entry "last"


@dataclasses.dataclass(frozen=True)
class StudentMetrics:
    """distill/metrics.json.

    Attributes:
        dataset: Name of the data set, possibly empty.
        train_examples: Number of training examples.
        teacher: Name of the teacher, or None.
        student: Name of the student.
        method: Names of the distillation methods, joined by "+"; "plain" for none.
        aggregation: Source of alpha, or None if no method uses alpha.
        seed: Seed of the run.
        steps: Training steps.
        last_accuracy: Test accuracy of the student, a fraction. None without a test split.
        best_accuracy: Highest test accuracy, a fraction. None without evaluations of the test split.
        curve: `[step, accuracy, loss]` of each evaluation of the test split.
        parameters: Trainable parameters of the student.
        seconds: Duration of the training.
        pretraining_seconds: Duration of each pretraining phase.
        images_per_second: Speed of the training, or None if it was not measured.
        weighting: Name of the weighting of the methods; "constant" for numbers.
        teachers: Fingerprints of the teachers.
        generation: Number of the student in a chain whose first network is the teacher.
        agreement: Share of the test images for which student and teachers agree, or None.
        epochs: Epochs of the training, or None.
        top_5_accuracy: Share of the test images whose class is among the five most likely after
            the last epoch, or None.
        macro_accuracy: Mean of the accuracy of each class after the last epoch, or None.
        calibration_error: Expected calibration error after the last epoch, or None.
        evaluated_on: The examples of the evaluations during the training, "test" or "validation".
            Validation examples chose the student among those of all evaluations; "test" is the
            student of the last epoch.
        teacher_views: Number of epochs after which the batches repeat, with cached logits; 0 if
            they do not repeat.
    """

    dataset: str
    train_examples: Whole
    teacher: str | None
    student: str
    method: str
    aggregation: str | None
    seed: int
    steps: Whole
    last_accuracy: float | None
    best_accuracy: float | None
    curve: list[list[float]]
    parameters: Whole
    seconds: float
    pretraining_seconds: tuple[float, ...]
    images_per_second: float | None
    weighting: str = "constant"
    teachers: tuple[str, ...] = ()
    generation: int = 2
    agreement: float | None = None
    epochs: float | None = None
    top_5_accuracy: float | None = None
    macro_accuracy: float | None = None
    calibration_error: float | None = None
    evaluated_on: Literal["test", "validation"] = "test"
    teacher_views: Whole = 0

    @property
    def teacher_passes(self) -> float | None:
        """How often a teacher sees each training image: the epochs of all teachers together."""
        if not self.teacher:
            return 0
        epochs = self.teacher_views or self.epochs
        return epochs * max(1, len(self.teachers)) if epochs else None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StudentMetrics":
        """Returns the metrics in the content of metrics.json.

        Raises:
            UserError: If an entry is missing or is not of its type.
        """
        required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        for name in ("last", "best", "pretraining", *required):
            if name not in content and name not in DERIVED:
                raise UserError(f"the entry {name!r} is missing")
        derived = {
            "last_accuracy": _accuracy(content["last"]),
            "best_accuracy": _accuracy(content["best"]) if measures_test(content) else None,
            "curve": content["curve"] if measures_test(content) else [],
            "pretraining_seconds": _seconds(content["pretraining"]),
        }
        given = {f.name: content[f.name] for f in dataclasses.fields(cls) if f.name in content}
        return _checked(cls, given | derived | _last_metrics(content["last"]))


@dataclasses.dataclass(frozen=True)
class TeacherMetrics:
    """teacher/metrics.json.

    Attributes:
        steps: Training steps; 0 for a teacher from elsewhere.
        last_accuracy: Test accuracy of the teacher, a fraction, or None.
        best_accuracy: Highest test accuracy, a fraction, or None.
        parameters: Trainable parameters.
        fingerprint: Digest of the evaluated weights, or an empty text.
        top_5_accuracy, macro_accuracy, calibration_error: As in `StudentMetrics`.
        evaluated_on: As in `StudentMetrics`.
    """

    steps: Whole
    last_accuracy: float | None
    best_accuracy: float | None
    parameters: Whole
    fingerprint: str
    top_5_accuracy: float | None = None
    macro_accuracy: float | None = None
    calibration_error: float | None = None
    evaluated_on: Literal["test", "validation"] = "test"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TeacherMetrics":
        """Returns the metrics in the content of metrics.json."""
        evaluated = content.get("evaluated")
        entries = {
            "steps": content.get("steps", 0),
            "last_accuracy": _accuracy(content.get("last")),
            "best_accuracy": _accuracy(content.get("best")) if measures_test(content) else None,
            "parameters": content.get("parameters", 0),
            "fingerprint": evaluated.get("network", "") if isinstance(evaluated, dict) else "",
            "evaluated_on": content.get("evaluated_on", "test"),
        }
        return _checked(cls, entries | _last_metrics(content.get("last")))


@dataclasses.dataclass(frozen=True)
class SearchMetrics:
    """search/metrics.json.

    Attributes:
        seconds: Duration of the search.
        steps: Iterations over all groups, or None.
        epochs: Epochs over all groups, or None.
    """

    seconds: float = 0
    steps: Whole | None = None
    epochs: Positive | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SearchMetrics":
        """Returns the metrics in the content of metrics.json."""
        names = [field.name for field in dataclasses.fields(cls)]
        return _checked(cls, {name: content[name] for name in names if name in content})


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
        return _load_process(self.path / "distill" / "process.json")

    @property
    def searched_process(self) -> Process | None:
        """The process that this workdir's search found, if the run followed it."""
        if self.bindings.get("process.file", "''") != "''":
            return None
        return _load_process(self.path / "process" / "process.json")


def shared_bindings(runs: Iterable[Run]) -> set[tuple[str, str]]:
    """Returns the bindings that all runs have, apart from runs without a recorded config."""
    recorded = [set(run.bindings.items()) for run in runs if run.bindings != UNRECORDED]
    return set.intersection(*recorded) if recorded else set()


def run_title(student: StudentMetrics) -> str:
    """Returns the title of a run: its method, and whatever else is special.

    For example "Adaptive (AT + KD)", "FEED of 5", "KD, generation 3", "KD, best on validation" or
    "KD, 4 views".
    """
    title = method_title(student.method, student.aggregation)
    if student.weighting != "constant":
        title = f"{student.weighting.capitalize()} ({title})"
    if len(student.teachers) > 1:
        title += f" of {len(student.teachers)}"
    if student.generation > 2:
        title += f", generation {student.generation}"
    if student.evaluated_on == "validation":
        title += ", best on validation"
    if student.teacher_views:
        title += f", {student.teacher_views} view" + "s" * (student.teacher_views > 1)
    return title


def measures_test(metrics: Mapping[str, Any]) -> bool:
    """Returns whether the evaluations during a training, in its metrics.json, are of test examples.

    Otherwise they are of validation examples, and must not be shown as test accuracy.
    """
    return metrics.get("evaluated_on", "test") == "test"


def method_title(method: str, aggregation: str | None) -> str:
    """Returns the title of a method in tables.

    Args:
        method: Names of the methods, joined by "+".
        aggregation: Source of DFA's alpha. Without a search it is part of the title.

    Returns:
        A title such as "KD", "DFA + KD" or "Average".
    """
    titles = []
    for name in method.split("+"):
        title = TITLES.get(name, name)
        if name == "dfa" and aggregation != "search":
            title = AGGREGATIONS.get(aggregation, f"DFA of {aggregation}")
        titles.append(title)
    return " + ".join(titles)


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
    alpha, bindings = _alpha(stage), _bindings(stage, student, run.teacher)
    is_file = alpha and alpha.steps and (student.aggregation or "").endswith(".json")
    if is_file and alpha.seed == student.seed and "distill.aggregation" in bindings:
        # Each seed uses the search of another workdir, whose path would separate the seeds.
        student = dataclasses.replace(student, aggregation="another search")
        bindings["distill.aggregation"] = _origin(alpha)
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


def _checked(cls, entries):
    """Returns an object of the dataclass.

    Raises:
        UserError: If an entry does not have the type of its field.
    """
    types = annotations(cls)
    for name, value in entries.items():
        check_value(name, value, types[name])
    return cls(**{name: _tuple(value, types[name]) for name, value in entries.items()})


def _tuple(value, annotation):
    return tuple(value) if get_origin(annotation) is tuple else value


def _seconds(phases):
    if not isinstance(phases, list):
        return None
    return [phase.get("seconds", 0) if isinstance(phase, dict) else None for phase in phases]


def _alpha(stage):
    try:
        return Alpha.load(stage / "alpha.json")
    except UserError:  # the method does not use alpha
        return None


def _origin(found):
    """Returns where an alpha or a process comes from, as text."""
    return f"{found.teacher} to {found.student} on {found.dataset}, {found.steps} steps"


def _load_process(path):
    try:
        return Process.load(path) if path else None
    except UserError:
        return None


def _accuracy(evaluation):
    return evaluation.get("accuracy", "") if isinstance(evaluation, dict) else evaluation


def _last_metrics(evaluation):
    """Returns the further metrics of an evaluation. Those of earlier versions lack them."""
    entries = evaluation if isinstance(evaluation, dict) else {}
    return {name: entries.get(name) for name in LAST}


def _bindings(stage, student, teacher):
    """Returns the settings that shaped a student, with those of the stages that it needed."""
    if not (stage / "config.gin").exists():
        return dict(UNRECORDED)
    bindings = _settings(stage)
    file = bindings.get("process.file", "").strip("'\"")
    process = _load_process(file)
    if process and process.seed == student.seed:  # likewise
        bindings["process.file"] = f"{_origin(process)}, {process.normalization or 'learnt'}"
    workdir = stage.parent
    if student.teacher:
        bindings = _settings(workdir / "teacher") | bindings
    if student.aggregation == "search":
        bindings = _settings(workdir / "search") | bindings
    if student.weighting == "process" and not file:
        bindings = _settings(workdir / "process") | bindings
    if student.teacher:
        bindings["teacher"] = student.teacher
        if not (teacher and teacher.steps):
            # A teacher that this run did not train is identified by its weights. One that it
            # trained depends on the seed, so its weights would separate the seeds of a row.
            bindings["teacher"] += f" {teacher.fingerprint if teacher else ''}"
    return bindings


def _settings(stage):
    """Returns the bindings in a stage's config.gin, without paths; empty if it is missing."""
    try:
        lines = (stage / "config.gin").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#")]
    return {name: text for name, text in pairs if not name.endswith(".path")}


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
