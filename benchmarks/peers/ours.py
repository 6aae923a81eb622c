"""The search and distillation steps of dfa_tf, for the comparison: the benchmark's own cases.

python benchmarks/peers/ours.py --precision bfloat16
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from serve import BATCH, parsed, serve

from dfa_tf import data, models
from dfa_tf.benchmark.cases import cases


def main():
    arguments = parsed()
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
    runs = {(case.step, case.group): case.run for case in found}
    serve(
        search=lambda group: runs["search", f"group{group}"],
        distill=lambda: runs["distill", None],
        teacher_forward=lambda: runs["teacher_forward", None],
    )


if __name__ == "__main__":
    main()
