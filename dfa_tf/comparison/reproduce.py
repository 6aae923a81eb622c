"""Runs the cells of an experiment, one process each, and goes on where it was."""

import ctypes
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import dfa_tf
from dfa_tf import files
from dfa_tf.comparison import paper, runs
from dfa_tf.comparison.cells import EXPERIMENTS, PAIRS, cells, flags
from dfa_tf.comparison.report import Report
from dfa_tf.errors import Interrupted, UserError

WAIT_SECONDS = 10
RECORD = "reproduce.json"
PR_SET_PDEATHSIG = 1


class CellsFailed(Exception):
    """Some cells ended with an error; the others are there."""

    told = True


class Reproduction:
    """An experiment in one folder, which several processes or machines may share.

    name: of `cells.EXPERIMENTS`. scale: of `cells.SCALES`. seeds: of each cell. root: the folder.
    only: rows, or all. shard: (k, n), this process takes each n-th cell from the k-th on.
    gin_files, bindings: further ones for teachers and all cells. passed_on: further flags for each
    command (--data_dir, ...).
    """

    def __init__(
        self,
        name,
        scale,
        seeds,
        root,
        *,
        only=(),
        shard=(1, 1),
        gin_files=(),
        bindings=(),
        passed_on=(),
    ):
        self._experiment = EXPERIMENTS[name]
        self._cells = cells(name, scale, seeds, only)
        self._root, self._shard = pathlib.Path(root), shard
        self._gin_files, self._bindings = list(gin_files), list(bindings)
        self._passed_on = list(passed_on)
        self._record = {"scale": scale, "files": self._gin_files, "bindings": self._bindings}
        self._child, self._asked = None, 0

    def run(self):
        """Makes what is missing.

        Raises UserError for what the user can mend, Interrupted after a signal, and CellsFailed,
        at the end, where cells could not be made.
        """
        self._check_record()
        k, n = self._shard
        own = self._cells[k - 1 :: n]
        left = [cell for cell in own if not self._is_done(cell)]
        self._say(f"{len(own) - len(left)} of {len(own)} cells are done already")
        failed, began = [], time.monotonic()
        with _forwarding(self):
            if left:
                for pair in {PAIRS[cell.pair].teacher: cell.pair for cell in left}.values():
                    self._teacher(PAIRS[pair])
                files.write_json(self._root / RECORD, self._record)
            for count, cell in enumerate(left):
                self._check_asked()
                spent = time.monotonic() - began
                more = (
                    f", about {_duration(spent / count * (len(left) - count))} left"
                    if count
                    else ""
                )
                self._say(f"cell {count + 1} of {len(left)}: {cell.folder}{more}")
                status = self._call(self._experiment.command, cell.folder, self._arguments(cell))
                if status == 2 and not count:  # what ails the first cell likely ails all
                    raise UserError(f"{cell.folder} cannot be run: see the line above")
                if status:
                    failed.append(cell.folder)
        if failed:
            raise CellsFailed(
                f"see above what ailed {', '.join(failed)}; the same command tries again"
            )

    def report(self):
        """{pair: Report} of what is there by now, of all shards."""
        return {
            pair: Report(
                [
                    dataclasses.replace(runs.read(self._root / c.folder), row=c.row.title)
                    for c in self._cells
                    if c.pair == pair
                ],
                paper.REFERENCES[PAIRS[pair].paper],
                tuple(row.title for row in self._experiment.rows),
                self._experiment.command == "search",
            )
            for pair in dict.fromkeys(cell.pair for cell in self._cells)
        }

    def _is_done(self, cell):
        return (self._root / cell.folder / self._experiment.artifact).exists()

    def _arguments(self, cell):
        path = self._teacher_path(PAIRS[cell.pair]).resolve()
        teacher = ["teacher=@keras_file", f'keras_file.path="{path}"']
        return cell.arguments(self._experiment.command) + flags(
            self._gin_files, [*teacher, *self._bindings]
        )

    def _teacher_path(self, pair):
        return self._root / pair.teacher / "teacher/model.keras"

    def _teacher(self, pair):
        """The teacher that a pair's cells share: the first shard trains it, others wait for it."""
        path = self._teacher_path(pair)
        if path.exists():
            return
        if self._shard[0] > 1:
            self._say(f"waiting until shard 1 has trained the teacher, {path}")
            while not path.exists():
                time.sleep(WAIT_SECONDS)
                self._check_asked()
            return
        self._say(f"the teacher, once for all cells: {pair.teacher}")
        bindings = [*self._bindings, *pair.teacher_bindings]
        arguments = flags([pair.teacher_config, *self._gin_files], bindings)
        status = self._call("train_teacher", pair.teacher, arguments)
        if status == 2:
            raise UserError("the teacher cannot be trained: see the line above")
        if status:
            raise CellsFailed("the teacher's training failed: see above")

    def _call(self, command, folder, arguments):
        """Runs a command to its end. Returns its exit status; raises Interrupted after a signal."""
        where = str(pathlib.Path(dfa_tf.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-m", "dfa_tf.commands", command),
                *arguments,
                *self._passed_on,
                f"--workdir={self._root / folder}",
            ],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,  # the cell's own summary
            start_new_session=True,  # so that Ctrl-C reaches it once, through `stop`
            preexec_fn=_end_with_parent,
        )
        if self._asked:  # before there was a process to pass it on to
            self.stop(self._asked)
        status = self._child.wait()
        self._child = None
        self._check_asked()
        return status

    def stop(self, signum):
        """Notes a signal, and passes it on to the command that runs, if one does."""
        self._asked = signum
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM if signum == signal.SIGHUP else signum)

    def _check_asked(self):
        if self._asked:
            raise Interrupted(
                "reproduce: stopped; the same command goes on from there", self._asked
            )

    def _check_record(self):
        """Raises UserError where the folder has cells of other bindings, or cannot be written."""
        before = files.read_json(self._root / RECORD)
        differing = [n for n in self._record if before and before.get(n, []) != self._record[n]]
        if differing:
            told = "; ".join(
                f"{n} was {before.get(n)!r}, is {self._record[n]!r}" for n in differing
            )
            raise UserError(
                f"{self._root} was made with another config ({told}): choose another --workdir"
            )
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self._root} cannot be written ({error.strerror}): choose another --workdir"
            ) from error

    def _say(self, line):
        print(f"reproduce: {line}", file=sys.stderr, flush=True)


def _end_with_parent():
    """Has Linux stop this process, as by SIGTERM, should its parent be killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class _forwarding:
    """Within it, signals to stop go to the command that runs."""

    def __init__(self, reproduction):
        self._reproduction = reproduction

    def __enter__(self):
        def forward(signum, frame):
            self._reproduction.stop(signum)

        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._before = {each: signal.signal(each, forward) for each in signals}

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def _duration(seconds):
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
