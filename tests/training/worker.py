"""One process of a cluster, which runs a search and a distillation on made data.

python -m tests.training.worker WORKDIR [PRECISION]
"""

import pathlib
import sys

from dfa_tf.errors import ReportedError
from dfa_tf.training.devices import build_strategy
from dfa_tf.training.runtime import Runtime
from tests.stages.conftest import Run


def run_stages(workdir, strategy, precision="float32"):
    """Returns (Alpha, student) of the two stages."""
    runtime = Runtime(strategy, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.2, quiet=True)
    run = Run(workdir, runtime)
    alpha = run.search(epochs=4, precision=precision)
    return alpha, run.distill(alpha=alpha, epochs=4, precision=precision)


if __name__ == "__main__":
    try:
        run_stages(pathlib.Path(sys.argv[1]), build_strategy("multi_worker"), *sys.argv[2:])
    except ReportedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
