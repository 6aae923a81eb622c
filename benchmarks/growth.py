"""How time and memory grow with the networks, next to the number of operations.

python benchmarks/growth.py --results=docs/results/growth

One quantity grows at a time: the features of a group, the width, the batch, the classes, the side of
the images, and the groups. Each point is measured in a process of its own, so that its peak memory is
its own. Points that the results already contain are skipped.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BASE = {"features": 4, "width": 16, "batch": 64, "classes": 100, "size": 32, "groups": 3}
AXES = {
    "features": (2, 4, 8, 12),
    "width": (8, 16, 32, 64),
    "batch": (32, 128, 512, 1024),
    "classes": (10, 100, 1000, 21841),
    "size": (32, 64, 128, 224),
    "groups": (2, 3, 4, 5),
}
BASES = {"size": {"batch": 16}}  # otherwise large images would take minutes
NAMES = {
    "features": "features of a group",
    "width": "channels of the first group",
    "batch": "batch size",
    "classes": "classes",
    "size": "side of the images",
    "groups": "groups",
}
STEPS = ("search", "distill")  # an iteration of the joint search, and a distillation step of DFA
SAMPLES = 3
RATIOS = (1, 2, 5, 10, 20, 50)  # ticks
STUDENT_FEATURES = 1


def network(features: int, width: int, classes: int, size: int, groups: int):
    """Returns a residual network: a sum of two 3x3 convolutions for each feature."""
    import keras
    from keras import layers

    from dfa_tf import models

    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(image)
    for group in range(groups):
        channels = width * 2**group
        for k in range(features):
            stride = 2 if group and not k else 1
            x = layers.ReLU()(layers.BatchNormalization()(x))
            y = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(y)
            if x.shape[-1] != channels:
                x = layers.Conv2D(channels, 1, stride, use_bias=False)(x)
            x = layers.Add()([x, y])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    logits = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return models.from_keras(keras.Model(image, logits), scale=1 / 127.5, offset=-1.0)


def measure(features: int, width: int, batch: int, classes: int, size: int, groups: int) -> dict:
    """Returns milliseconds, operations and peak memory of each step, and the time of an export."""
    import numpy as np
    import tensorflow as tf

    from dfa_tf import data
    from dfa_tf.benchmark import machine
    from dfa_tf.benchmark.cases import ALL_GROUPS, Workload, cases
    from dfa_tf.benchmark.timing import Sampler
    from dfa_tf.deployment.options import ExportOptions
    from dfa_tf.stages.export import export
    from dfa_tf.training.runtime import Runtime

    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (2 * batch, size, size, 3), np.uint8)
    examples = data.Examples(images, np.arange(2 * batch) % classes)
    shape = width, classes, size, groups
    teacher, student = network(features, *shape), network(STUDENT_FEATURES, *shape)
    augmentation = data.Augmentation(pad=4, flip=True)
    strategy = tf.distribute.get_strategy()
    workload = Workload(teacher, student, examples, augmentation, batch, strategy)
    found = {}
    for case in cases(workload, "float32"):
        if case.step == "distill" or (case.step, case.group) == ("search", ALL_GROUPS):
            sampler = Sampler(case.run)
            sampler.warm_up()
            memory = machine.peak_memory_during(sampler.run)
            for _ in range(SAMPLES):
                sampler.sample()
            found[case.step] = {
                "ms": sampler.milliseconds().median,
                "gflop": case.flops / 1e9,
                "memory_bytes": memory,
            }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        few = examples.select(np.arange(min(len(examples), 64)))
        options = ExportOptions(kinds=("float32",))
        export(
            network=student, test=few, workdir=folder, options=options, runtime=Runtime(quiet=True)
        )
    found["export"] = {"ms": 1000 * (time.perf_counter() - started)}
    return found


def points() -> list[tuple[str, dict]]:
    """Returns (axis, settings) of all points."""
    return [
        (axis, BASE | BASES.get(axis, {}) | {axis: value})
        for axis, values in AXES.items()
        for value in values
    ]


def table(found: list[dict]) -> str:
    """Returns a Markdown table. Ratios are to the first point of the same axis."""
    heading = "| | search, ms | operations | time | GiB | distill, ms | operations | time | GiB | export, s |"
    lines = [heading, "|" + " --- |" * 10]
    for axis in AXES:
        axis_points = [each for each in found if each["axis"] == axis]
        for each in axis_points:
            cells = [f"{NAMES[axis]}: {each['settings'][axis]:,}"]
            for step in STEPS:
                now, first = each[step], axis_points[0][step]
                cells += [
                    f"{now['ms']:,.0f}",
                    f"{now['gflop'] / first['gflop']:.1f} x",
                    f"{now['ms'] / first['ms']:.1f} x",
                    f"{now['memory_bytes'] / 2**30:.1f}",
                ]
            cells.append(f"{each['export']['ms'] / 1000:.1f}")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: list[dict], path: pathlib.Path) -> None:
    """Draws time and memory over the operations, each as a ratio to the first point of the axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for panel, axis in zip(axes.flat, AXES, strict=True):
        axis_points = [each for each in found if each["axis"] == axis]
        if not axis_points:
            continue
        values = [each["settings"][axis] for each in axis_points]
        for step, color in zip(STEPS, ("#0072b2", "#d55e00"), strict=True):
            for key, style in (("gflop", ":"), ("ms", "-"), ("memory_bytes", "--")):
                label = {"gflop": "operations", "ms": "time", "memory_bytes": "memory"}[key]
                ratios = [each[step][key] / axis_points[0][step][key] for each in axis_points]
                panel.plot(values, ratios, style, color=color, marker=".", label=f"{step}, {label}")
        panel.set(xscale="log", yscale="log", xlabel=NAMES[axis], xticks=values)
        panel.set_xticklabels([f"{value:,}" for value in values])
        panel.set_yticks(RATIOS, [f"{ratio}" for ratio in RATIOS])
        panel.set_ylim(0.8, max(4, 1.1 * panel.get_ylim()[1]))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    for panel in axes[:, 0]:
        panel.set_ylabel("ratio to the first point")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("growth"))
    parser.add_argument("--point", help="the settings of one point, which is measured alone")
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(**json.loads(arguments.point))))
        return
    from dfa_tf import system

    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "growth.json"
    content = {"machine": system.cpu_name(), "precision": "float32", "points": []}
    if path.exists():
        content = json.loads(path.read_text())
    if content["machine"] != system.cpu_name():
        parser.error(f"{path}: measured on {content['machine']}; choose another --results")
    for axis, settings in points():
        key = {"axis": axis, "settings": settings}
        if any(each["axis"] == axis and each["settings"] == settings for each in content["points"]):
            continue
        command = [sys.executable, __file__, f"--point={json.dumps(settings)}"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        content["points"].append(key | json.loads(output.splitlines()[-1]))
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{axis} {settings[axis]}: {output.splitlines()[-1]}", flush=True)
    order = [(axis, settings) for axis, settings in points()]
    content["points"].sort(key=lambda each: order.index((each["axis"], each["settings"])))
    draw(content["points"], arguments.results / "growth.png")
    print(table(content["points"]))


if __name__ == "__main__":
    main()
