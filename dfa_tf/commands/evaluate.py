"""`bin/evaluate`: the accuracy of saved models."""

import os
import pathlib
from collections.abc import Sequence

from dfa_tf.commands.setup import Setup
from dfa_tf.errors import UserError
from dfa_tf.stages.evaluate import evaluate


def run(setup: Setup, paths: Sequence[str]) -> None:
    """Prints the accuracy of saved models on the test examples.

    Args:
        setup: The command's setup.
        paths: The models; if empty, all models of the workdir.
    """
    for path in [pathlib.Path(path) for path in paths] or _saved_models(setup.workdir):
        result = evaluate(path, setup.dataset, **setup.config.pixel_scale(path))
        print(
            f"{path}: accuracy {result['accuracy']:.4f}, loss {result['loss']:.4f} on "
            f"{len(setup.dataset.test)} test images"
        )


def _saved_models(workdir):
    candidates = ["teacher/model.keras", "distill/student.keras", "export/saved_model"]
    paths = [workdir / candidate for candidate in candidates]
    paths += sorted((workdir / "export").glob("*.tflite"))
    existing = [path for path in paths if os.path.exists(path)]
    if not existing:
        raise UserError(f"{workdir}: holds no saved model; give a path, or run distill first")
    return existing
