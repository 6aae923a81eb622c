"""The cost of KD over plain training, with cached logits and with the teacher in each step.

python benchmarks/views.py [PRECISION]

WRN_28_2 and WRN_16_1 in random order in each round. The CPU time is that of all threads of the
process, which other processes disturb less than the duration.
"""

import os
import random
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from dfa_tf import data, models
from dfa_tf.benchmark.cases import KD_VIEWS, PLAIN, Workload, cases
from dfa_tf.benchmark.timing import median_and_interval

ROUNDS, STEPS, BATCH_SIZE = 25, 4, 128
TIMED = (PLAIN, KD_VIEWS, "kd")


def main():
    precision = sys.argv[1] if len(sys.argv) > 1 else "mixed_bfloat16"
    noise = data.noise_like("cifar100")
    teacher, student = models.wide_resnet(28, 2, 100), models.wide_resnet(16, 1, 100)
    how = noise.train, noise.augmentation, BATCH_SIZE, tf.distribute.get_strategy()
    runs = {}
    for case in cases(Workload(teacher, student, *how), precision):
        if case.step in TIMED:
            runs[case.step] = case
        if len(runs) == len(TIMED):
            break
    for case in runs.values():
        case.run(1)  # traces the step
    seconds = {"duration": {s: [] for s in TIMED}, "CPU time": {s: [] for s in TIMED}}
    for k in range(ROUNDS):
        for step in random.Random(k).sample(TIMED, len(TIMED)):
            started = time.process_time()
            seconds["duration"][step].append(runs[step].run(STEPS) / STEPS)
            seconds["CPU time"][step].append((time.process_time() - started) / STEPS)
    for kind, by_step in seconds.items():
        for step in TIMED[1:]:
            ratios = [a / b for a, b in zip(by_step[step], by_step[PLAIN], strict=True)]
            median, low, high = median_and_interval(ratios)
            ms, plain_ms = (1000 * statistics.median(by_step[name]) for name in (step, PLAIN))
            print(
                f"{precision} {kind}: {step} {ms:.0f} ms, {PLAIN} {plain_ms:.0f} ms, "
                f"{median:.3f} x ({low:.3f} to {high:.3f})"
            )


if __name__ == "__main__":
    main()
