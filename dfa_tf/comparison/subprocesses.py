"""Commands of this package as processes that receive the signals of this one."""

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

import dfa_tf
from dfa_tf.errors import Interrupted

PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class CommandRunner:
    """Runs commands one after the other, and forwards signals to the one that runs.

    Use it as a context manager: it handles SIGTERM, SIGINT and SIGHUP within the block.

    Args:
        stopped_message: The message of Interrupted after a signal.
    """

    def __init__(self, stopped_message: str):
        self._stopped_message = stopped_message
        self._process: subprocess.Popen | None = None
        self._signum = 0
        self._handlers = {}

    def __enter__(self):
        self._handlers = {
            signum: signal.signal(signum, lambda signum, frame: self._forward(signum))
            for signum in SIGNALS
        }
        return self

    def __exit__(self, *_):
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def run(self, command: str, arguments: Sequence[str]) -> int:
        """Runs a command to its end.

        Args:
            command: Name of the command, such as "distill".
            arguments: Its flags.

        Returns:
            The exit status.

        Raises:
            Interrupted: If this process received a signal.
        """
        root = str(pathlib.Path(dfa_tf.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dfa_tf.commands", command, *arguments],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,  # the command's own summary
            start_new_session=True,  # Ctrl-C reaches the command once, through `_forward`
            preexec_fn=_terminate_with_parent,
        )
        if self._signum:  # it arrived before there was a process to forward it to
            self._forward(self._signum)
        status = self._process.wait()
        self._process = None
        self.check_stopped()
        return status

    def check_stopped(self) -> None:
        """Checks for a signal.

        Raises:
            Interrupted: If this process received one.
        """
        if self._signum:
            raise Interrupted(self._stopped_message, self._signum)

    def _forward(self, signum):
        self._signum = signum
        if self._process is not None:
            # The commands handle SIGTERM and SIGINT, but not SIGHUP.
            self._process.send_signal(signal.SIGTERM if signum == signal.SIGHUP else signum)


def _terminate_with_parent():
    """Asks Linux to send SIGTERM to this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
