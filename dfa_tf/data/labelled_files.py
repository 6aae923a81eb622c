"""Image files by split and class: what is found in a folder, an archive or a table of images."""

import dataclasses
import hashlib
import os
import pathlib

from dfa_tf.data.image_files import SUFFIXES
from dfa_tf.errors import UserError

SPLITS = {  # split: accepted names, in any case
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
TEST_FRACTION = 0.2  # where a data set has no test split, and none is bound

Files = list[tuple[pathlib.Path, int]]  # paths and labels


@dataclasses.dataclass(frozen=True)
class LabelledFiles:
    """Image files by split and class.

    Args:
        root: The folder that the files are named relative to.
        classes: Class names, by label.
        files: Maps "train", "test" and, if present, "validation" to a list of (path, label).
        notes: What the user should know about the splits, each a line.
    """

    root: pathlib.Path
    classes: tuple[str, ...]
    files: dict[str, Files]
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Eight hexadecimal digits that change when a file is added, moved, removed or written.

        Raises:
            UserError: If a file is a link to a missing one.
        """
        digest = hashlib.sha256(str(self.root.resolve()).encode())
        for split, files in self.files.items():
            for path, label in files:
                status = _status(path)
                times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
                name = f"{split} {self.classes[label]} {self.name(path)}"
                text = f"{name} {status.st_size} {times}\n"
                digest.update(text.encode(errors="surrogateescape"))
        return digest.hexdigest()[:8]

    def name(self, path: pathlib.Path) -> str:
        """Returns the path of a file relative to the root."""
        return os.path.relpath(path, self.root)


def with_test_split(found: LabelledFiles, test_fraction: float | None) -> LabelledFiles:
    """Returns the files with a test split.

    - If there is one, nothing changes.
    - Otherwise, an official validation split is the test split, as ImageNet is used.
    - Otherwise, a share of each class of the training images becomes the test split. The choice
      follows from digests of the files' names, so it is the same in each run, and a new file
      changes at most one other file's split.

    Args:
        found: The files. Only "train" must be present.
        test_fraction: The share of the images that is split off; None for the default, 0.2.

    Raises:
        UserError: If the share is given but not needed, or a class has a single image.
    """
    files = dict(found.files)
    if "test" in files or "validation" in files:
        if test_fraction is not None:
            raise UserError(
                f"dataset.test_fraction: expected None, because {found.root} has a split for testing; "
                "remove the binding"
            )
        if "test" in files:
            return found
        files["test"] = files.pop("validation")
        note = (
            f"{found.root}: the validation images are the test images, because there are no others"
        )
        return dataclasses.replace(found, files=files, notes=(*found.notes, note))
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    held_out: set[pathlib.Path] = set()
    for label, name in enumerate(found.classes):
        paths = [path for path, file_label in files["train"] if file_label == label]
        if len(paths) < 2:
            raise UserError(
                f"{found.root}: expected at least 2 images of {name!r}, one of them for testing, got "
                f"{len(paths)}; add images"
            )
        count = min(max(1, round(fraction * len(paths))), len(paths) - 1)
        held_out.update(sorted(paths, key=lambda path: _digest(found.name(path)))[:count])
    split = {
        "train": [each for each in files["train"] if each[0] not in held_out],
        "test": [each for each in files["train"] if each[0] in held_out],
    }
    note = (
        f"{found.root}: {len(held_out):,} of {len(files['train']):,} images are test images, the same "
        "share of each class (dataset.test_fraction)"
    )
    return dataclasses.replace(found, files=split, notes=(*found.notes, note))


def _status(path):
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: expected a file, got a link to a missing one; delete it"
        ) from error


def _digest(name):
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def check_classes(classes: tuple[str, ...], where: pathlib.Path) -> None:
    """Checks the names of the classes.

    Args:
        classes: The names.
        where: The folder or file that they come from.

    Raises:
        UserError: If there are fewer than two, or a name could not be stored.
    """
    for name in classes:
        # TFDS stores the names as stripped lines, so that others would shift the labels.
        if not name.isprintable() or name != name.strip() or not name:
            raise UserError(
                f"{where}: expected class names of printable characters without spaces at their "
                f"ends, got {name!r}; rename it"
            )
    if len(classes) < 2:
        raise UserError(f"{where}: expected at least 2 classes, got {len(classes)}; add one")


def check_suffix(path: pathlib.Path, where: str = "") -> None:
    """Checks that a file has the suffix of an image.

    Args:
        path: The file.
        where: Where it is named, for the message.

    Raises:
        UserError: If it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{where}{path}: expected an image ({', '.join(SUFFIXES)}); delete or convert the file"
        )
