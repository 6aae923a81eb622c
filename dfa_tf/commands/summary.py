"""The tables that commands end in."""

import json

from dfa_tf.errors import UserError


def summary(workdir, exported=None):
    """What a workdir holds, beside a plainly trained student of its neighbours, as a table.

    exported: what export.json says, if the student has been exported. Raises UserError where the
    student's metrics.json is gone.
    """
    rows = [("", "accuracy", "best epoch", "parameters", "file")]
    teacher = _read(workdir / "teacher/metrics.json")
    student = _read(workdir / "distill/metrics.json")
    if student is None:
        raise UserError(
            f"{workdir}/distill/metrics.json is missing or damaged: distill --fresh makes it anew"
        )
    if teacher and student["aggregation"] != "none":
        rows.append(_row(f"teacher {student['teacher']}", teacher, workdir / "teacher/model.keras"))
    plain = None if student["aggregation"] == "none" else _plain_neighbour(workdir, student)
    if plain:
        rows.append(_row(f"student {student['student']}, plain", *plain))
    how = {"none": "plain", "search": "DFA"}.get(student["aggregation"], student["aggregation"])
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


def table(rows):
    """Rows of texts as aligned columns, the first row a heading."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


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
        metrics = _read(path)
        alike = ("student", "dataset", "steps", "seed")
        is_plain = metrics and metrics.get("aggregation") == "none"
        if is_plain and all(metrics.get(key) == student.get(key) for key in alike):
            return metrics, path.parent / "student.keras"
    return None


def _read(path):
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return metrics if isinstance(metrics, dict) else None
