"""How fast JPEG files become batches: images/s of 1, 2 and 4 processes, and the share of a step.

python benchmarks/reading.py --folder=/tmp/photos --images=20000 [--steps]

The first run makes a data set of ImageNet's layout and size of pictures: crops of 500 x 375 pixels of
the two photographs of scikit-learn, 1,000 different ones, whose files appear in it several times.
"""

import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

PROCESSES = (1, 2, 4)
DISTINCT, CLASSES, TEST_IMAGES = 1000, 10, 1000
BATCH_SIZE, BATCHES, ROUNDS = 256, 8, 5
STEP_BATCH_SIZE, STEP_ROUNDS = 16, 7
SETTINGS = {
    "image_size": (224, 224),
    "crop_fraction": 0.875,
    "random_resized_crop": (0.08, 1.0),
    "in_memory": False,
}


def draw(folder: pathlib.Path, count: int) -> None:
    """Writes FOLDER/train/CLASS/NUMBER.jpg and FOLDER/val/CLASS/NUMBER.jpg."""
    photographs = [np.asarray(image) for image in load_sample_images().images]
    draws = np.random.default_rng(0)
    (folder / "distinct").mkdir(parents=True)
    for k in range(DISTINCT):
        photograph = photographs[k % 2]
        height, width = photograph.shape[:2]
        top, left = draws.integers(height - 375), draws.integers(width - 500)
        crop = photograph[top : top + 375, left : left + 500]
        Image.fromarray(crop[:, :: draws.choice([-1, 1])]).save(
            folder / "distinct" / f"{k}.jpg", quality=int(draws.integers(85, 98))
        )
    for split, number in (("train", count), ("val", TEST_IMAGES)):
        for k in range(number):
            path = folder / "images" / split / f"class{k % CLASSES}" / f"{k:07}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / "distinct" / f"{k % DISTINCT}.jpg", path)


def load(folder: pathlib.Path):
    """Returns the data set, which is prepared in FOLDER/prepared once."""
    from dfa_tf import data

    return data.load(f"folder:{folder / 'images'}", folder / "prepared", **SETTINGS)


def read(folder: pathlib.Path, index: int, count: int) -> None:
    """Reads one part of the batches, in its own process.

    A line on standard input starts each round. The answer is the seconds and the CPU seconds.
    """
    from dfa_tf import data
    from dfa_tf.data.part import Part

    dataset = load(folder)
    batches = data.training_batches(
        dataset.train, BATCH_SIZE, dataset.augmentation, 0, part=Part(index, count)
    )
    iterator = iter(batches)
    next(iterator)
    for _ in sys.stdin:
        started, cpu = time.perf_counter(), _cpu_seconds()
        for _ in range(BATCHES):
            next(iterator)
        print(time.perf_counter() - started, _cpu_seconds() - cpu, flush=True)


def _cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def speed(folder: pathlib.Path, count: int) -> tuple[float, float]:
    """Returns images/s and images per CPU second of `count` processes, medians of the rounds."""
    command = [sys.executable, __file__, f"--folder={folder}", f"--parts={count}"]
    workers = [
        subprocess.Popen(
            [*command, f"--part={k}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for k in range(count)
    ]
    found = []
    for _ in range(ROUNDS):
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        answers = [tuple(map(float, worker.stdout.readline().split())) for worker in workers]
        seconds = max(each[0] for each in answers)
        cpu = sum(each[1] for each in answers)
        images = BATCH_SIZE * BATCHES
        found.append((images / seconds, images / cpu))
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    return tuple(statistics.median(column) for column in zip(*found, strict=True))


def share_of_a_step(folder: pathlib.Path) -> None:
    """Prints the share of a distillation step that drawing its batch takes, ResNet50 to ResNet18."""
    import tensorflow as tf

    from dfa_tf import models
    from dfa_tf.benchmark.cases import Workload, distill_case, fixed_batch_case

    dataset = load(folder)
    networks = (models.resnet(depth, CLASSES, "imagenet", (224, 224, 3)) for depth in (50, 18))
    strategy = tf.distribute.get_strategy()
    workload = Workload(*networks, dataset.train, dataset.augmentation, STEP_BATCH_SIZE, strategy)
    drawn, fixed = (case(workload, "float32").run for case in (distill_case, fixed_batch_case))
    drawn(1), fixed(1)  # traces the steps
    pairs = [(drawn(2) / 2, fixed(2) / 2) for _ in range(STEP_ROUNDS)]
    shares = sorted(1 - fixed_seconds / drawn_seconds for drawn_seconds, fixed_seconds in pairs)
    seconds = statistics.median(drawn_seconds for drawn_seconds, _ in pairs)
    print(
        f"distillation step, batch {STEP_BATCH_SIZE}: {1000 * seconds:.0f} ms, of which drawing "
        f"the batch {statistics.median(shares):.1%} ({shares[0]:.1%} to {shares[-1]:.1%})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", action="store_true", help="time a training step too")
    parser.add_argument("--part", type=int)
    parser.add_argument("--parts", type=int)
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.parts:
        return read(folder, arguments.part, arguments.parts)
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        draw(unfinished, arguments.images)
        unfinished.rename(folder)
    load(folder)
    for count in PROCESSES:
        images, images_per_cpu_second = speed(folder, count)
        print(
            f"{count} processes: {images:.0f} images/s, {images_per_cpu_second:.0f} images per second "
            "of a core",
            flush=True,
        )
    if arguments.steps:
        share_of_a_step(folder)


if __name__ == "__main__":
    main()
