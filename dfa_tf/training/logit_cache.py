"""A disk cache of the teachers' logits, for batches that repeat (`distill.teacher_views`).

With k views, the sequence of batches of N examples in batches of B repeats after P = floor(k N / B)
steps: step s draws what step s mod P drew, with the same augmentation. The teachers run once for
each of these P batches. Their logits are rounded to float16 when they are computed, so that every
run receives the same numbers, however often it was interrupted, and no matter which run filled the
folder.

    logits.npy    float16 [P, B, teachers, classes]
    record.json   the teachers and batches of the logits, the number of filled steps, and a checksum

Rows are appended, and the record counts only rows that are on the disk. A killed run resumes there.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.decoding import without_autotuning
from dfa_tf.data.part import Part
from dfa_tf.data.pipeline import repeated
from dfa_tf.errors import UserError

SETTING = "distill.teacher_views"
LOGITS, RECORD, FORMAT = "logits.npy", "record.json", 1
FILLED, CHECKSUM = "filled", "crc32"
CHUNK = 2**24  # bytes that are read at a time
HALF = np.dtype("<f2")
SECONDS_PER_RECORD = 10.0


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
class LogitCache:
    """The logits of teachers for a sequence of batches that repeats, in a folder.

    Attributes:
        folder: The folder of the files.
        period: Number P of steps after which the batches repeat.
        batch_size: Examples in a batch.
        teachers: Number of teachers.
        classes: Number of classes.
        identity: The teachers and batches that the logits belong to, as JSON values by setting. It
            is recorded, and compared when the folder is used again.
    """

    folder: pathlib.Path
    period: int
    batch_size: int
    teachers: int
    classes: int
    identity: Mapping[str, Any]

    def shared_in(self, folder: str | os.PathLike) -> "LogitCache":
        """Returns the same logits in a folder that runs share: in a subfolder for the identity."""
        text = json.dumps(self._described, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        return dataclasses.replace(self, folder=pathlib.Path(folder).expanduser() / name)

    def check_identity(self, ignored: Sequence[str] = ()) -> None:
        """Checks that an existing folder is for these teachers and batches.

        Args:
            ignored: Settings of the identity that are not known yet and not compared.

        Raises:
            UserError: If it contains the logits of other teachers or batches.
        """
        record = self._record()
        differences = [
            f"{name} was {record.get(name)!r}, is {value!r}"
            for name, value in self._described.items()
            if record and name not in ignored and record.get(name) != value
        ]
        if differences:
            raise UserError(
                f"{SETTING}: {self.folder} contains other logits ({'; '.join(differences)}); choose "
                "another --workdir, delete the folder, or restart with distill --fresh"
            )

    def check_content(self) -> None:
        """Checks that the file has the logits that the record counts.

        Raises:
            UserError: If the file is damaged.
        """
        record = self._record()  # read once, because another process may be adding rows
        filled = self._filled_in(record)
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
        return self._filled_in(self._record())

    @property
    def is_complete(self) -> bool:
        """Whether the file has the logits of all batches."""
        return self.filled == self.period

    def _filled_in(self, record):
        filled = record.get(FILLED)
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

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder, locks it against other processes, and checks its content.

        Raises:
            UserError: If the folder contains other logits, is damaged or cannot be written.
        """
        files.output_folder(self.folder, "--workdir or runtime.views_folder")
        waiting = f"{self.folder}: another process computes the logits"
        with files.exclusive(self.folder, waiting):
            files.clear_unfinished(self.folder)
            self.check_identity()
            self.check_content()
            yield

    @contextlib.contextmanager
    def appending(self, first: int) -> Iterator[Callable[[np.ndarray], None]]:
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
