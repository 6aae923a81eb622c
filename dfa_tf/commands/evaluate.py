"""`bin/evaluate`: the metrics of saved models."""

import csv
import pathlib
from collections.abc import Sequence

from dfa_tf import figures
from dfa_tf.commands.setup import Setup
from dfa_tf.commands.summary import generations_before
from dfa_tf.errors import UserError
from dfa_tf.files import output_folder, read_json, replacing
from dfa_tf.stages.evaluate import Evaluation, evaluate


def run(setup: Setup, paths: Sequence[str]) -> None:
    """Prints the metrics of saved models on the test examples, and writes them with --out.

    Args:
        setup: The command's setup.
        paths: The models; if empty, all models of the workdir.
    """
    models = [pathlib.Path(path) for path in paths] or _saved_models(setup.workdir)
    out = pathlib.Path(setup.flags.out) if setup.flags.out else None
    names = _names(models)
    if out:
        _check_distinct(names)
        output_folder(out, "--out")
    for path, name in zip(models, names, strict=True):
        result = evaluate(path, setup.dataset, **setup.config.pixel_scale(path))
        values = ", ".join(
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in result.metrics.items()
        )
        print(f"{path}: {values} on {len(setup.dataset.test)} test images")
        if out:
            _write(result, out, name)


def _names(models):
    """Returns the first part of the names of each model's files."""
    return [f"{path.absolute().parent.name}_{path.stem}" for path in models]


def _check_distinct(names):
    """Raises UserError if the files of one model would replace those of another."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--out: expected models whose folders or files have different names, got several "
                f"{name}; evaluate them with different --out"
            )


def _write(result: Evaluation, folder, name):
    """Writes the accuracy of each class and the confusion matrix."""
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


def _generations(workdir):
    """Returns the students between the teacher and the last student, below the workdir.

    A longer chain, which was run before, may have left further folders.
    """
    student = read_json(workdir / "distill/metrics.json")
    if student:
        numbers = list(generations_before(student))
    else:  # the chain is not finished
        found = [path.name.rpartition("_")[2] for path in workdir.glob("generation_*")]
        numbers = sorted(int(number) for number in found if number.isdecimal())
    return [f"generation_{k}/distill/student.keras" for k in numbers]


def _saved_models(workdir):
    patterns = ["teacher/model.keras", "teacher_*/model.keras", *_generations(workdir)]
    patterns += ["distill/student.keras", "export/saved_model", "export/*.tflite"]
    existing = [path for pattern in patterns for path in sorted(workdir.glob(pattern))]
    if not existing:
        raise UserError(f"{workdir}: holds no saved model; give a path, or run distill first")
    return existing
