"""A small run of one stage in a process of its own, from inputs that are prepared once.

python -m tests.robustness.stage STAGE WORKDIR
"""

import pathlib
import sys

from dfa_tf.alpha import fixed
from dfa_tf.errors import ReportedError, UserError
from dfa_tf.methods.kd import KD
from dfa_tf.models import load
from dfa_tf.stages.export import ExportOptions, export
from dfa_tf.training import remembered_logits
from dfa_tf.training.runtime import Runtime
from tests.stages.conftest import Run

STAGES = ("teacher", "search", "distill", "views", "export")


def run_stage(stage, workdir):
    """Runs a stage, which finds its teacher and student in WORKDIR's parent."""
    runtime = Runtime(log_every=4, evaluate_every=0.5, checkpoint_seconds=0.0, quiet=True)
    run = Run(workdir, runtime)
    if stage == "teacher":
        return run.train_teacher()
    if stage == "search":
        return run.search()
    if stage == "distill":
        return run.distill(alpha=fixed("average", run.teacher))
    if stage == "views":  # a distillation with remembered logits
        remembered_logits.SECONDS_PER_RECORD = 0.0
        return run.distill(methods=[KD()], epochs=2, teacher_views=1)
    student = load(workdir.parent / "student.keras")
    options = ExportOptions(kinds=("float32", "int8"), max_loss=1.0, fine_tune_above=1.0)
    return export(
        network=student, test=run.test, train=run.everything, workdir=workdir, options=options
    )


def contents(stage, workdir):
    """Returns what must not depend on interruptions, as comparable values."""
    if stage == "search":
        return (workdir / "search/alpha.json").read_bytes()
    if stage == "export":
        return [(workdir / f"export/student_{k}.tflite").read_bytes() for k in ("float32", "int8")]
    path = "teacher/model.keras" if stage == "teacher" else "distill/student.keras"
    return [weight.tobytes() for weight in load(workdir / path).get_weights()]


if __name__ == "__main__":
    try:
        run_stage(sys.argv[1], pathlib.Path(sys.argv[2]))
    except ReportedError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
