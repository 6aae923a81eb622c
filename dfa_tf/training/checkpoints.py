"""Where a stage stands: variables and records, saved together, atomically."""

import json
import pathlib
import tempfile

import tensorflow as tf

from dfa_tf.errors import UserError, first_line


class Journal(tf.train.experimental.PythonState):
    """What a stage has recorded so far, a JSON-like dict that is saved with the variables."""

    def __init__(self, **records):
        self.records = {"step": 0, "seconds": 0.0, **records}

    def __getitem__(self, key):
        return self.records[key]

    def __setitem__(self, key, value):
        self.records[key] = value

    def add(self, key, amount):
        """Adds to a number that starts at 0."""
        self.records[key] = self.records.get(key, 0) + amount

    def serialize(self):
        return json.dumps(self.records)

    def deserialize(self, string_value):
        self.records = json.loads(string_value)


class Checkpoints:
    """The last two states of a stage.

    folder: where they lie. journal: a Journal. variables: tf.Variables by what they are for,
        {"network": [...], "optimizer": [...]}; all must exist already.
    chief: whether this process writes there. Every process must call `save`, since averaging
        variables over the replicas takes all of them; the others write into a passing folder.
    """

    def __init__(self, folder, journal, variables, chief=True):
        folder = pathlib.Path(folder)
        self.journal = journal
        self._checkpoint = tf.train.Checkpoint(journal=journal, **variables)
        self._variables = [v for some in variables.values() for v in some if v.dtype.is_floating]
        self._folder = folder
        self._chief = chief
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=2, checkpoint_name="step"
        )

    def restore(self):
        """Goes back to the last state saved that can be read. Returns whether there was one.

        Raises UserError where there are some, and none can be read.
        """
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_consumed()
                return True
            except Exception as error:  # of many kinds, by what is damaged and how
                reason = error
        if self._manager.checkpoints:
            raise UserError(
                f"no checkpoint in {self._folder} can be read ({first_line(reason)}): --fresh begins the stage anew"
            ) from reason
        return False

    @property
    def kept(self):
        """What is there to go on from, in words."""
        path = self._manager.latest_checkpoint
        step = path and path.rsplit("-", 1)[1]
        return f"the checkpoint of step {step} is kept" if path else "there is no checkpoint yet"

    def is_finite(self):
        """Whether no variable holds NaN or infinity."""
        return all(bool(tf.reduce_all(tf.math.is_finite(v))) for v in self._variables)

    def save(self):
        """Saves the present state. A kill at any moment leaves the one before."""
        if self._chief:
            self._manager.save(checkpoint_number=self.journal["step"])
        else:
            with tempfile.TemporaryDirectory() as passing:
                self._checkpoint.write(f"{passing}/step")
