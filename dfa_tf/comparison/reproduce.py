"""Runs the cells of an experiment, one process each, and skips those that are finished."""

import dataclasses
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence

from dfa_tf import files
from dfa_tf.alpha import Alpha, permuted
from dfa_tf.comparison import paper
from dfa_tf.comparison.cells import Cell, cells, flags
from dfa_tf.comparison.experiments import EXPERIMENTS
from dfa_tf.comparison.kept import keep
from dfa_tf.comparison.pairs import PAIRS, Pair
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.runs import read_run
from dfa_tf.comparison.subprocesses import CommandRunner
from dfa_tf.errors import ReportedError, UserError

POLL_SECONDS = 10
RECORD = "reproduce.json"
TEACHER = "teacher/model.keras"
VIEWS = "teacher_views"  # the logits that runs of one seed share


class CellsFailed(ReportedError):
    """Some cells ended with an error. The others are finished."""


@dataclasses.dataclass(frozen=True)
class CommonFlags:
    """Flags that all commands of a reproduction receive.

    Attributes:
        gin_files: Gin files, read after those of the cell.
        bindings: Gin bindings, applied after those of the cell.
        others: Further flags, such as --data_dir.
    """

    gin_files: Sequence[str] = ()
    bindings: Sequence[str] = ()
    others: Sequence[str] = ()


class Reproduction:
    """An experiment in one folder, which several processes or machines may share.

    Args:
        name: Name in `experiments.EXPERIMENTS`.
        scale: Name in `experiments.SCALES`.
        seeds: Seeds of each row.
        root: The folder.
        only: Names of the rows to run; all rows if empty.
        shard: (k, n): this process runs every n-th cell, starting with the k-th.
        common: Flags of all commands.
        results: Folder that keeps the small files of finished cells, and the teachers. Cells that
            it contains are finished. None for no such folder.

    Raises:
        UserError: If the experiment does not have a row of `only`, or does not have the scale.
    """

    def __init__(
        self,
        name: str,
        scale: str,
        seeds: Iterable[int],
        root: pathlib.Path,
        *,
        only: Sequence[str] = (),
        shard: tuple[int, int] = (1, 1),
        common: CommonFlags = CommonFlags(),
        results: pathlib.Path | None = None,
    ):
        self._experiment = EXPERIMENTS[name]
        self._cells = cells(name, scale, seeds, only)
        self._root, self._results, self._shard = pathlib.Path(root), results, shard
        self._common = common
        self._record = {
            "scale": scale,
            "files": list(common.gin_files),
            "bindings": list(common.bindings),
        }
        self._runner = CommandRunner("reproduce: stopped; run the same command to continue")

    def run(self) -> None:
        """Runs the cells that are not finished, and before them the teachers.

        Raises:
            UserError: If the user can fix what is wrong.
            Interrupted: After a signal.
            CellsFailed: If cells failed. It is raised after the last cell.
        """
        self._check_folder(self._root, "--workdir")
        if self._results:
            self._check_folder(self._results, "--results")
        k, n = self._shard
        shard = self._cells[k - 1 :: n]
        for cell in shard:  # finished, but killed before its results were kept
            if self._is_finished(cell) and not self._is_kept(cell):
                self._keep(cell.folder)
        remaining = [cell for cell in shard if not self._is_finished(cell)]
        _say(f"{len(shard) - len(remaining)} of {len(shard)} cells are already finished")
        if not remaining:
            return
        with self._runner:
            for pair, number in self._teachers(remaining):
                self._train_teacher(pair, number)
            for folder in filter(None, (self._root, self._results)):
                files.write_json(folder / RECORD, self._record)
            self._run_cells(remaining)

    def report(self) -> dict[str, Report]:
        """Returns a report for each pair, on the cells of all shards."""
        return {
            pair: Report(
                [self._run_of(cell) for cell in self._cells if cell.pair == pair],
                reference=paper.REFERENCES[PAIRS[pair].reference],
                row_order=tuple(row.title for row in self._experiment.rows),
                baselines=self._experiment.baseline_titles,
                searches_only=self._experiment.command == "search",
            )
            for pair in dict.fromkeys(cell.pair for cell in self._cells)
        }

    def _teachers(self, cells):
        """Returns (pair, number) of each teacher that cells need."""
        needed = {
            (PAIRS[cell.pair].teacher, number): (PAIRS[cell.pair], number)
            for cell in cells
            for number in range(1, cell.row.teachers + 1)
        }
        return list(needed.values())

    def _run_cells(self, remaining: Sequence[Cell]):
        failed, started = [], time.monotonic()
        for count, cell in enumerate(remaining):
            self._runner.check_stopped()
            seconds_per_cell = (time.monotonic() - started) / max(1, count)
            seconds_left = seconds_per_cell * (len(remaining) - count)
            time_left = f", about {_duration(seconds_left)} left" if count else ""
            _say(f"cell {count + 1} of {len(remaining)}: {cell.folder}{time_left}")
            try:
                arguments = self._arguments(cell)
            except UserError as error:  # the row that provides its alpha failed
                if not count:
                    raise
                _say(str(error))
                failed.append(cell.folder)
                continue
            status = self._run_command(self._experiment.command, cell.folder, arguments)
            if status == 2 and not count:  # the other cells would most likely fail as well
                raise UserError(f"{cell.folder} cannot be run; see the error above")
            if status:
                failed.append(cell.folder)
            else:
                self._keep(cell.folder)
        if failed:
            raise CellsFailed(
                f"{', '.join(failed)} failed; see the errors above, "
                "and run the same command to try again"
            )

    def _run_of(self, cell):
        folder = self._results if self._is_kept(cell) else self._root
        return dataclasses.replace(read_run(folder / cell.folder), row_title=cell.row.title)

    def _is_finished(self, cell):
        is_finished = (self._root / cell.folder / self._experiment.artifact).exists()
        return is_finished or self._is_kept(cell)

    def _is_kept(self, cell):
        if not self._results:
            return False
        return (self._results / cell.folder / self._experiment.command / "metrics.json").exists()

    def _arguments(self, cell):
        bindings = self._teacher_bindings(cell)
        if cell.row.alpha_of:
            bindings.append(f'distill.aggregation="{self._alpha_path(cell).resolve()}"')
        if cell.row.process_of:
            bindings.append(f'process.file="{self._process_path(cell).resolve()}"')
        bindings.append(f'runtime.views_folder="{(self._root / VIEWS).resolve()}"')
        return cell.arguments(self._experiment.command) + flags(
            self._common.gin_files, [*bindings, *self._common.bindings]
        )

    def _teacher_bindings(self, cell):
        count = cell.row.teachers
        paths = [self._teacher_path(PAIRS[cell.pair], k).resolve() for k in range(1, count + 1)]
        if count == 1:
            return ["teacher=@keras_file", f'keras_file.path="{paths[0]}"']
        names = [f"teacher{k}" for k in range(1, count + 1)]
        return [
            f"teacher=[{', '.join(f'@{name}/keras_file' for name in names)}]",
            *(f'{n}/keras_file.path="{path}"' for n, path in zip(names, paths, strict=True)),
        ]

    def _process_path(self, cell):
        """Returns the process of another row: that of its search, or of its learnt weights."""
        folder = f"{cell.pair}/{cell.row.process_of}_seed{cell.seed}"
        for stage in ("process", "distill"):
            path = self._find(f"{folder}/{stage}/process.json")
            if path:
                return path
        raise self._missing(cell, cell.row.process_of, f"{folder}/distill/process.json")

    def _find(self, name):
        """Returns the path of a file in the folder of the reproduction or of the results."""
        roots = [self._root, *([self._results] if self._results else [])]
        return next((root / name for root in roots if (root / name).exists()), None)

    def _missing(self, cell, row, name):
        return UserError(
            f"{cell.folder}: needs the result of {row}, but {self._root / name} is missing; run that "
            "row first"
        )

    def _alpha_path(self, cell):
        """Writes the alpha of a cell that uses the search of another row, and returns its path."""
        name = f"{cell.pair}/{cell.row.alpha_of}_seed{cell.seed}/search/alpha.json"
        path = self._find(name)
        if path is None:
            raise self._missing(cell, cell.row.alpha_of, name)
        alpha = Alpha.load(path)
        own_path = self._root / cell.folder / "alpha.json"
        (permuted(alpha, cell.seed) if cell.row.permuted else alpha).save(own_path)
        return own_path

    def _teacher_path(self, pair, number=1):
        return self._root / _teacher_folder(pair, number) / TEACHER

    def _train_teacher(self, pair: Pair, number: int = 1):
        """Trains a teacher of a pair. Other shards than the first wait for it.

        Teacher number k has the seed k - 1.
        """
        path, folder = self._teacher_path(pair, number), _teacher_folder(pair, number)
        if path.exists():
            return
        if self._results and (self._results / folder / TEACHER).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as part:
                shutil.copyfile(self._results / folder / TEACHER, part)
            return
        if self._shard[0] > 1:
            _say(f"waiting for shard 1 to train the teacher {path}")
            while not path.exists():
                time.sleep(POLL_SECONDS)
                self._runner.check_stopped()
            return
        _say(f"training the teacher of all cells: {folder}")
        bindings = [*self._common.bindings, *pair.teacher_bindings]
        arguments = flags([pair.teacher_config, *self._common.gin_files], bindings)
        arguments += [f"--seed={number - 1}"] if number > 1 else []
        status = self._run_command("train_teacher", folder, arguments)
        if status == 2:
            raise UserError("the teacher cannot be trained; see the error above")
        if status:
            raise CellsFailed("training the teacher failed; see the error above")
        self._keep(folder, TEACHER)

    def _keep(self, folder, *more):
        if self._results:
            keep(self._root, folder, self._results, *more)

    def _run_command(self, command, folder, arguments):
        workdir = f"--workdir={self._root / folder}"
        return self._runner.run(command, [*arguments, *self._common.others, workdir])

    def _check_folder(self, folder, flag):
        """Raises UserError if the folder has another config or is not writable."""
        record = files.read_json(folder / RECORD)
        differences = [
            f"{name}: {record.get(name)!r} before, {value!r} now"
            for name, value in self._record.items()
            if record and record.get(name, []) != value
        ]
        if differences:
            raise UserError(
                f"{folder}: contains cells of another config ({'; '.join(differences)}); "
                f"choose another {flag}"
            )
        files.output_folder(folder, flag)


def _teacher_folder(pair, number):
    return pair.teacher if number == 1 else f"{pair.teacher}_{number}"


def _say(line):
    print(f"reproduce: {line}", file=sys.stderr, flush=True)


def _duration(seconds):
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
