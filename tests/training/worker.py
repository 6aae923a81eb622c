"""One process of a cluster: a search and a distillation of made data, as all workers run them.

python -m tests.training.worker WORKDIR
"""

import pathlib
import sys

from dfa_tf.training.devices import strategy_named
from dfa_tf.training.loop import Runtime
from tests.stages.conftest import Run


def run_stages(workdir, strategy):
    """(Alpha, student) of the two stages."""
    runtime = Runtime(strategy, log_every=4, evaluate_every=1e9, checkpoint_seconds=0.2, quiet=True)
    run = Run(workdir, runtime)
    alpha = run.search(epochs=4)
    return alpha, run.distill(alpha=alpha, aggregation="search", epochs=4)


if __name__ == "__main__":
    try:
        run_stages(pathlib.Path(sys.argv[1]), strategy_named("multi_worker"))
    except Exception as error:
        if not getattr(error, "told", False):
            raise
        print(error, file=sys.stderr)
        sys.exit(1)
