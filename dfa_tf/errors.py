"""What a user can mend, and being asked to stop."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what, where, and how to mend it.

    A command prints it and exits with status 2.
    """


class Interrupted(Exception):
    """A run was told to stop (SIGTERM, SIGINT) and has saved where it was.

    signum: the signal's number. A command exits with status 128 + signum.
    """

    def __init__(self, message, signum):
        super().__init__(message)
        self.signum = signum


def first_line(error):
    """The first line of what an exception says, at most 200 characters; its type where it is mute."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
