"""Runs a command: its flags, its exit status, and what it prints when it stops."""

import contextlib
import os
import signal
import sys
import traceback

from absl import flags, logging

from dfa_tf.commands import options
from dfa_tf.errors import Interrupted, ReportedError, UserError
from dfa_tf.quiet import quiet_libraries

USAGE_ERROR, FAILED = 2, 1


def launch(command: str) -> None:
    """Runs `command` with the arguments of this process, and ends the process."""
    sys.exit(run(command, sys.argv))


def run(command: str, argv: list[str]) -> int:
    """Runs a command.

    Args:
        command: Name of the command.
        argv: Its name and arguments.

    Returns:
        The exit status: 0 for success; 2 for an error that the user can fix, reported in one
        line; 128 + n after signal n; 1 for anything else.
    """
    values = options.define(command)
    try:
        arguments = _parse(values, argv)
        if values.help:
            print(options.usage(command, values))
            return 0
        if arguments and command not in options.ARGUMENTS:
            raise UserError(f"expected no arguments, got {arguments[0]!r}; see --help")
        _end_on_signals(command)
        if not values.debug:
            logging.set_verbosity(logging.ERROR)  # TFDS warns about what is reported here
        _run(command, values, arguments)
        return 0
    except UserError as error:
        _report(command, error, values)
        return USAGE_ERROR
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 128 + error.signum
    except ReportedError as error:
        _report(command, error, values)
        return FAILED


def _run(command, values, arguments):
    if command in ("report", "reproduce"):  # which do not need TensorFlow
        from dfa_tf.commands import compare

        getattr(compare, command)(values, arguments)
        return
    # Libraries log while they start, before any setting of theirs applies.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with contextlib.nullcontext() if values.debug else quiet_libraries():
        import tensorflow as tf

        from dfa_tf.commands import benchmark, evaluate
        from dfa_tf.commands.pipeline import Pipeline
        from dfa_tf.commands.setup import Setup

        tf.config.list_physical_devices()

    setup = Setup(values)
    if command == "evaluate":
        evaluate.run(setup, arguments)
    elif command == "benchmark":
        benchmark.run(setup)
    else:
        getattr(Pipeline(command, setup), command)()


def _report(command, error, values):
    if values.is_parsed() and values.debug:
        traceback.print_exception(error)
    message = str(error).removeprefix(f"{command}: ")
    print(f"{command}: {message}", file=sys.stderr)


def _parse(values, argv):
    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}; see --help") from error


def _end_on_signals(command):
    """Ends the process at once on SIGTERM and SIGINT. The training loop saves first."""
    stderr = os.dup(2)  # which `quiet_libraries` does not redirect

    def end(signum, frame):
        os.write(stderr, f"{command}: stopped; run the same command to continue\n".encode())
        os._exit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)
