"""A small run of one stage in a process of its own, from inputs that are prepared once.

python -m tests.robustness.stage STAGE WORKDIR
"""

import pathlib
import sys

from dfa_tf.alpha import fixed
from dfa_tf.errors import ReportedError
from dfa_tf.methods.at import AT
from dfa_tf.methods.kd import KD
from dfa_tf.models import load
from dfa_tf.process import Process
from dfa_tf.stages.export import ExportOptions, export
from dfa_tf.stages.search_process import search_process
from dfa_tf.training import logit_cache
from dfa_tf.training.runtime import Runtime
from dfa_tf.weightings import Adaptive, ProcessWeighting
from tests.conftest import small_network
from tests.stages.conftest import Run

STAGES = ("teacher", "search", "process", "distill", "adaptive", "schedule", "views", "export")
FURTHER = {  # files beside the student
    "adaptive": ["distill/process.json"],
    "schedule": ["distill/process.json"],
    "views": ["teacher_views/logits.npy"],
}
PATHS = {"methods": [AT(form="code", beta=1.0), KD(alpha=1.0)], "epochs": 2}


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
    if stage == "process":
        return search_process(
            teacher=run.teacher,
            student=small_network(depth=10, seed=2),
            train=run.train,
            validation=run.validation,
            workdir=workdir,
            methods=PATHS["methods"],
            training=run.training,
            runtime=runtime,
        )
    if stage == "adaptive":
        return run.distill(**PATHS, weights=Adaptive())
    if stage == "schedule":  # of two parts: KD is left out of the second epoch
        weights = [[1.0, 1.0]] * 2 + [[1.0, 0.0]] * 2
        process = Process(["at", "kd"], [0, 9, 10, 19], weights, steps=20)
        return run.distill(**PATHS, weights=ProcessWeighting(process))
    if stage == "views":  # a distillation with cached logits
        logit_cache.SECONDS_PER_RECORD = 0.0
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
    if stage == "process":
        return (workdir / "process/process.json").read_bytes()
    if stage == "export":
        return [(workdir / f"export/student_{k}.tflite").read_bytes() for k in ("float32", "int8")]
    path = "teacher/model.keras" if stage == "teacher" else "distill/student.keras"
    files = FURTHER.get(stage, [])
    weights = [weight.tobytes() for weight in load(workdir / path).get_weights()]
    return weights, [(workdir / file).read_bytes() for file in files]


if __name__ == "__main__":
    try:
        run_stage(sys.argv[1], pathlib.Path(sys.argv[2]))
    except ReportedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
