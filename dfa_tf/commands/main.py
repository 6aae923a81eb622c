"""Runs a command: its flags, its exit status, and what it prints when it stops."""

import contextlib
import errno
import fcntl
import io
import os
import re
import signal
import sys
import traceback

from absl import flags, logging

from dfa_tf.commands import options
from dfa_tf.errors import Interrupted, ReportedError, UserError
from dfa_tf.quiet import quiet_libraries
from dfa_tf.training.signals import stop_signals

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def launch(command: str, argv: list[str] | None = None) -> None:
    """Runs `command` and ends the process.

    Args:
        command: Name of the command.
        argv: Its name and arguments; by default those of this process.
    """
    _open_standard_streams()
    sys.exit(run(command, argv or sys.argv))


def run(command: str, argv: list[str]) -> int:
    """Runs a command.

    Args:
        command: Name of the command.
        argv: Its name and arguments.

    Returns:
        The exit status: 0 for success; the `status` of a `ReportedError`, which is printed in one
        line; 128 + n after signal n, also SIGPIPE.
    """
    values = options.define(command)
    try:
        arguments = _parse(values, argv)
        if values.help:
            print(options.usage(command, values), flush=True)
            return 0
        if arguments and command not in options.ARGUMENTS:
            raise UserError(f"expected no arguments, got {arguments[0]!r}; see --help")
        _end_on_signals(command, values.is_parsed() and "fresh" in values and values.fresh)
        if not values.debug:
            logging.set_verbosity(logging.ERROR)  # TFDS warns about what is reported here
        _run(command, values, arguments)
        sys.stdout.flush()
        return 0
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.status
    except ReportedError as error:
        _report(command, error, values)
        return error.status
    except BrokenPipeError:  # the reader of our output has ended, as in `report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:
        if message := _raised_in_graph(error):
            _report(command, UserError(message), values)
            return UserError.status
        problem = _disk_problem(error)
        if not problem:
            raise
        _report(command, UserError(f"{problem}; run the same command to continue"), values)
        return UserError.status


def _open_standard_streams():
    """Opens what the caller closed, so that no other file gets the number of a stream.

    Standard error becomes a stream whose failures are ignored: a full disk or a closed terminal
    must not end a run.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if not _is_open(number, mode):
            null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.dup2(null, number)
            setattr(sys, name, open(number, mode, closefd=False))
    raw = open(2, "wb", closefd=False)
    sys.stderr = _Lossy(raw, errors="backslashreplace", line_buffering=True)


def _is_open(number, mode):
    """Returns whether a stream can be used. A launcher's own file can have the number."""
    try:
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    return access in (os.O_RDWR, os.O_RDONLY if mode == "r" else os.O_WRONLY)


class _Lossy(io.TextIOWrapper):
    """A text stream that drops what cannot be written."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _raised_in_graph(error):
    """Returns the message of a `UserError` that Python code in TensorFlow's graph has raised."""
    found = re.search(rf"\b{UserError.__name__}: (.*)", str(error))
    return found[1] if found else ""


def _disk_problem(error):
    """Returns the problem if a file could not be written, and otherwise an empty text.

    TensorFlow, HDF5 and other libraries have exceptions of their own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            name = f"{error.filename}: " if error.filename else ""
            return f"{name}{error.strerror}"
        for number in DISK_ERRORS:
            if os.strerror(number) in str(error):
                return f"a file cannot be written: {os.strerror(number)}"
        error = error.__cause__ or error.__context__
    return ""


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
        pipeline = Pipeline(command, setup)
        getattr(pipeline, "describe" if values.describe else command)()


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


def _end_on_signals(command, fresh):
    """Ends the process at once on a stop signal. The training loop saves first."""
    stderr = os.dup(2)  # which `quiet_libraries` does not redirect
    advice = "run the same command to continue"
    if fresh:
        advice = "run the same command to start again, or without --fresh to continue"
    message = f"{command}: stopped; {advice}\n".encode()

    def end(signum, frame):
        with contextlib.suppress(OSError):
            os.write(stderr, message)
        os._exit(128 + signum)

    for signum in stop_signals():
        signal.signal(signum, end)
