"""`bin/benchmark`: the speed of the steps of search and distillation."""

import statistics

from dfa_tf import data, files
from dfa_tf.benchmark.cases import Workload
from dfa_tf.benchmark.report import benchmark
from dfa_tf.commands.setup import Setup
from dfa_tf.methods.connectors import check_same_groups
from dfa_tf.stages.checks import check_pair
from dfa_tf.tables import table


def run(setup: Setup) -> None:
    """Times the steps on noise in the shape of the data set. Prints a table and writes --json."""
    config, flags = setup.config, setup.flags
    name, image_size = (config.value("dataset", key) for key in ("name", "image_size"))
    noise = data.noise_like(name, flags.data_dir, image_size)
    teacher, _ = config.network("teacher", noise.task, seed=0)
    student, _ = config.network("student", noise.task, seed=0)
    check_pair(teacher, student)
    check_same_groups(teacher, student)
    batch_size = config.value("search", "batch_size")
    workload = Workload(
        teacher, student, noise.train, noise.augmentation, batch_size, setup.strategy
    )
    report = benchmark(workload, profile=flags.profile, systems=flags.systems)
    if setup.is_chief:
        print(table(report.cells()))
        print(f"input pipeline: {report.input_share_of_distill:.1%} of a distillation step")
        compared = {
            "joint search over the sum of its groups": report.joint_over_groups,
            "KD with cached logits over plain training": report.views_over_plain,
        }
        for title, by_precision in compared.items():
            for precision, ratios in by_precision.items():
                median, least, most = statistics.median(ratios), min(ratios), max(ratios)
                print(f"{title}, {precision}: {median:.2f} ({least:.2f} to {most:.2f})")
        if flags.json:
            files.write_json(flags.json, report.json())
