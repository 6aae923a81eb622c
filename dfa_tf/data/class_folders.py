"""Folders of images by split and class, SPLIT/CLASS/image.png: found and checked."""

import dataclasses
import hashlib
import os
import pathlib

from dfa_tf.data.archives import unpack
from dfa_tf.data.image_files import SUFFIXES
from dfa_tf.errors import UserError

SPLITS = {  # split: accepted names of its folder
    "train": ("train",),
    "validation": ("valid", "val", "validation"),
    "test": ("test",),
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


@dataclasses.dataclass(frozen=True)
class ClassFolders:
    """The image files of a folder, by split and class.

    Args:
        root: The folder that holds the splits.
        classes: Class names, sorted.
        files: Maps "train", "test" and, if present, "validation" to a list of (path, label),
            sorted by path within each class.
    """

    root: pathlib.Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[pathlib.Path, int]]]

    @property
    def state(self) -> str:
        """Eight hexadecimal digits that change when a file is added, removed or written."""
        digest = hashlib.sha256(str(self.root.resolve()).encode())
        for files in self.files.values():
            for path, _ in files:
                status = path.stat()
                times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
                digest.update(f"{path.relative_to(self.root)} {status.st_size} {times}\n".encode())
        return digest.hexdigest()[:8]


def class_folders(source: str | os.PathLike, scratch: str | os.PathLike) -> ClassFolders:
    """Lists the images of a folder or an archive by split and class.

    Args:
        source: A folder with train/CLASS, test/CLASS and optionally valid/CLASS folders of images,
            or an archive of one. Hidden files and folders are ignored.
        scratch: Folder to unpack an archive to, see `unpack`.

    Returns:
        The files that were found.

    Raises:
        UserError: If `source` does not exist, a split or class folder is missing or unexpected, a
            class is empty, or a file does not have the suffix of an image.
    """
    if not str(source):
        raise UserError("dataset.name: expected 'folder:PATH', got 'folder:'; add the path")
    source = pathlib.Path(source).expanduser()
    if not source.exists():
        raise UserError(f"{source}: folder or archive does not exist; check the path")
    root = _splits_root(source if source.is_dir() else unpack(source, pathlib.Path(scratch)))
    folders = _split_folders(root)
    classes = tuple(folder.name for folder in _subfolders(folders["train"]))
    for name in classes:
        # TFDS stores the names as stripped lines, so that others would shift the labels.
        if not name.isprintable() or name != name.strip():
            raise UserError(
                f"{folders['train']}: expected class names of printable characters without spaces "
                f"at their ends, got the folder {name!r}; rename it"
            )
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']}: expected at least 2 class folders, got {len(classes)}; add one folder per class"
        )
    return ClassFolders(
        root, classes, {split: _labelled(folder, classes) for split, folder in folders.items()}
    )


def _splits_root(folder):
    """Returns the folder that holds the splits: `folder`, or the only folder in it.

    Archives often have one top-level folder.
    """
    inner = _subfolders(folder)
    return inner[0] if len(inner) == 1 and inner[0].name not in _SPLIT_OF else folder


def _split_folders(root):
    folders = {}
    for folder in _subfolders(root):
        split = _SPLIT_OF.get(folder.name)
        if split is None:
            raise UserError(
                f"{folder}: unexpected folder; expected train, test and optionally valid"
            )
        if split in folders:
            raise UserError(
                f"{folder}: same split as {folders[split]}; merge or delete one of them"
            )
        folders[split] = folder
    for split in ("train", "test"):
        if split not in folders:
            raise UserError(f"{root / split}: folder is missing; expected images in {split}/CLASS/")
    return folders


def _labelled(folder, classes):
    """Returns [(path, label)] of one split's images."""
    names = {subfolder.name for subfolder in _subfolders(folder)}
    for name in sorted(names ^ set(classes)):
        problem = "unexpected folder" if name in names else "folder is missing"
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise UserError(f"{folder / name}: {problem}; the classes of train are {known}")
    labelled = []
    for label, name in enumerate(classes):
        with os.scandir(folder / name) as entries:
            paths = sorted(folder / name / entry.name for entry in entries if entry.name[0] != ".")
        for path in paths:
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(
                    f"{path}: expected an image ({', '.join(SUFFIXES)}); delete or convert the file"
                )
        if not paths:
            raise UserError(f"{folder / name}: folder has no images; add at least one")
        labelled += [(path, label) for path in paths]
    return labelled


def _subfolders(path):
    """Returns the subfolders, except hidden ones and those that macOS adds to archives."""
    found = (each for each in path.iterdir() if each.is_dir())
    return sorted(each for each in found if each.name[0] != "." and each.name != "__MACOSX")
