"""Logits of teachers for batches that repeat (`distill.teacher_views`), remembered in a folder.

With k views, the sequence of batches of N examples in batches of B repeats after P = floor(k N / B)
steps: step s draws what step s mod P drew, with the same augmentation. The teachers run once for
each of these P batches. Their logits are rounded to float16 when they are computed, so that every
run receives the same numbers, however often it was interrupted and whoever filled the folder.

    logits.npy    float16 [P, B, teachers, classes]
    record.json   what the logits are of, how many steps are filled, and their checksum

Rows are appended, and the record counts only rows that are on the disk. A killed run resumes there.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.decoding import without_autotuning
from dfa_tf.data.part import Part
from dfa_tf.data.pipeline import repeated, replica_part
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods.objective import frozen_outputs
from dfa_tf.models.network import Network
from dfa_tf.progress import Progress
from dfa_tf.training.devices import Consensus, is_chief, worker_count
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.signals import stop_request
from dfa_tf.training.summation_order import fixed_summation_order

SETTING = "distill.teacher_views"
LOGITS, RECORD, FORMAT = "logits.npy", "record.json", 1
FILLED, CHECKSUM = "filled", "crc32"
CHUNK = 2**24  # bytes that are read at a time
HALF = np.dtype("<f2")
SECONDS_PER_RECORD = 10.0
WAIT_SECONDS = 60  # for a shared file system


def period_of(views: int, examples: int, batch_size: int, steps: int) -> int:
    """Returns the number of steps after which batches repeat; 0 if they do not within the run.

    Args:
        views: Number k of views of each example; 0 for no repetition.
        examples: Number of examples.
        batch_size: Examples in a batch.
        steps: Steps of the run.
    """
    period = views * examples // batch_size
    return period if period < steps else 0


@dataclasses.dataclass(frozen=True)
class RememberedLogits:
    """The logits of teachers for a sequence of batches that repeats.

    Attributes:
        folder: The folder of the files.
        period: Number P of steps after which the batches repeat.
        batch_size: Examples in a batch.
        teachers: Number of teachers.
        classes: Number of classes.
        identity: What the logits are of, as JSON values by setting. It is recorded, and compared
            when the folder is used again.
    """

    folder: pathlib.Path
    period: int
    batch_size: int
    teachers: int
    classes: int
    identity: Mapping[str, Any]

    def shared_in(self, folder: str | os.PathLike) -> "RememberedLogits":
        """Returns the same logits in a folder that runs share: in a subfolder for the identity."""
        text = json.dumps(self._described, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        return dataclasses.replace(self, folder=pathlib.Path(folder).expanduser() / name)

    def check(self, ignored: Sequence[str] = ()) -> None:
        """Checks that the folder, if it is there, has the logits of these teachers and batches.

        Args:
            ignored: Names in the identity that are not known yet.

        Raises:
            UserError: If it has others, or is damaged.
        """
        record = self._record()
        differences = [
            f"{name} was {record.get(name)!r}, is {value!r}"
            for name, value in self._described.items()
            if record and name not in ignored and record.get(name) != value
        ]
        if differences:
            raise UserError(
                f"{SETTING}: {self.folder} has other logits ({'; '.join(differences)}); choose "
                "another --workdir, delete the folder, or restart with distill --fresh"
            )
        filled = self.filled
        if not filled:
            return
        size, expected = self._logits.stat().st_size, self._offset(filled)
        if size < expected or (size > expected and filled == self.period):
            raise self._damaged(f"expected {expected} bytes, got {size}")
        if self._checksum(expected) != record.get(CHECKSUM):
            raise self._damaged("its content has changed")

    @property
    def filled(self) -> int:
        """Number of the steps whose logits are in the file."""
        filled = self._record().get(FILLED)
        is_valid = isinstance(filled, int) and 0 <= filled <= self.period
        return filled if is_valid and self._logits.exists() else 0

    def batches(self, first_step: int = 0, part: Part = Part()) -> tf.data.Dataset:
        """Returns the logits of the batches from `first_step` on, without end.

        Args:
            first_step: Step of the first batch.
            part: The part of each batch to read.

        Returns:
            A data set of float16 [B / part.count, teachers, classes].
        """
        rows, shape = part.rows(self.batch_size), (self.batch_size, self.teachers, self.classes)

        def logits(record):
            return tf.reshape(tf.io.decode_raw(record, tf.float16), shape)[rows]

        def sequence(first):
            records = tf.data.FixedLengthRecordDataset(
                str(self._logits), self._step_bytes, header_bytes=self._offset(first)
            )
            return without_autotuning(records.map(logits))

        return repeated(sequence, first_step, self.period).prefetch(4)

    def joined(
        self, batches: tf.data.Dataset, first_step: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Returns a data set of (images, labels, logits) for one of (images, labels)."""
        pairs = tf.data.Dataset.zip(batches, self.batches(first_step, part))
        return pairs.map(lambda batch, logits: (*batch, logits))

    def fill(
        self,
        teachers: Sequence[Network],
        batches: Callable[[int], tf.data.Dataset],
        mix: Callable | None,
        runtime: Runtime,
    ) -> None:
        """Computes and writes the logits that the file lacks. Other processes wait meanwhile.

        Args:
            teachers: The frozen teachers, built in the scope of the run's strategy.
            batches: A function of a step that returns this process's parts of the batches from that
                step on.
            mix: A function of (images, labels, step) that returns the images that the teachers
                receive, and the targets; None for the images as they are.
            runtime: Devices, logging and saving.

        Raises:
            Interrupted: On SIGTERM or SIGINT, after what is computed is written.
            UserError: If the folder has other logits or cannot be written, or a logit is outside the
                range of float16.
        """
        chief, consensus = is_chief(runtime.devices), Consensus(runtime.devices)
        if self._agreed_filled(consensus, chief) == self.period:
            return
        with self._locked() if chief else contextlib.nullcontext():
            first = self._agreed_filled(consensus, chief)
            computed = _logits_of(teachers, batches(first), first, mix, runtime.devices)
            quiet = runtime.quiet or not chief
            without_fresh = " without --fresh" if runtime.fresh else ""
            progress = Progress("teacher_views", first, self.period, self.batch_size, quiet)
            appending = self._appending(first) if chief else contextlib.nullcontext(_nothing)
            with contextlib.closing(progress), stop_request() as request, appending as append:
                for step in range(first, self.period):
                    started = time.monotonic()
                    append(_checked(next(computed)))
                    progress.update(step + 1, time.monotonic() - started, {})
                    if consensus([bool(request.signum)])[0]:
                        raise Interrupted(
                            f"{SETTING}: stopped and saved the logits of {step + 1} of "
                            f"{self.period} batches; run the same command{without_fresh} to continue",
                            request.signum or signal.SIGTERM,
                        )
        consensus([0])  # the chief has written the file
        self._wait_for_the_file()

    def _damaged(self, problem):
        return UserError(f"{self._logits}: {problem}; delete {self.folder} to compute it again")

    def _checksum(self, size: int) -> int:
        """Returns the checksum of the first `size` bytes of the file."""
        checksum = 0
        with open(self._logits, "rb") as file:
            for start in range(0, size, CHUNK):
                checksum = zlib.crc32(file.read(min(CHUNK, size - start)), checksum)
        return checksum

    def delete(self) -> None:
        """Deletes the folder."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _agreed_filled(self, consensus, chief):
        """Returns the number of filled steps that the chief finds, the same for all workers."""
        high, low = divmod(self.filled, 2**20)  # the consensus is in float32
        high, low = consensus([high * chief, low * chief])
        return round(high) * 2**20 + round(low)

    def _wait_for_the_file(self):
        """Waits until this process sees what the chief has written. File servers can be late."""
        for _ in range(WAIT_SECONDS):
            if self.filled == self.period:
                return
            time.sleep(1)
        raise UserError(
            f"{SETTING}: {self.folder} lacks the logits that the chief wrote; choose a folder on a "
            "file system that all workers share"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        files.output_folder(self.folder, "--workdir or runtime.views_folder")
        waiting = f"{self.folder}: another process computes the logits"
        with files.exclusive(self.folder, waiting):
            files.clear_unfinished(self.folder)
            self.check()
            yield

    @contextlib.contextmanager
    def _appending(self, first: int) -> Iterator[Callable[[np.ndarray], None]]:
        """Yields a function that appends the logits of a step to the file, from step `first` on."""
        if not first:
            self._write_record(0, 0)
            self._logits.write_bytes(self._header)
        step, recorded_at = first, time.monotonic()
        checksum = self._checksum(self._offset(first))

        def append(logits):
            nonlocal step, recorded_at, checksum
            row = logits.astype(HALF).tobytes()
            file.write(row)
            step, checksum = step + 1, zlib.crc32(row, checksum)
            if time.monotonic() - recorded_at > SECONDS_PER_RECORD:
                self._record_written(file, step, checksum)
                recorded_at = time.monotonic()

        with open(self._logits, "r+b") as file:
            file.truncate(self._offset(first))  # rows that are not in the record
            file.seek(0, os.SEEK_END)
            try:
                yield append
            finally:
                self._record_written(file, step, checksum)

    def _record_written(self, file: IO[bytes], step: int, checksum: int) -> None:
        file.flush()
        os.fsync(file.fileno())  # the record must not count rows that a power failure can take
        self._write_record(step, checksum)

    def _write_record(self, step, checksum):
        content = {**self._described, FILLED: step, CHECKSUM: checksum}
        files.write_json(self.folder / RECORD, content)

    def _record(self):
        return files.read_json(self.folder / RECORD)

    @property
    def _described(self):
        return {"format": FORMAT, **self.identity, "batches": self.period}

    @property
    def _logits(self):
        return self.folder / LOGITS

    @functools.cached_property
    def _header(self) -> bytes:
        """The bytes of the file before the first row."""
        shape = (self.period, self.batch_size, self.teachers, self.classes)
        header = io.BytesIO()
        content = {"descr": HALF.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, content)
        return header.getvalue()

    @property
    def _step_bytes(self):
        return self.batch_size * self.teachers * self.classes * HALF.itemsize

    def _offset(self, step):
        return len(self._header) + step * self._step_bytes


def _logits_of(teachers, batches, first, mix, strategy):
    """Yields the logits float16 [B, teachers, classes] of each batch, those of step `first` first."""
    processes = worker_count(strategy)

    def on_replica(step, *batch):
        images, labels = replica_part(batch, processes)
        if mix:
            images, _ = mix(images, labels, step)
        logits = [frozen_outputs(each, images, labels).logits for each in teachers]
        return tf.cast(tf.stack(logits, 1), tf.float16)

    @tf.function
    def compute(step, iterator):
        return strategy.gather(strategy.run(on_replica, (step, *next(iterator))), 0)

    iterator = iter(batches)
    for step in itertools.count(first):
        with fixed_summation_order():
            logits = compute(tf.constant(step, tf.int64), iterator).numpy()
        yield logits


def _checked(logits):
    """Returns the logits of a batch.

    Raises:
        UserError: If one of them is not finite in float16.
    """
    if np.isfinite(logits).all():
        return logits
    raise UserError(
        f"{SETTING}: expected logits of the teacher from -65504 to 65504, which float16 has, got "
        "others; bind 0"
    )


def _nothing(logits):
    """Ignores the logits. The chief writes them."""
