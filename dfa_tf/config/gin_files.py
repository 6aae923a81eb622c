"""Where gin files are found: as named, next to the file that includes them, among the shipped ones."""

import contextlib
import difflib
import pathlib
from collections.abc import Iterator
from typing import IO

from gin.config_parser import ConfigParser, ImportStatement, IncludeStatement, ParserDelegate

from dfa_tf.errors import UserError


def shipped_folder() -> pathlib.Path:
    """Returns the folder of the shipped gin files: inside the installed package, or beside it."""
    package = pathlib.Path(__file__).parent.parent
    inside = package / "gin_files"
    return inside if inside.is_dir() else package.parent / "gin"


def find_gin_file(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the gin file that `path` names, as it is or among the shipped ones.

    Raises:
        UserError: If there is no such file.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return path
    if path.exists():
        raise UserError(f"--gin_file: expected a file, got the folder or device {path}")
    parts = path.parts[path.parts.index("gin") + 1 :] if "gin" in path.parts else path.parts
    shipped = shipped_folder().joinpath(*parts)
    if shipped.is_file():
        return shipped
    names = [f"gin/{p.relative_to(shipped_folder()).as_posix()}" for p in _shipped_files()]
    close = difflib.get_close_matches(str(path), names, n=3, cutoff=0.5) or names
    raise UserError(f"--gin_file: {path} does not exist; shipped configs: {', '.join(close)}")


class Reader:
    """Opens the files that gin parses: the same ones that `included_files` returns."""

    def __init__(self) -> None:
        self._including: list[pathlib.Path] = []

    def exists(self, name: str) -> bool:
        """Returns whether `open` finds a file."""
        try:
            self._find(name)
        except UserError:
            return False
        return True

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[str]]:
        """Opens a file. Those that are opened within the block are included by it."""
        path = self._find(name)
        self._including.append(path)
        try:
            with open(path) as file:
                yield file
        finally:
            self._including.pop()

    def _find(self, name):
        return find_included(name, self._including[-1]) if self._including else find_gin_file(name)


def included_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a gin file and all files that it includes, directly or not.

    A file is looked for in the working directory, next to the file that includes it, and among
    the shipped files.

    Raises:
        UserError: If a file cannot be read, includes itself, or has imports.
    """
    return _included(path, ())


def check_statements(text: str, source: str) -> list[str]:
    """Returns the names of the files that a config includes.

    Args:
        text: The config.
        source: Its name, for the error message.

    Raises:
        UserError: If it has an import. Gin would run the code of any module, and with dynamic
            registration any function, while it reads the config.
    """
    includes = []
    for statement in ConfigParser(text, _Ignoring()):
        if isinstance(statement, ImportStatement):
            raise UserError(
                f"{source}: expected no imports, got {statement.module!r} in line "
                f"{statement.location.line_num}; remove it (SECURITY.md)"
            )
        if isinstance(statement, IncludeStatement):
            includes.append(statement.filename)
    return includes


class _Ignoring(ParserDelegate):
    """Builds nothing from the values of a config."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return None

    def macro(self, macro_name):
        return None


def _included(path, including):
    if path in including:
        raise UserError(f"{path}: the file includes itself; remove the include")
    found = [path]
    for name in check_statements(read_text(path), str(path)):
        found += _included(find_included(name, path), (*including, path))
    return found


def find_included(name: str, path: pathlib.Path) -> pathlib.Path:
    """Returns the file that the gin file `path` includes by a name.

    Raises:
        UserError: If there is no such file.
    """
    beside = path.parent / name
    if beside.is_file() and not pathlib.Path(name).is_file():
        return beside
    try:
        return find_gin_file(name)
    except UserError as error:
        raise UserError(f"{path}: include {name!r}: {str(error).partition(': ')[2]}") from error


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a gin file.

    Raises:
        UserError: If it cannot be read, or is not text.
    """
    try:
        return path.read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: expected a text file, got other bytes") from error


def _shipped_files():
    return sorted(shipped_folder().rglob("*.gin"))
