"""The search and distillation steps of dfa_tf: the cases of bin/benchmark.

python benchmarks/peers/ours.py --precision bfloat16
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from serve import BATCH, parse_arguments, serve

from dfa_tf import data, models
from dfa_tf.benchmark.cases import ALL_GROUPS, Workload, cases


def main():
    arguments = parse_arguments()
    precision = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[arguments.precision]
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (5000, 32, 32, 3), np.uint8)
    workload = Workload(
        models.wide_resnet(*arguments.teacher, 100),
        models.wide_resnet(*arguments.student, 100),
        data.Examples(images, draws.integers(0, 100, 5000)),
        data.Augmentation(),
        BATCH,
        tf.distribute.MirroredStrategy(),
    )
    runs = {(case.step, case.group): case.run for case in cases(workload, precision)}
    serve(
        search=lambda group: runs["search", f"group{group}"],
        search_all=lambda: runs["search", ALL_GROUPS],
        distill=lambda: runs["distill", None],
        teacher_forward=lambda: runs["teacher_forward", None],
    )


if __name__ == "__main__":
    main()
