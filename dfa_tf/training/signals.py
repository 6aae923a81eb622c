"""Signals that ask a run to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """Whether the process was asked to stop.

    Attributes:
        signum: Number of the signal that arrived, or 0.
    """

    signum = 0


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Records the first stop signal within the block, instead of ending the process.

    A second signal has its usual effect. Signals that the process ignores, as SIGHUP after `nohup`,
    are still ignored.
    """
    request, previous = StopRequest(), {}

    def record(signum, frame):
        request.signum = signum
        restore()

    def restore():
        for each, handler in previous.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        caught = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        previous.update({each: signal.signal(each, record) for each in caught})
    try:
        yield request
    finally:
        restore()
