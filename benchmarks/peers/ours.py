"""The search and distillation steps of dfa_tf, for the comparison: the benchmark's own cases.

python benchmarks/peers/ours.py --precision bfloat16
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from serve import serve

from dfa_tf import data, models
from dfa_tf.benchmark.cases import cases

BATCH = 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--teacher", type=int, nargs=2, default=(28, 4))
    parser.add_argument("--student", type=int, nargs=2, default=(16, 2))
    arguments = parser.parse_args()
    precision = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[arguments.precision]
    draws = np.random.default_rng(0)
    examples = data.Examples(
        draws.integers(0, 256, (5000, 32, 32, 3), np.uint8), draws.integers(0, 100, 5000)
    )
    found = cases(
        models.wide_resnet(*arguments.teacher, 100),
        models.wide_resnet(*arguments.student, 100),
        examples,
        data.Augmentation(),
        precision,
        BATCH,
        tf.distribute.MirroredStrategy(),
    )
    by_name = {(case.step, case.group): case for case in found}

    def make(step, group):
        return by_name[step, f"group{group}" if group else None].run

    serve(make)


if __name__ == "__main__":
    main()
