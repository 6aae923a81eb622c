"""The metrics.json of a workdir's stages."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_origin

from dfa_tf.errors import UserError
from dfa_tf.validation import Positive, Whole, annotations, check_value

STUDENT_METRICS = (  # of `StudentMetrics`, on the test images
    "last_accuracy",
    "best_accuracy",
    "top_5_accuracy",
    "macro_accuracy",
    "calibration_error",
    "agreement",
)
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


def measures_test(metrics: Mapping[str, Any]) -> bool:
    """Returns whether the evaluations during a training, in its metrics.json, are of test examples.

    Otherwise they are of validation examples, and must not be shown as test accuracy.
    """
    return metrics.get("evaluated_on", "test") == "test"


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


def _accuracy(evaluation):
    return evaluation.get("accuracy", "") if isinstance(evaluation, dict) else evaluation


def _last_metrics(evaluation):
    """Returns the further metrics of an evaluation. Those of earlier versions lack them."""
    entries = evaluation if isinstance(evaluation, dict) else {}
    return {name: entries.get(name) for name in LAST}
