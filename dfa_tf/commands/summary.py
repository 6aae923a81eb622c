"""The tables that commands print at the end."""

import pathlib
from collections.abc import Mapping

from dfa_tf.comparison.metrics import StudentMetrics, measures_test
from dfa_tf.comparison.titles import run_title
from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.stages.folder import numbered
from dfa_tf.tables import table


def summary(workdir: pathlib.Path, export_report: Mapping | None = None) -> str:
    """Returns the results of a workdir as a table.

    If a folder next to the workdir holds the same student with plain training, its row is added.

    Args:
        workdir: A workdir with a finished distillation.
        export_report: The content of export.json; None if the student was not exported.

    Raises:
        UserError: If the student's metrics.json is missing or damaged.
    """
    rows = [("", "accuracy", "best epoch", "parameters", "file")]
    teacher = read_json(workdir / "teacher/metrics.json")
    student = read_json(workdir / "distill/metrics.json")
    if not student:
        raise UserError(
            f"{workdir}/distill/metrics.json: file is missing or damaged; recreate it with "
            "distill --fresh"
        )
    is_plain = student["method"] == "plain"
    if teacher and not is_plain:
        before = networks_before(workdir, student)
        for name, metrics, path in before:
            title = name if len(before) > 1 else f"teacher {student['teacher']}"
            rows.append(_metrics_row(title, metrics, path))
    baseline = None if is_plain else _plain_baseline(workdir, student)
    if baseline:
        rows.append(_metrics_row(f"student {student['student']}, plain", *baseline))
    method = "plain" if is_plain else run_title(StudentMetrics.from_json(student))
    path = workdir / "distill/student.keras"
    rows.append(_metrics_row(f"student {student['student']}, {method}", student, path))
    for file in export_report["files"] if export_report else ():
        kind = file["path"].removesuffix(".tflite").removeprefix("student_")
        rows.append(
            (
                f"  {kind} TF Lite",
                f"{file['accuracy']:.4f}",
                "",
                _megabytes(file["bytes"]),
                str(workdir / "export" / file["path"]),
            )
        )
    return table(rows)


def generations_before(student: Mapping) -> range:
    """Returns the numbers of the generations between the teacher and a student.

    Args:
        student: The content of the student's metrics.json.
    """
    return range(2, student.get("generation", 2))


def networks_before(
    workdir: pathlib.Path, student: Mapping
) -> list[tuple[str, dict, pathlib.Path]]:
    """Returns the teachers of a student, and the generations between them and the student.

    Args:
        workdir: The workdir.
        student: The content of the student's metrics.json.

    Returns:
        (name, content of metrics.json, path of the network) of each.
    """
    chain = generations_before(student)
    count = 1 if chain else max(1, len(student.get("teachers", ())))
    places = [
        (numbered("teacher", k), workdir / numbered("teacher", k), "model.keras")
        for k in range(1, count + 1)
    ]
    places += [
        (f"generation {k}", workdir / f"generation_{k}" / "distill", "student.keras") for k in chain
    ]
    found = [
        (name, read_json(folder / "metrics.json"), folder / file) for name, folder, file in places
    ]
    return [(name, metrics, path) for name, metrics, path in found if metrics]


def training_curves(workdir: pathlib.Path) -> dict[str, dict]:
    """Returns the test accuracy of all teachers, generations and the student over their steps.

    Returns:
        What `figures.accuracy_curves` plots; empty for a single teacher and its student, or without
        evaluations.
    """
    student = read_json(workdir / "distill/metrics.json")
    before = networks_before(workdir, student)
    if len(before) < 2:
        return {}
    title = run_title(StudentMetrics.from_json(student))
    networks = [(name, metrics) for name, metrics, _ in before] + [(f"student, {title}", student)]
    curves = {
        name: [metrics["curve"]]
        for name, metrics in networks
        if metrics.get("curve") and measures_test(metrics)
    }
    return {f"{student['student']}: {title}": curves} if curves else {}


def export_table(report: Mapping, workdir: pathlib.Path) -> str:
    """Returns the exported files as a table, after the teacher and the student.

    Args:
        report: The content of export.json.
        workdir: The workdir it belongs to.
    """
    rows = [
        (
            "",
            "size",
            "accuracy",
            "agreement",
            "largest error",
            "1 thread, ms",
            "2 threads, ms",
            "outside XNNPACK",
            "file",
        )
    ]
    teacher = read_json(workdir / "teacher/metrics.json")
    path = workdir / "teacher/model.keras"
    if teacher.get("last") and path.exists():
        rows.append(_keras_row("teacher", teacher["last"]["accuracy"], path))
    path = workdir / "distill/student.keras"
    if path.exists():
        rows.append(_keras_row("student", report["keras"]["accuracy"], path))
    for file in [report["saved_model"], *report["files"]]:
        rows.append(_file_row(file, workdir / "export" / file["path"]))
    return table(rows)


def _metrics_row(name, metrics, path):
    last, best = metrics.get("last"), metrics.get("best") if measures_test(metrics) else None
    return (
        name,
        f"{last['accuracy']:.4f}" if last else "",
        f"{best['accuracy']:.4f}" if best else "",
        f"{metrics['parameters']:,}",
        str(path),
    )


def _keras_row(name, accuracy, path):
    return (name, _megabytes(path.stat().st_size), f"{accuracy:.4f}", *[""] * 5, str(path))


def _file_row(file, path):
    latency = file.get("latency_ms")
    outside_xnnpack = file.get("outside_xnnpack")
    return (
        file["path"].removesuffix(".tflite"),
        _megabytes(file["bytes"]),
        f"{file['accuracy']:.4f}",
        f"{file['agreement']:.2%}",
        f"{file['max_abs_error']:.1e}",
        *(_milliseconds(latency[f"threads_{n}"]) if latency else "" for n in (1, 2)),
        "" if outside_xnnpack is None else ", ".join(outside_xnnpack) or "none",
        str(path),
    )


def _megabytes(count):
    return f"{count / 1e6:.2f} MB"


def _milliseconds(latency):
    return f"{latency['median']:.3f}, p90 {latency['p90']:.3f}"


def _plain_baseline(workdir, student):
    """Returns (metrics, path) of a run next to this one that trained the same student plainly."""
    for path in sorted(workdir.resolve().parent.glob("*/distill/metrics.json")):
        metrics = read_json(path)
        is_plain = metrics and metrics.get("method") == "plain"
        same = ("student", "dataset", "steps", "seed")
        if is_plain and all(metrics.get(key) == student.get(key) for key in same):
            return metrics, path.parent / "student.keras"
    return None
