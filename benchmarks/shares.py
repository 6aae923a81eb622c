"""The share of each kind of operation in the time of a step.

    python benchmarks/shares.py distill
    python benchmarks/shares.py search --group 2 --precision float32

One thread starts the operations, so that their times add up to the time of the step. Each operation
still uses all cores.
"""

import argparse
import collections
import glob
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from dfa_tf import data, models
from dfa_tf.benchmark.cases import Workload, cases

STEPS, BATCH_SIZE = 4, 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step")
    parser.add_argument("--group", type=int)
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--rows", type=int, default=12)
    arguments = parser.parse_args()
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (5000, 32, 32, 3), np.uint8)
    workload = Workload(
        models.wide_resnet(28, 4, 100),
        models.wide_resnet(16, 2, 100),
        data.Examples(images, draws.integers(0, 100, 5000)),
        data.Augmentation(),
        BATCH_SIZE,
        tf.distribute.get_strategy(),
    )
    step = arguments.step, arguments.group and f"group{arguments.group}"
    timed = cases(workload, arguments.precision)
    run = next(case.run for case in timed if (case.step, case.group) == step)
    run(2)  # traces the step
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            seconds = run(STEPS)
        (trace,) = glob.glob(f"{folder}/plugins/profile/*/*.xplane.pb")
        with open(trace, "rb") as file:
            space = xplane_pb2.XSpace.FromString(file.read())
    milliseconds, counts = by_kind(space)
    total = 1000 * seconds / STEPS
    print(f"{arguments.step} {arguments.group or ''} {arguments.precision}: {total:.0f} ms")
    for kind, ms in milliseconds.most_common(arguments.rows):
        print(f"{ms / total:6.1%} {ms:7.1f} ms {counts[kind] / STEPS:5.0f} of {kind}")
    rest = total - sum(milliseconds.values())
    print(f"{rest / total:6.1%} {rest:7.1f} ms       compiled by XLA, and between operations")


def by_kind(space):
    """Returns ({kind: milliseconds in a step}, {kind: operations in all steps}) of a trace."""
    milliseconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines if plane.name.startswith("/host:CPU") else ():
            for event in line.events:
                name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if name and kind.isidentifier() and not name.endswith(":"):
                    milliseconds[kind] += event.duration_ps / 1e9 / STEPS
                    counts[kind] += 1
    return milliseconds, counts


if __name__ == "__main__":
    main()
