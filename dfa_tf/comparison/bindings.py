"""The settings that shaped a student. They tell the runs of one method apart."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from dfa_tf.alpha import Alpha
from dfa_tf.comparison.metrics import StudentMetrics, TeacherMetrics
from dfa_tf.errors import UserError
from dfa_tf.process import Process

UNRECORDED = {"config.gin": "missing"}  # the bindings of a run whose config.gin was deleted
AGGREGATION, PROCESS_FILE = "distill.aggregation", "process.file"


def run_bindings(
    workdir: pathlib.Path, student: StudentMetrics, teacher: TeacherMetrics | None
) -> dict[str, str]:
    """Returns the bindings of the distillation in a workdir, and of the stages that it needed.

    Paths are omitted or replaced by what the files contain, because each seed may have files of its
    own. A file that is not of the run's seed keeps its path: runs may differ by it.

    Args:
        workdir: The workdir.
        student: Metrics of the distillation.
        teacher: Metrics of the teacher; None if it is missing.

    Returns:
        `{name: text}`.
    """
    if not (workdir / "distill/config.gin").exists():
        return dict(UNRECORDED)
    bindings = _recorded(workdir / "distill")
    needed = ["teacher"] if student.teacher else []
    needed += ["search"] if student.aggregation == "search" else []
    needed += ["process"] if student.weighting == "process" and not process_file(bindings) else []
    for stage in needed:
        bindings = _recorded(workdir / stage) | bindings
    if uses_other_search(workdir, student):
        bindings[AGGREGATION] = _origin(load_or_none(Alpha, workdir / "distill/alpha.json"))
    process = load_or_none(Process, process_file(bindings))
    if process and process.seed == student.seed:
        bindings[PROCESS_FILE] = f"{_origin(process)}, {process.normalization or 'learnt'}"
    if student.teacher:
        bindings["teacher"] = student.teacher
        if not (teacher and teacher.steps):
            # A teacher that this run did not train is identified by its weights. One that it
            # trained depends on the seed, so its weights would separate the seeds of a row.
            bindings["teacher"] += f" {teacher.fingerprint if teacher else ''}"
    return bindings


def uses_other_search(workdir: pathlib.Path, student: StudentMetrics) -> bool:
    """Returns whether a run used the alpha of a search in another workdir, with the same seed."""
    alpha = load_or_none(Alpha, workdir / "distill/alpha.json")
    is_file = (student.aggregation or "").endswith(".json")
    return bool(is_file and alpha and alpha.steps and alpha.seed == student.seed)


def process_file(bindings: Mapping[str, str]) -> str:
    """Returns the path that `process.file` is bound to, or an empty text."""
    return bindings.get(PROCESS_FILE, "").strip("'\"")


def shared_bindings(runs: Iterable[Mapping[str, str]]) -> set[tuple[str, str]]:
    """Returns the bindings that all runs have, apart from runs without a recorded config."""
    recorded = [set(bindings.items()) for bindings in runs if bindings != UNRECORDED]
    return set.intersection(*recorded) if recorded else set()


def load_or_none(kind: type, path: Any) -> Any:
    """Returns the `Alpha` or `Process` in a file, or None if it is missing or damaged."""
    try:
        return kind.load(path) if path else None  # type: ignore[attr-defined]
    except UserError:
        return None


def _recorded(stage):
    """Returns the bindings in a stage's config.gin, without paths; empty if it is missing."""
    try:
        lines = (stage / "config.gin").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#")]
    return {name: text for name, text in pairs if not name.endswith(".path")}


def _origin(found):
    """Returns where an alpha or a process comes from, as text."""
    return f"{found.teacher} to {found.student} on {found.dataset}, {found.steps} steps"
