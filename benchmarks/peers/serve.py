"""How a peer answers the comparison: one process each, one line asked, one line answered.

    STEP GROUP COUNT   ->   seconds that COUNT iterations took

A step is "search" (beta and w in turn), "distill" or "teacher_forward"; GROUP is 1..3, or 0.
"""

import sys
import time


def serve(make):
    """Answers until the input ends. make(step, group) returns run(count), which gives seconds."""
    made = {}
    print("ready", flush=True)
    for line in sys.stdin:
        step, group, count = line.split()
        if (step, group) not in made:
            made[step, group] = make(step, int(group))
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
