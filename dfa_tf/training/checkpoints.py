"""Checkpoints of a run: variables and journal, saved together and atomically."""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import tensorflow as tf

from dfa_tf.errors import UserError, first_line


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
        logged_step: The last step of the last log entry.
        path_weights: `[step, {path: weight}]` of each log entry, if the weights are not constant.
    """

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    window_steps: int = 0
    window_sums: dict = dataclasses.field(default_factory=dict)
    curve: list = dataclasses.field(default_factory=list)
    logged_step: int = 0
    path_weights: list = dataclasses.field(default_factory=list)

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


class Checkpoints:
    """Saves and restores the state of a run, and keeps the last two states.

    Args:
        folder: Folder of the files.
        journal: The journal of the run.
        variables: Variables by purpose, such as `{"network": [...], "optimizer": [...]}`.
        chief: Whether this process writes to `folder`. Every process must call `save`, because
            all of them take part in averaging variables over the replicas. The other processes
            write to a temporary folder.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        journal: Journal,
        variables: Mapping[str, Sequence[tf.Variable]],
        chief: bool = True,
    ):
        self.journal = journal
        self._checkpoint = tf.train.Checkpoint(journal=_SavedJournal(journal), **variables)
        self._variables = [v for group in variables.values() for v in group if v.dtype.is_floating]
        self._folder = pathlib.Path(folder)
        self._chief = chief
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=2, checkpoint_name="step"
        )

    def restore(self) -> bool:
        """Restores the latest readable state, and returns whether there was one.

        Raises:
            UserError: If there are checkpoints, but none can be read.
        """
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_consumed()
                return True
            except Exception as error:  # the type depends on what is damaged
                reason = error
        if self._manager.checkpoints:
            raise UserError(
                f"{self._folder}: no checkpoint can be read ({first_line(reason)}); "
                "restart the stage with --fresh"
            ) from reason
        return False

    @property
    def latest(self) -> str:
        """The latest checkpoint in words, for messages."""
        path = self._manager.latest_checkpoint
        if not path:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {path.rsplit('-', 1)[1]} is kept"

    def is_finite(self) -> bool:
        """Returns whether all floating-point variables are finite."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in self._variables)

    def save(self) -> None:
        """Saves the current state. If the process is killed meanwhile, the previous one remains."""
        if self._chief:
            self._manager.save(checkpoint_number=self.journal.step)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                self._checkpoint.write(f"{temporary}/step")
