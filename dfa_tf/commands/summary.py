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
        size = _size(file["bytes"])
        name = f"  {file['path'].removesuffix('.tflite').removeprefix('student_')} TF Lite"
        rows.append(
            (name, f"{file['accuracy']:.4f}", "", size, str(workdir / "export" / file["path"]))
        )
    return table(rows)


def export_table(report, workdir):
    """What an export holds, as a table, the teacher's row first."""
    folder = workdir / "export"
    heading = (
        "",
        "size",
        "accuracy",
        "agreement",
        "largest error",
        "1 thread, ms",
        "2 threads, ms",
    )
    rows = [(*heading, "outside XNNPACK", "file")]
    teacher = read_json(workdir / "teacher/metrics.json")
    path = workdir / "teacher/model.keras"
    if teacher.get("last") and path.exists():
        accuracy = f"{teacher['last']['accuracy']:.4f}"
        rows.append(("teacher", _size(path.stat().st_size), accuracy, *[""] * 5, str(path)))
    path = workdir / "distill/student.keras"
    if path.exists():
        accuracy = f"{report['keras']['accuracy']:.4f}"
        rows.append(("student", _size(path.stat().st_size), accuracy, *[""] * 5, str(path)))
    for file in [report["saved_model"], *report["files"]]:
        times = file.get("latency_ms")
        outside = file.get("outside_xnnpack")
        rows.append(
            (
                file["path"].removesuffix(".tflite"),
                _size(file["bytes"]),
                f"{file['accuracy']:.4f}",
                f"{file['agreement']:.2%}",
                f"{file['max_abs_error']:.1e}",
                *(
                    f"{times[f'threads_{n}']['median']:.3f}, p90 {times[f'threads_{n}']['p90']:.3f}"
                    if times
                    else ""
                    for n in (1, 2)
                ),
                "" if outside is None else ", ".join(outside) or "none",
                str(folder / file["path"]),
            )
        )
    return table(rows)


def _size(count):
    return f"{count / 1e6:.2f} MB"


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
