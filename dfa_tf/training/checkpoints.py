"""Checkpoints of a run: variables and journal, saved together and atomically."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dfa_tf import files
from dfa_tf.errors import UserError, first_line
from dfa_tf.files import WRITING
from dfa_tf.progress import print_line

KEPT = 2  # states


@dataclasses.dataclass
class Journal:
    """The records of a run, which checkpoints contain.

    Attributes:
        step: Number of finished steps.
        seconds: Duration of the run in seconds, including the time before interruptions.
        timed_steps: Steps whose duration was measured. The first block of a loop is excluded,
            because its duration includes tracing.
        timed_seconds: Duration of these steps in seconds.
        window_steps: Steps since the last log entry.
        window_sums: Sums of all measurements over these steps.
        curve: `[step, accuracy, loss]` of each evaluation.
        last: All metrics of the last evaluation, `{name: value}`; empty before the first.
        path_weights: `[step, {path: weight}]` of each recorded step, if the weights are not constant.
        last_epoch: For each measurement, `[number, sum]` of its values in the last epoch so far.
        config: The text of `RunConfig`.
    """

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    window_steps: int = 0
    window_sums: dict = dataclasses.field(default_factory=dict)
    curve: list = dataclasses.field(default_factory=list)
    last: dict = dataclasses.field(default_factory=dict)
    path_weights: list = dataclasses.field(default_factory=list)
    last_epoch: dict = dataclasses.field(default_factory=dict)
    config: str = ""

    def images_per_second(self, images_per_step: int) -> float | None:
        """Returns the speed without tracing and evaluation, or None if it was not measured."""
        if not self.timed_seconds:
            return None
        return round(self.timed_steps * images_per_step / self.timed_seconds, 1)


class _SavedJournal(tf.train.experimental.PythonState):
    def __init__(self, journal):
        self._journal = journal

    def serialize(self):
        return json.dumps(dataclasses.asdict(self._journal))

    def deserialize(self, string_value):
        for name, value in json.loads(string_value).items():
            setattr(self._journal, name, value)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings and inputs of a run, which its checkpoints record.

    Attributes:
        text: All settings and inputs as text.
        check: A function of the text that a checkpoint records and of the checkpoint's folder. It
            raises UserError if that run had other settings or inputs.
    """

    text: str = ""
    check: Callable[[str, pathlib.Path], None] = lambda text, folder: None


class Checkpoints:
    """Saves and restores the state of a run, and keeps the last two states.

    A state consists of the files step-N.index and step-N.data-... for step N. They are written to a
    temporary folder. The index is moved last, so a state with an index is complete. States are found
    and deleted by their names alone, because TensorFlow treats some paths as patterns.

    Args:
        folder: Folder of the files.
        journal: The journal of the run.
        variables: Variables by purpose, such as `{"network": [...], "optimizer": [...]}`.
        chief: Whether this process writes to `folder`. Every process must call `save`, because
            all of them take part in averaging variables over the replicas. The other processes
            write to a temporary folder.
        config: The settings and inputs of the run.

    Attributes:
        journal: The journal of the run.
        folder: Folder of the files.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        journal: Journal,
        variables: Mapping[str, Sequence[tf.Variable]],
        chief: bool = True,
        config: RunConfig = RunConfig(),
    ):
        self.journal = journal
        self._checkpoint = tf.train.Checkpoint(journal=_SavedJournal(journal), **variables)
        # `restore` creates this variable, and then expects every state to contain it.
        self._checkpoint.save_counter  # noqa: B018
        self._variables = [v for group in variables.values() for v in group if v.dtype.is_floating]
        self.folder = pathlib.Path(folder)
        self._chief = chief
        self._config = config

    def restore(self) -> bool:
        """Restores the latest readable state, and returns whether there was one.

        Raises:
            UserError: If there are checkpoints, but none can be read, or the state is that of a run
                with another config.
        """
        steps = self._steps()
        for step in reversed(steps):
            try:
                with files.without_patterns(self.folder) as folder:
                    self._checkpoint.restore(f"{folder}/step-{step}").assert_consumed()
            except Exception as error:  # the type depends on what is damaged
                reason = error
            else:
                if self.journal.config:
                    self._config.check(self.journal.config, self.folder)
                return True
        if steps:
            raise UserError(
                f"{self.folder}: no checkpoint can be read ({first_line(reason)}); "
                "restart the stage with --fresh"
            ) from reason
        if self._chief and any(path.name.startswith("step-") for path in self._paths()):
            print_line(f"{self.folder}: no checkpoint is complete; starting from the first step")
        return False

    @property
    def latest(self) -> str:
        """The latest checkpoint in words, for messages."""
        steps = self._steps()
        return f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint"

    def is_finite(self) -> bool:
        """Returns whether all floating-point variables are finite."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in self._variables)

    def save(self) -> None:
        """Saves the current state. If the process is killed meanwhile, the previous one remains."""
        self.journal.config = self._config.text
        if not self._chief:
            with tempfile.TemporaryDirectory() as temporary:
                self._checkpoint.write(f"{temporary}/step")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=WRITING, dir=self.folder) as temporary,
            files.without_patterns(pathlib.Path(temporary)) as writable,
        ):
            self._checkpoint.write(f"{writable}/step-{self.journal.step}")
            for path in sorted(pathlib.Path(temporary).iterdir(), key=_is_index):
                os.replace(path, self.folder / path.name)
        self._delete_all_but(self._steps()[-KEPT:])

    def _steps(self):
        """Returns the steps of the states, ascending."""
        matches = [re.fullmatch(r"step-(\d+)\.index", path.name) for path in self._paths()]
        return sorted(int(match[1]) for match in matches if match)

    def _paths(self):
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def _delete_all_but(self, steps):
        """Deletes all other states, indices first, and leftovers of interrupted saves."""
        for path in sorted(self._paths(), key=_is_index, reverse=True):
            match = re.match(r"step-(\d+)\.", path.name)
            if match and int(match[1]) not in steps:
                path.unlink(missing_ok=True)
            elif path.name.startswith(WRITING) or re.fullmatch(r"step-\d+_temp", path.name):
                shutil.rmtree(path, ignore_errors=True)


def _is_index(path):
    return path.suffix == ".index"
