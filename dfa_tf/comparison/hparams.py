"""The runs of a report in TensorBoard's HParams tab."""

import contextlib
import os
import pathlib
import time
from collections.abc import Sequence

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from dfa_tf.comparison.bindings import shared_bindings
from dfa_tf.comparison.metrics import STUDENT_METRICS
from dfa_tf.comparison.runs import Run
from dfa_tf.files import replacing

EVENTS = "events.out.tfevents.report"  # name of the files
FORMAT = "brain.Event:2"  # the first event of a file names its format


def write_hparams(runs: Sequence[Run], folder: pathlib.Path) -> None:
    """Writes an event file for each run, in FOLDER/<name of the run>.

    The event files of an earlier report are deleted. Other files in the folder are kept.

    The hyperparameters are the method, the seed and the bindings that not all runs share. The
    metrics are those of the student, and the duration in seconds.

    Args:
        runs: Finished runs.
        folder: The folder, for `tensorboard --logdir`.
    """
    _delete_earlier(folder)
    shared = shared_bindings(run.bindings for run in runs)
    for name, run in _names(runs).items():
        differing = [pair for pair in run.bindings.items() if pair not in shared]
        hparams = {"method": run.method, "seed": run.student.seed}
        hparams |= {binding: _value(text) for binding, text in differing}
        values = {metric: getattr(run.student, metric) for metric in STUDENT_METRICS}
        values["seconds"] = run.seconds
        # Without the trial_id, runs with equal hyperparameters would share a row.
        summaries = [hparams_pb(hparams, trial_id=name)]
        summaries += [scalar_pb(tag, value) for tag, value in values.items() if value is not None]
        _write_events(folder / name, summaries, run.student.steps)


def _delete_earlier(folder):
    """Deletes the event files of an earlier report, and the folders that are then empty."""
    for file in sorted(folder.rglob(EVENTS)):
        file.unlink()
        with contextlib.suppress(OSError):  # other files are left
            file.parent.rmdir()


def _names(runs):
    """Returns {path below the folder that all runs have in common: run}."""
    paths = {run.path.resolve(): run for run in runs}
    root = os.path.commonpath([path.parent for path in paths])
    return {str(path.relative_to(root)): run for path, run in paths.items()}


def _value(text):
    """Returns the number that a gin value is, or else its text."""
    try:
        return float(text)
    except ValueError:
        return text


def _write_events(folder, summaries, step):
    """Writes an event file as `tf.summary` would, without the import of TensorFlow."""
    now = time.time()
    events = [Event(wall_time=now, file_version=FORMAT)]
    events += [Event(wall_time=now, step=step, summary=summary) for summary in summaries]
    folder.mkdir(parents=True, exist_ok=True)  # of a run within this one
    with replacing(folder / EVENTS) as part, open(part, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
