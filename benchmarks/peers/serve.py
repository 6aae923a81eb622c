"""The protocol between compare.py and a peer, over standard input and output.

A request is one line, "STEP GROUP COUNT", and the response is one line: the seconds that COUNT
iterations took. STEP is "search" (beta step and w step in turn), "search_all" (an iteration that
trains the beta of all groups), "distill" or "teacher_forward". GROUP is 1 to 3 for "search",
otherwise 0.
"""

import argparse
import sys
import time
from collections.abc import Callable

BATCH = 128

Run = Callable[[int], float]  # runs a number of iterations and returns their duration in seconds


def parse_arguments(*switches: str) -> argparse.Namespace:
    """Parses the arguments that every peer accepts.

    Args:
        *switches: Further flags, of this peer alone.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--teacher", type=int, nargs=2, default=(28, 4))
    parser.add_argument("--student", type=int, nargs=2, default=(16, 2))
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    return parser.parse_args()


def serve(
    search: Callable[[int], Run],
    distill: Callable[[], Run],
    teacher_forward: Callable[[], Run],
    search_all: Callable[[], Run] | None = None,
) -> None:
    """Answers requests until the input ends. Each step is built at its first request.

    Args:
        search: Builds the search of a group.
        distill: Builds the distillation.
        teacher_forward: Builds the teacher's forward pass.
        search_all: Builds the search of all groups; by default the search of each group, in turn.
    """

    def in_turn():
        of_groups = [search(group) for group in (1, 2, 3)]
        return lambda count: sum(run(count) for run in of_groups)

    runs = {}
    print("ready", flush=True)
    for line in sys.stdin:
        step, group, count = line.split()
        if (step, group) not in runs:
            build = {
                "search": lambda group=int(group): search(group),
                "search_all": search_all or in_turn,
                "distill": distill,
                "teacher_forward": teacher_forward,
            }[step]
            runs[step, group] = build()
        print(runs[step, group](int(count)), flush=True)


def timed(iterate: Callable[[], object], wait: Callable[[], None] = lambda: None) -> Run:
    """Returns a `Run` of iterations.

    Args:
        iterate: Runs one iteration.
        wait: Waits until all iterations are finished.
    """

    def run(count):
        started = time.perf_counter()
        for _ in range(count):
            iterate()
        wait()
        return time.perf_counter() - started

    return run
