"""`bin/evaluate`: the metrics of saved models."""

import csv
import os
import pathlib
from collections.abc import Sequence

from dfa_tf import figures
from dfa_tf.commands.setup import Setup
from dfa_tf.errors import UserError
from dfa_tf.files import replacing
from dfa_tf.stages.evaluate import Evaluation, evaluate


def run(setup: Setup, paths: Sequence[str]) -> None:
    """Prints the metrics of saved models on the test examples, and writes them with --out.

    Args:
        setup: The command's setup.
        paths: The models; if empty, all models of the workdir.
    """
    for path in [pathlib.Path(path) for path in paths] or _saved_models(setup.workdir):
        result = evaluate(path, setup.dataset, **setup.config.pixel_scale(path))
        values = ", ".join(
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in result.metrics.items()
        )
        print(f"{path}: {values} on {len(setup.dataset.test)} test images")
        if setup.flags.out:
            _write(
                result, pathlib.Path(setup.flags.out), f"{path.absolute().parent.name}_{path.stem}"
            )


def _write(result: Evaluation, folder, name):
    """Writes the accuracy of each class and the confusion matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    confusion, names = result.tally.confusion, result.class_names
    rows = [["class", "images", "correct", "accuracy"]]
    for k, accuracy in enumerate(result.tally.class_accuracy):
        text = "" if accuracy != accuracy else f"{accuracy:.4f}"  # NaN without images
        rows.append([names[k], confusion[k].sum(), confusion[k, k], text])
    _write_csv(folder / f"{name}_classes.csv", rows)
    matrix = [[name, *row] for name, row in zip(names, confusion.tolist(), strict=True)]
    _write_csv(folder / f"{name}_confusion.csv", [["true class", *names], *matrix])
    figures.draw(lambda: figures.confusion_matrix(confusion, names), folder, f"{name}_confusion")


def _write_csv(path, rows):
    with replacing(path) as part, open(part, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def _saved_models(workdir):
    candidates = ["teacher/model.keras", "distill/student.keras", "export/saved_model"]
    paths = [workdir / candidate for candidate in candidates]
    paths += sorted((workdir / "export").glob("*.tflite"))
    existing = [path for path in paths if os.path.exists(path)]
    if not existing:
        raise UserError(f"{workdir}: holds no saved model; give a path, or run distill first")
    return existing
