"""Runs a command: its flags, its exit status, and what it says when it stops."""

import contextlib
import os
import signal
import sys
import traceback

from absl import flags, logging

from dfa_tf.commands import options
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.quiet import quiet_libraries

MENDABLE, FAILED = 2, 1


def launch(command):
    """Runs `command` with the arguments of this process, and ends the process."""
    sys.exit(run(command, sys.argv))


def run(command, argv):
    """Runs `command`, argv[0] being its name. Returns the exit status.

    0: done. 2: something the user can mend, told in one line. 128 + n: stopped by signal n.
    1: anything else, told in one line or by its traceback.
    """
    values = options.define(command)
    try:
        rest = _parse(values, argv)
        if values.help:
            print(options.usage(command, values))
            return 0
        if rest and command not in options.ARGUMENTS:
            raise UserError(f"there is no argument {rest[0]!r}: see --help")
        _stop_on_signals(command)
        if not values.debug:
            logging.set_verbosity(logging.ERROR)  # of TFDS, which warns of what is told better here
        if command in ("report", "reproduce"):
            from dfa_tf.commands import compare

            getattr(compare, command)(values, rest)
            return 0
        # What its libraries log as they start no setting of theirs can keep back.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        with contextlib.nullcontext() if values.debug else quiet_libraries():
            import tensorflow as tf

            from dfa_tf.commands import pipeline

            tf.config.list_physical_devices()

        pipeline.run(command, values, rest)
        return 0
    except UserError as error:
        _tell(command, error, values)
        return MENDABLE
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 128 + error.signum
    except Exception as error:
        if not getattr(error, "told", False):
            raise
        _tell(command, error, values)
        return FAILED


def _tell(command, error, values):
    if values.is_parsed() and values.debug:
        traceback.print_exception(error)
    said = str(error).removeprefix(f"{command}: ")
    print(f"{command}: {said}", file=sys.stderr)


def _parse(values, argv):
    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]}: see --help") from error


def _stop_on_signals(command):
    """Ends at once on SIGTERM and SIGINT; the training loop, where it runs, saves first."""
    stderr = os.dup(2)  # which stays, whatever `quiet_libraries` does with the other

    def stop(signum, frame):
        os.write(stderr, f"{command}: stopped; the same command goes on from here\n".encode())
        os._exit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
