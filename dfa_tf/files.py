"""Files that appear whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def replacing(path):
    """Yields a path beside `path` to write a file or folder at; it takes `path`'s place at the end.

    An exception, or the end of the process, leaves `path` as it was (a folder that is replaced may
    be missing after a kill, but never half there).
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        # The same name, since some writers go by the suffix.
        yield folder / path.name
        if path.is_dir():  # which no rename replaces: it moves out of the way first
            os.rename(path, folder / "before")
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path, text):
    """Writes a text file at once."""
    with replacing(path) as part:
        part.write_text(text)


def write_json(path, value):
    """Writes a JSON file at once, lists of numbers each on one line."""
    write_text(path, _json(value) + "\n")


def read_json(path):
    """What a JSON file says, {} where it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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


def clear_unfinished(folder):
    """Removes what a killed process left half written in `folder`."""
    for part in pathlib.Path(folder).glob(".writing-*"):
        shutil.rmtree(part, ignore_errors=True)
