"""What two replicas cost over one at the same global batch, on one CPU's cores.

python benchmarks/replicas.py
"""

import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from dfa_tf import data, models
from dfa_tf.benchmark.cases import cases

ROUNDS, STEPS, BATCH = 7, 2, 128
WANTED = [("search", "group2"), ("distill", None)]


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    draws = np.random.default_rng(0)
    examples = data.Examples(
        draws.integers(0, 256, (5000, 32, 32, 3), np.uint8), draws.integers(0, 100, 5000)
    )
    runs = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        with strategy.scope():
            networks = models.wide_resnet(28, 4, 100), models.wide_resnet(16, 2, 100)
        found = cases(*networks, examples, data.Augmentation(), "mixed_bfloat16", BATCH, strategy)
        runs.append({(case.step, case.group): case.run for case in found})
    for wanted in WANTED:
        one, two = (each[wanted] for each in runs)
        one(1), two(1)
        pairs = [(one(STEPS) / STEPS, two(STEPS) / STEPS) for _ in range(ROUNDS)]
        ratios = sorted(b / a for a, b in pairs)
        ms = [1000 * statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"{' '.join(filter(None, wanted))}: one replica {ms[0]:.0f} ms, two {ms[1]:.0f} ms, "
            f"{statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
