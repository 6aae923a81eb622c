"""One process of a cluster, which runs a search and a distillation on made data.

python -m tests.training.worker WORKDIR [PRECISION]
python -m tests.training.worker WORKDIR views         # KD with cached logits
"""

import pathlib
import sys

from dfa_tf.errors import ReportedError
from dfa_tf.methods.kd import KD
from dfa_tf.training.devices import build_strategy
from dfa_tf.training.runtime import Runtime
from tests.stages.conftest import Run


def run_stages(workdir, strategy, precision="float32"):
    """Returns (Alpha, student) of the two stages."""
    runtime = Runtime(strategy, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.2, quiet=True)
    run = Run(workdir, runtime)
    alpha = run.search(epochs=4, precision=precision)
    return alpha, run.distill(alpha=alpha, epochs=4, precision=precision)


def run_views(workdir, strategy):
    """Distils with cached logits: 40 steps, of which 10 differ."""
    runtime = Runtime(strategy, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.2, quiet=True)
    return Run(workdir, runtime).distill(methods=[KD()], epochs=4, teacher_views=1)


if __name__ == "__main__":
    arguments = pathlib.Path(sys.argv[1]), build_strategy("multi_worker")
    try:
        if sys.argv[2:] == ["views"]:
            run_views(*arguments)
        else:
            run_stages(*arguments, *sys.argv[2:])
    except ReportedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
