"""Signals that ask a run to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator


def stop_signals() -> list[signal.Signals]:
    """Returns the signals that stop a run. SIGHUP does not if it is ignored, as after `nohup`."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * (not ignores_hangup)


class StopRequest:
    """Whether the process was asked to stop.

    Attributes:
        signum: Number of the signal that arrived, or 0.
    """

    signum = 0


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Records the first stop signal within the block, instead of ending the process.

    A second signal has its usual effect.
    """
    request, previous = StopRequest(), {}

    def record(signum, frame):
        request.signum = signum
        restore()

    def restore():
        for each, handler in previous.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        previous.update({each: signal.signal(each, record) for each in stop_signals()})
    try:
        yield request
    finally:
        restore()
