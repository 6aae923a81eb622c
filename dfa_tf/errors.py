"""The errors that commands report in one line."""


class ReportedError(Exception):
    """An error whose message is complete: commands print it without a traceback.

    Attributes:
        status: Exit status of the command.
    """

    status = 1


class UserError(ReportedError):
    """An error that the user can fix.

    The message is one line: what was expected, what was given, and what to do.
    """

    status = 2


class WorkerLost(ReportedError):
    """Another process of the cluster has died. The last checkpoint is kept."""

    status = 75  # EX_TEMPFAIL of sysexits.h: try again


class Interrupted(ReportedError):
    """A run received a stop signal and saved its state.

    Args:
        message: The line to print.
        signum: Number of the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.status = 128 + signum


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, at most 200 characters.

    An exception without a message is described by its type.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
