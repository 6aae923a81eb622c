"""Where gin files are found: as named, next to the file that includes them, among the shipped ones."""

import difflib
import pathlib
import re

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
    parts = path.parts[path.parts.index("gin") + 1 :] if "gin" in path.parts else path.parts
    shipped = shipped_folder().joinpath(*parts)
    if shipped.is_file():
        return shipped
    names = [f"gin/{p.relative_to(shipped_folder()).as_posix()}" for p in _shipped_files()]
    close = difflib.get_close_matches(str(path), names, n=3, cutoff=0.5) or names
    raise UserError(f"--gin_file: {path} does not exist; shipped configs: {', '.join(close)}")


def gin_file_exists(path: str) -> bool:
    """Returns whether `find_gin_file` finds a file."""
    try:
        find_gin_file(path)
    except UserError:
        return False
    return True


def included_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a gin file and all files that it includes, directly or not.

    A file is looked for in the working directory, next to the file that includes it, and among
    the shipped files.
    """
    text = path.read_text()
    found = [path]
    for name in re.findall(r"""^\s*include\s+["'](.+?)["']""", text, re.MULTILINE):
        beside = path.parent / name
        use_beside = beside.is_file() and not pathlib.Path(name).is_file()
        found += included_files(beside if use_beside else find_gin_file(name))
    return found


def _shipped_files():
    return sorted(shipped_folder().rglob("*.gin"))
