"""How a peer answers the comparison: one process each, one line asked, one line answered.

    STEP GROUP COUNT   ->   seconds that COUNT iterations took

A step is "search" (beta and w in turn), "distill" or "teacher_forward"; GROUP is 1..3, or 0.
"""

import argparse
import sys
import time

BATCH = 128


def parsed(*switches):
    """The arguments that every peer takes, and switches of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--teacher", type=int, nargs=2, default=(28, 4))
    parser.add_argument("--student", type=int, nargs=2, default=(16, 2))
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    return parser.parse_args()


def serve(search, distill, teacher_forward):
    """Answers until the input ends. Each argument makes a run(count), which gives seconds; that of
    the search from a group.
    """
    made = {}
    print("ready", flush=True)
    for line in sys.stdin:
        step, group, count = line.split()
        if (step, group) not in made:
            made[step, group] = {
                "search": lambda group=int(group): search(group),
                "distill": distill,
                "teacher_forward": teacher_forward,
            }[step]()
        print(made[step, group](int(count)), flush=True)


def timed(iterate, wait=lambda: None):
    """run(count) from a function that runs one iteration, and one that waits until all is done."""

    def run(count):
        began = time.perf_counter()
        for _ in range(count):
            iterate()
        wait()
        return time.perf_counter() - began

    return run
