"""`bin/report` and `bin/reproduce`: they start runs and read what runs left, without TensorFlow."""

import pathlib
import sys

from dfa_tf.commands.options import default_workdir
from dfa_tf.comparison import runs
from dfa_tf.comparison.cells import EXPERIMENTS, shard_of
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.reproduce import CellsFailed, Reproduction
from dfa_tf.errors import UserError


def report(values, paths):
    """A table of the workdirs, and --out."""
    told = Report(runs.found(paths or [default_workdir(values)]))
    print(told.text())
    if not told.finished:
        raise UserError("none of these holds a finished distillation")
    if values.out:
        _write(told, pathlib.Path(values.out))


def reproduce(values, arguments):
    """Runs the cells of an experiment and reports them."""
    if len(arguments) != 1 or arguments[0] not in EXPERIMENTS:
        raise UserError(f"name one of {', '.join(EXPERIMENTS)}: reproduce table2 --scale=cpu")
    (name,) = arguments
    root = pathlib.Path(values.workdir or f"runs/reproduce_{values.scale}")
    passed_on = [f"--strategy={values.strategy}"]
    passed_on += [f"--data_dir={values.data_dir}"] if values.data_dir else []
    reproduction = Reproduction(
        name,
        values.scale,
        range(values.seed, values.seed + values.seeds),
        root,
        only=values.only,
        shard=shard_of(values.shard),
        gin_files=values.gin_file or (),
        bindings=values.gin_bindings or (),
        passed_on=passed_on,
    )
    failure = None
    try:
        reproduction.run()
    except CellsFailed as error:
        failure = error
    for pair, told in reproduction.report().items():
        print(told.text())
        if told.finished or told.searches:
            _write(told, root / f"{name}_{pair}")
    if failure:
        raise failure


def _write(told, folder):
    try:
        told.write(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another") from error
    print(f"written to {folder}", file=sys.stderr)
