"""The cost of a joint search over that of the search by groups, in paired rounds.

    python benchmarks/joint.py
    python benchmarks/joint.py --precision float32 --rounds 5

A round runs one iteration of the joint search and one of each group, in turn. The ratio of a round is
the time of the joint iteration over the sum of the groups' times. The CPU time of the process varies
less than the elapsed time if the machine is shared.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from dfa_tf import data, models
from dfa_tf.benchmark.cases import ALL_GROUPS, Workload, cases

BATCH_SIZE = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=["mixed_bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--teacher", type=int, nargs=2, default=[28, 4], metavar=("DEPTH", "WIDTH"))
    parser.add_argument("--student", type=int, nargs=2, default=[16, 2], metavar=("DEPTH", "WIDTH"))
    arguments = parser.parse_args()
    draws = np.random.default_rng(0)
    workload = Workload(
        models.wide_resnet(*arguments.teacher, 100),
        models.wide_resnet(*arguments.student, 100),
        data.Examples(
            draws.integers(0, 256, (5000, 32, 32, 3), np.uint8), draws.integers(0, 100, 5000)
        ),
        data.Augmentation(),
        BATCH_SIZE,
        tf.distribute.get_strategy(),
    )
    for precision in arguments.precision:
        timed = {c.group: c for c in cases(workload, precision) if c.step == "search"}
        joint = timed.pop(ALL_GROUPS)
        groups = list(timed.values())
        for case in (joint, *groups):
            case.run(2)  # traces the steps
        rounds = [(seconds([joint]), seconds(groups)) for _ in range(arguments.rounds)]
        for k, clock in enumerate(("elapsed", "CPU")):
            pairs = [(one[k], total[k]) for one, total in rounds]
            ratios = sorted(one / total for one, total in pairs)
            medians = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"{precision}, {clock} time: joint {next(medians):.0f} ms, groups "
                f"{next(medians):.0f} ms, ratio {statistics.median(ratios):.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {arguments.rounds} rounds)",
                flush=True,
            )
        operations = joint.flops / sum(case.flops for case in groups)
        print(f"operations of convolutions and dense layers: ratio {operations:.3f}", flush=True)


def seconds(timed):
    """Returns the elapsed and the CPU seconds of one iteration of each case, one after another."""
    started = time.process_time()
    elapsed = sum(case.run(1) for case in timed)
    return elapsed, time.process_time() - started


if __name__ == "__main__":
    main()
