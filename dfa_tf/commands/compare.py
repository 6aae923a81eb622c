"""`bin/report` and `bin/reproduce`, which do not import TensorFlow."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from dfa_tf.commands.options import default_workdir
from dfa_tf.comparison.cells import parse_shard
from dfa_tf.comparison.experiments import EXPERIMENTS
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.reproduce import CellsFailed, CommonFlags, Reproduction
from dfa_tf.comparison.runs import find_runs
from dfa_tf.errors import UserError


def report(values: flags.FlagValues, paths: Sequence[str]) -> None:
    """Prints the tables of several workdirs, and writes the report to --out.

    Args:
        values: The flags.
        paths: Workdirs, or folders that contain them; by default that of the flags.

    Raises:
        UserError: If no distillation is finished, or --out is not writable.
    """
    result = Report(find_runs(paths or [default_workdir(values)]))
    print(result.text())
    if not result.finished:
        raise UserError("no finished distillation found; name workdirs that contain one")
    if values.out:
        _write(result, pathlib.Path(values.out))


def reproduce(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Runs the cells of an experiment, prints their tables and writes the reports.

    Args:
        values: The flags.
        arguments: The name of the experiment.

    Raises:
        UserError: If the user can fix what is wrong.
        CellsFailed: If cells failed. The tables of the others are printed and written.
        Interrupted: After a signal.
    """
    if len(arguments) != 1 or arguments[0] not in EXPERIMENTS:
        raise UserError(
            f"expected one experiment of {', '.join(EXPERIMENTS)}, got "
            f"{' '.join(arguments) or 'none'}; for example: reproduce table2 --seeds=1"
        )
    (name,) = arguments
    root = pathlib.Path(values.workdir or f"runs/reproduce_{values.scale}")
    others = [f"--strategy={values.strategy}"]
    others += [f"--data_dir={values.data_dir}"] if values.data_dir else []
    reproduction = Reproduction(
        name,
        values.scale,
        range(values.seed, values.seed + values.seeds),
        root,
        only=values.only,
        shard=parse_shard(values.shard),
        common=CommonFlags(values.gin_file or (), values.gin_bindings or (), others),
        results=pathlib.Path(values.results) if values.results else None,
    )
    failure = None
    try:
        reproduction.run()
    except CellsFailed as error:
        failure = error
    for pair, result in reproduction.report().items():
        print(result.text())
        if result.finished or result.searches:
            _write(result, root / f"{name}_{pair}")
    if failure:
        raise failure


def _write(result, folder):
    try:
        result.write(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: not writable ({error.strerror}); choose another --out or --workdir"
        ) from error
    print(f"written to {folder}", file=sys.stderr)
