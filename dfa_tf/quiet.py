"""Libraries that write to stderr, whatever they are told."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def quiet_libraries():
    """Keeps back what is written to stderr within; should it fail, all of it is shown."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(stderr, log.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
