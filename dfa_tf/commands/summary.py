"""The tables that commands end in."""

from dfa_tf.comparison.runs import titled
from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.tables import table


def summary(workdir, exported=None):
    """What a workdir holds, beside a plainly trained student of its neighbours, as a table.

    exported: what export.json says, if the student has been exported. Raises UserError where the
    student's metrics.json is gone.
    """
    rows = [("", "accuracy", "best epoch", "parameters", "file")]
    teacher = read_json(workdir / "teacher/metrics.json")
    student = read_json(workdir / "distill/metrics.json")
    if not student:
        raise UserError(
            f"{workdir}/distill/metrics.json is missing or damaged: distill --fresh makes it anew"
        )
    is_plain = student["method"] == "plain"
    if teacher and not is_plain:
        rows.append(_row(f"teacher {student['teacher']}", teacher, workdir / "teacher/model.keras"))
    plain = None if is_plain else _plain_neighbour(workdir, student)
    if plain:
        rows.append(_row(f"student {student['student']}, plain", *plain))
    how = "plain" if is_plain else titled(student["method"], student["aggregation"])
    path = workdir / "distill/student.keras"
    rows.append(_row(f"student {student['student']}, {how}", student, path))
    for file in exported["files"] if exported else ():
        size = f"{file['bytes'] / 1e6:.2f} MB"
        name = f"  {file['path'].removesuffix('.tflite').removeprefix('student_')} TF Lite"
        rows.append(
            (name, f"{file['accuracy']:.4f}", "", size, str(workdir / "export" / file["path"]))
        )
    return table(rows)


def export_table(report, folder):
    """What an export holds, as a table."""
    rows = [("", "size", "accuracy", "agreement", "largest error", "1 thread, median", "file")]
    for file in [report["saved_model"], *report["files"]]:
        latency = file.get("latency_ms")
        rows.append(
            (
                file["path"].removesuffix(".tflite"),
                f"{file['bytes'] / 1e6:.2f} MB",
                f"{file['accuracy']:.4f}",
                f"{file['agreement']:.2%}",
                f"{file['max_abs_error']:.1e}",
                f"{latency['threads_1']['median']:.3f} ms" if latency else "",
                str(folder / file["path"]),
            )
        )
    return table(rows)


def _row(name, metrics, path):
    last, best = metrics.get("last"), metrics.get("best")
    return (
        name,
        f"{last['accuracy']:.4f}" if last else "",
        f"{best['accuracy']:.4f}" if best else "",
        f"{metrics['parameters']:,}",
        str(path),
    )


def _plain_neighbour(workdir, student):
    """(metrics, path) of a run beside this one that trained the same student plainly."""
    for path in sorted(workdir.resolve().parent.glob("*/distill/metrics.json")):
        metrics = read_json(path)
        alike = ("student", "dataset", "steps", "seed")
        is_plain = metrics and metrics.get("method") == "plain"
        if is_plain and all(metrics.get(key) == student.get(key) for key in alike):
            return metrics, path.parent / "student.keras"
    return None
