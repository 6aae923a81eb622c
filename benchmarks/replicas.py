"""The cost of two replicas over one, at the same global batch and on the same CPU cores.

python benchmarks/replicas.py
"""

import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from dfa_tf import data, models
from dfa_tf.benchmark.cases import Workload, cases

ROUNDS, STEPS, BATCH_SIZE = 7, 2, 128
TIMED = [("search", "group2"), ("distill", None)]


def workload(devices, examples):
    """Returns WRN_28_4 and WRN_16_2 with a replica on each device."""
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        teacher, student = models.wide_resnet(28, 4, 100), models.wide_resnet(16, 2, 100)
    return Workload(teacher, student, examples, data.Augmentation(), BATCH_SIZE, strategy)


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    draws = np.random.default_rng(0)
    examples = data.Examples(
        draws.integers(0, 256, (5000, 32, 32, 3), np.uint8), draws.integers(0, 100, 5000)
    )
    runs = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        timed = cases(workload(devices, examples), "mixed_bfloat16")
        runs.append({(case.step, case.group): case.run for case in timed})
    for step in TIMED:
        one, two = (by_step[step] for by_step in runs)
        one(1), two(1)  # traces the steps
        pairs = [(one(STEPS) / STEPS, two(STEPS) / STEPS) for _ in range(ROUNDS)]
        ratios = sorted(two_seconds / one_seconds for one_seconds, two_seconds in pairs)
        one_ms, two_ms = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{' '.join(filter(None, step))}: one replica {one_ms:.0f} ms, two {two_ms:.0f} ms, "
            f"{statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
