"""Files that are written atomically: readers see the complete file or none."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from dfa_tf.errors import UserError, first_line

LOCK = ".lock"
WRITING = ".writing-"  # prefix of the folders of unfinished files


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Replaces a file or folder when the `with` block ends without an exception.

    After an error or a kill, `path` is as before. A kill while a folder is replaced can leave `path`
    missing, but never incomplete.

    Args:
        path: File or folder to write. Its parent folders are created if they are missing.

    Yields:
        A temporary path with the same name, to write to.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=WRITING, dir=path.parent))
    try:
        # The name stays the same because some writers choose the format by suffix.
        yield folder / path.name
        if path.is_dir():  # os.replace cannot replace a folder with contents
            os.rename(path, folder / "before")
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def exclusive(folder: pathlib.Path, waiting: str) -> Iterator[None]:
    """Lets one process at a time work in a folder. Others wait.

    Args:
        folder: The folder, which is created if it is missing.
        waiting: What to print while this process waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / LOCK, waiting):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def lock_file(path: pathlib.Path, waiting: str = "") -> IO[str]:
    """Opens a file and locks it against other processes, as long as it is open.

    Args:
        path: The file, which is created if it is missing. The holder deletes it before it closes it.
        waiting: What to print while this process waits for another one; empty to fail instead.

    Raises:
        BlockingIOError: If another process has locked the file, and `waiting` is empty.
        OSError: If the file cannot be opened.
    """
    while True:
        lock = open(path, "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                lock.close()
                raise
            print(f"{waiting}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return lock  # a file system without locks
        # The previous holder may have deleted the file since `open`.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def output_folder(folder: pathlib.Path, flag: str) -> None:
    """Creates a folder for results, and checks that files can be written to it.

    Args:
        folder: The folder.
        flag: The flag that names it, for the error message.

    Raises:
        UserError: If it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: not writable ({error.strerror}); choose another {flag}"
        ) from error


def check_writable(folder: pathlib.Path, setting: str) -> None:
    """Checks that a folder can be written or created, and writes nothing.

    Args:
        folder: The folder.
        setting: The setting that names it, for the error message.

    Raises:
        UserError: If it cannot.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{setting}: expected a folder that can be written, got {folder}")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, with each list of numbers on one line.

    Raises:
        ValueError: If a number is not finite.
    """
    write_text(path, _json(value) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or {} if the file is missing, damaged or not an object."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def load_json(path: pathlib.Path, file_format: int, advice: str) -> dict[str, Any]:
    """Returns the object in a JSON file that the user names.

    Args:
        path: The file.
        file_format: The value that the key "format" must have.
        advice: What to do if the file cannot be used, for error messages.

    Raises:
        UserError: If the file is missing, is not a JSON object or has another format.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({first_line(error)}); {advice}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected the layout of a JSON object, got a list or a value; {advice}"
        )
    found = content.get("format")
    if found != file_format:
        raise UserError(f"{path}: expected format {file_format}, got {found!r}; {advice}")
    return content


def clear_unfinished(folder: str | os.PathLike) -> None:
    """Deletes the temporary files that a killed process left in `folder`."""
    for temporary in pathlib.Path(folder).glob(f"{WRITING}*"):
        shutil.rmtree(temporary, ignore_errors=True)


def _json(value, indent=""):
    flat = json.dumps(value, allow_nan=False)
    if len(flat) + len(indent) <= 100 or not isinstance(value, dict | list):
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {_json(v, deeper)}" for k, v in value.items()]
    elif all(isinstance(v, int | float) for v in value):
        return flat
    else:
        items = [_json(v, deeper) for v in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"


@contextlib.contextmanager
def without_patterns(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path of `folder` that TensorFlow does not treat as a pattern."""
    if not set("*?[]{}\\") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        link = pathlib.Path(temporary) / "folder"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
