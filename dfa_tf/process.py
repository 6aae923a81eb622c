"""A distillation process: the weight of each path over the course of a training, and process.json.

The term is that of DistPro (ECCV 2022), which searches the process. Runs with learnt weights write
the same file, so that any learnt weighting can be replayed.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from dfa_tf import files
from dfa_tf.errors import UserError

FORMAT = 1
RECORDED = 1000  # steps of a run, about
POINTS = 200  # of progress, at which processes of different lengths are compared


def is_recorded(step: int, steps: int) -> bool:
    """Returns whether a process records the weights of a step.

    Every n-th step from the first one on is recorded, and the last one: at most `RECORDED` + 1 steps.

    Args:
        step: The step, counted from 0.
        steps: Number of steps of the run.
    """
    return step % math.ceil(steps / RECORDED) == 0 or step == steps - 1


@dataclasses.dataclass
class Process:
    """The weights of K paths at recorded steps of a run.

    Attributes:
        paths: Names of the paths.
        at: The recorded steps, ascending, from 0 to `steps` - 1. They need not be integers.
        weights: The weights `[K]` at each of them, as training multiplies the losses by them.
        steps: Number of steps of the run.
        alpha: The parameters `[K]` behind the weights at each recorded step; empty if there are
            none.
        normalization: How the weights follow from alpha, or an empty text.
        dataset: Name of the data set.
        teacher: Name of the teacher.
        student: Name of the student.
        seed: Seed of the run.
    """

    paths: list[str]
    at: list[float]
    weights: list[list[float]]
    steps: int
    alpha: list[list[float]] = dataclasses.field(default_factory=list)
    normalization: str = ""
    dataset: str = ""
    teacher: str = ""
    student: str = ""
    seed: int = 0

    def stretched(self, steps: int) -> np.ndarray:
        """Returns the weights at each step of a run of another length.

        The two runs are matched by progress, step / (steps - 1). Weights between two recorded steps
        are interpolated linearly. Before the first and after the last one they are constant.

        Args:
            steps: Number of steps of the other run.

        Returns:
            Float32 array `[steps, K]`.
        """
        progress = np.arange(steps) / max(1, steps - 1)
        positions = progress * max(0, self.steps - 1)
        weights = np.asarray(self.weights, np.float64)
        columns = [np.interp(positions, self.at, column) for column in weights.T]
        return np.stack(columns, 1).astype(np.float32)

    @property
    def digest(self) -> str:
        """A digest of the paths, the steps and the weights."""
        content = json.dumps([self.paths, self.at, self.weights, self.steps])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def check_paths(self, paths: Sequence[str], source: str) -> None:
        """Checks that the process has a weight for each path of a run, in any order.

        Args:
            paths: The paths of the run.
            source: Where the process comes from, for the error message.

        Raises:
            UserError: If the names differ.
        """
        if set(paths) != set(self.paths):
            raise UserError(
                f"{source}: expected the paths {', '.join(paths)}, got {', '.join(self.paths)}; "
                "use the methods and the process.layerwise of the run that wrote it"
            )

    def save(self, path: pathlib.Path) -> None:
        """Writes process.json."""
        files.write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Process":
        """Reads process.json.

        Raises:
            UserError: If the file is missing or malformed.
        """
        path = pathlib.Path(path)
        advice = "give a process.json that search or distill wrote"
        content = files.load_json(path, FORMAT, advice)
        fields = dataclasses.fields(cls)
        names = {field.name for field in fields}
        required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
        if missing := sorted(required - set(content)):
            raise UserError(f"{path}: the key {missing[0]!r} is missing; {advice}")
        try:
            process = cls(**{name: value for name, value in content.items() if name in names})
            problem = process._problem()
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: expected the layout of a process.json; {advice}") from error
        if problem:
            raise UserError(f"{path}: {problem}; {advice}")
        return process

    def _problem(self):
        """Returns what is wrong with the values, or an empty text."""
        numbers = [*self.at, *(w for row in [*self.weights, *self.alpha] for w in row)]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            return "expected numbers in 'at', 'weights' and 'alpha'"
        weights, at = np.asarray(self.weights, np.float64), np.asarray(self.at, np.float64)
        shape = (len(at), len(self.paths))
        if not isinstance(self.paths, list) or not all(isinstance(p, str) for p in self.paths):
            return "expected 'paths' to be a list of names"
        if len(set(self.paths)) < len(self.paths):
            return "expected different names in 'paths'"
        if not self.paths or not len(at) or weights.shape != shape:
            return f"expected weights of shape {shape}, got {weights.shape}"
        if self.alpha and np.shape(self.alpha) != shape:
            return f"expected alpha of shape {shape}, got {np.shape(self.alpha)}"
        if not isinstance(self.steps, int) or not np.isfinite(at).all():
            return "expected finite steps"
        if not (weights >= 0).all() or (weights > np.finfo(np.float32).max).any():
            return "expected non-negative finite weights"
        if (np.diff(at) <= 0).any() or at[0] < 0 or at[-1] > self.steps - 1:
            return f"expected ascending steps from 0 to {self.steps - 1} in 'at'"
        return ""
