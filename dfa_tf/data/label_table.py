"""A table of images: a CSV file with the path, the label and the split of each."""

import csv
import os
import pathlib

from dfa_tf.data.labelled_files import (
    SPLIT_OF,
    SPLITS,
    LabelledFiles,
    check_classes,
    check_suffix,
)
from dfa_tf.errors import UserError, first_line

SUFFIX = ".csv"
REQUIRED = ("path", "label")


def label_table(source: str | os.PathLike) -> LabelledFiles:
    """Lists the images of a CSV file by split and class.

    Args:
        source: The file, in UTF-8. Its first line names the columns: path, relative to the file's
            folder; label, the name of the class; and optionally split: train, valid or test.
            Other columns are ignored.

    Returns:
        The files in the order of the table. Without a column split, all are in the split "train".
        Labels that are all integers are in numerical order, others in alphabetical order.

    Raises:
        UserError: If a column, a value or an image is missing or wrong. The message has the line.
    """
    source = pathlib.Path(source).expanduser()
    rows = _rows(source)
    seen: dict[pathlib.Path, int] = {}
    entries = [_checked_entry(source, line, row, seen) for line, row in rows]
    names = {label for _, label, _ in entries}
    is_numeric = all(name.isdecimal() for name in names)
    classes = tuple(sorted(names, key=int if is_numeric else str))
    check_classes(classes, source)
    labels = {name: label for label, name in enumerate(classes)}
    files = {
        split: [(path, labels[name]) for path, name, in_split in entries if in_split == split]
        for split in SPLITS
    }
    for name in classes:
        if not any(label == labels[name] for _, label in files["train"]):
            raise UserError(f"{source}: the label {name!r} has no images for training; add rows")
    return LabelledFiles(source.parent, classes, {k: v for k, v in files.items() if v})


def _rows(source):
    """Returns [(number of its line, row as a dict)]."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for column in REQUIRED:
                if column not in columns:
                    raise UserError(
                        f"{source}: line 1: expected the columns path, label and optionally split, "
                        f"got {', '.join(columns) or 'none'}"
                    )
            return [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{source}: not a CSV file in UTF-8 ({first_line(error)}); save the table again"
        ) from error


def _checked_entry(source, line, row, seen):
    """Returns (path, label, split) of a row."""
    where = f"{source}: line {line}"
    if None in row or None in row.values():
        raise UserError(f"{where}: expected as many values as line 1 has columns; add quotes")
    for column in REQUIRED:
        if not row[column].strip():
            raise UserError(f"{where}: the {column} is empty")
    name = row.get("split", "train").strip()
    split = SPLIT_OF.get(name.lower())
    if split is None:
        raise UserError(f"{where}: expected the split train, valid or test, got {name!r}")
    path = pathlib.Path(os.path.abspath(source.parent / row["path"].strip()))
    if not path.is_file():
        raise UserError(f"{where}: {path} is not a file; paths are relative to {source.parent}")
    if path in seen:
        raise UserError(f"{where}: {path} is in line {seen[path]}, too; delete one of them")
    seen[path] = line
    check_suffix(path, f"{where}: ")
    return path, row["label"].strip(), split
