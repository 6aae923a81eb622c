"""Folders of images by class, or by split and class: found and checked."""

import os
import pathlib

from dfa_tf.data.archives import unpack
from dfa_tf.data.labelled_files import (
    SPLIT_OF,
    Files,
    LabelledFiles,
    check_classes,
    check_suffix,
)
from dfa_tf.errors import UserError

LAYOUT = "expected CLASS/IMAGE, or train, valid and test with CLASS/IMAGE in each"


def class_folders(source: str | os.PathLike, scratch: str | os.PathLike) -> LabelledFiles:
    """Lists the images of a folder or an archive by split and class.

    Args:
        source: A folder, or an archive of one. It has a folder of images for each class, either
            directly or in each of its folders train, valid and test, of which train is required.
            The images of a class may be in a subfolder called images. Hidden files and folders are
            ignored.
        scratch: Folder to unpack an archive to, see `unpack`.

    Returns:
        The files that were found, sorted by path within each class. Without folders for splits,
        all are in the split "train".

    Raises:
        UserError: If `source` does not exist, a split or class folder is missing or unexpected, a
            class is empty, or a file does not have the suffix of an image.
    """
    source = pathlib.Path(source).expanduser()
    if not source.exists():
        raise UserError(f"{source}: folder or archive does not exist; check the path")
    root = _data_root(source if source.is_dir() else unpack(source, pathlib.Path(scratch)))
    folders = _split_folders(root)
    classes = tuple(folder.name for folder in _subfolders(folders["train"]))
    check_classes(classes, folders["train"])
    return LabelledFiles(
        root, classes, {split: _labelled(folder, classes) for split, folder in folders.items()}
    )


def _data_root(folder):
    """Returns the folder that holds the splits or classes: `folder`, or the only folder in it.

    Archives often have one top-level folder.
    """
    inner = _subfolders(folder)
    return inner[0] if len(inner) == 1 and not _split_of(inner[0]) else folder


def _split_of(folder):
    return SPLIT_OF.get(folder.name.lower())


def _split_folders(root):
    """Returns `{split: folder}`: `root` itself is the training split if it has no folders for splits."""
    folders = {}
    subfolders = _subfolders(root)
    if not any(map(_split_of, subfolders)):
        return {"train": root}
    for folder in subfolders:
        split = _split_of(folder)
        if split is None:
            raise UserError(f"{folder}: unexpected folder; {LAYOUT}")
        if split in folders:
            raise UserError(
                f"{folder}: same split as {folders[split]}; merge or delete one of them"
            )
        folders[split] = folder
    if "train" not in folders:
        raise UserError(f"{root / 'train'}: folder is missing; {LAYOUT}")
    if len(folders) == 1:
        raise UserError(
            f"{root / 'test'}: folder is missing; to split the images of train, name the data set "
            f"'folder:{folders['train']}'"
        )
    return folders


def _labelled(folder, classes) -> Files:
    """Returns [(path, label)] of one split's images."""
    names = {subfolder.name for subfolder in _subfolders(folder)}
    for name in sorted(names ^ set(classes)):
        problem = "unexpected folder" if name in names else "folder is missing"
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise UserError(f"{folder / name}: {problem}; the classes of train are {known}")
    labelled = []
    for label, name in enumerate(classes):
        paths = _images(folder / name)
        for path in paths:
            if path.is_dir():
                raise UserError(f"{path}: unexpected folder; {LAYOUT}")
            check_suffix(path)
        if not paths:
            raise UserError(f"{folder / name}: folder has no images; add at least one")
        labelled += [(path, label) for path in paths]
    return labelled


def _images(folder):
    """Returns the paths of a class folder, or of its subfolder images."""
    if (folder / "images").is_dir():
        folder /= "images"
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.name[0] != ".")


def _subfolders(path):
    """Returns the subfolders, except hidden ones and those that macOS adds to archives."""
    found = (each for each in path.iterdir() if each.is_dir())
    return sorted(each for each in found if each.name[0] != "." and each.name != "__MACOSX")
