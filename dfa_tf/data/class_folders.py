"""Images that lie in folders, SPLIT/CLASS/image.png, in an archive or unpacked: found and checked."""

import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import sys
import tempfile

import tensorflow as tf
from PIL import Image

from dfa_tf.errors import UserError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
SPLITS = {  # name of the part: what its folder may be called
    "train": ("train",),
    "validation": ("valid", "val", "validation"),
    "test": ("test",),
}


@dataclasses.dataclass(frozen=True)
class ClassFolders:
    """What lies in a folder of images.

    root: the folder that holds the splits. classes: their names, sorted. files: {split: [(path,
    place of its class)]}, sorted by path; "train", "test" and perhaps "validation".
    """

    root: pathlib.Path
    classes: tuple
    files: dict

    @property
    def state(self):
        """Eight letters that change when a file comes, goes or is written to."""
        digest = hashlib.sha256(str(self.root.resolve()).encode())
        for files in self.files.values():
            for path, _ in files:
                about = path.stat()
                times = f"{about.st_mtime_ns} {about.st_ctime_ns}"
                digest.update(f"{path.relative_to(self.root)} {about.st_size} {times}\n".encode())
        return digest.hexdigest()[:8]


def class_folders(source, scratch):
    """The ClassFolders at `source`.

    source: a folder with train/CLASS, test/CLASS and perhaps valid/CLASS folders of images, or an
        archive (.tar, .tar.gz, .zip, ...) of one. scratch: the folder to unpack an archive in, once.
    Raises UserError, naming the place, where there is no such thing: no folder of that name, a
    split or a class that is missing or unexpected, a class without images, a file that is none.
    """
    if not str(source):
        raise UserError("no folder of images is named: dataset.name='folder:/path/to/it'")
    source = pathlib.Path(source).expanduser()
    if not source.exists():
        raise UserError(f"there is no folder or archive {source}")
    root = _root(source if source.is_dir() else _unpacked(source, pathlib.Path(scratch)))
    known = {name: split for split, names in SPLITS.items() for name in names}
    folders = {}
    for folder in _folders(root):
        if folder.name not in known:
            raise UserError(
                f"unexpected folder {folder}: beside train and test there is valid, no other"
            )
        if known[folder.name] in folders:
            raise UserError(f"{folder} and {folders[known[folder.name]]} are the same split twice")
        folders[known[folder.name]] = folder
    for split in ("train", "test"):
        if split not in folders:
            raise UserError(f"{root} has no folder {split}: it holds train/CLASS/*.png and so on")
    classes = tuple(folder.name for folder in _folders(folders["train"]))
    if len(classes) < 2:
        raise UserError(f"{folders['train']} holds {len(classes)} folders: it needs one a class")
    return ClassFolders(
        root, classes, {split: _files(folder, classes) for split, folder in folders.items()}
    )


def encoded_image(path):
    """(PNG or JPEG bytes, (height, width)) of an image; of an animation its first picture.

    Raises UserError, naming it, for one that is missing, damaged or of no known format.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format not in ("PNG", "JPEG"):  # whatever its suffix says
                image.seek(0)
                recoded = io.BytesIO()
                image.convert("RGB").save(recoded, "PNG")
                encoded = recoded.getvalue()
        # On the CPU, as it may be called where devices are shared out.
        with tf.device("CPU:0"):
            pixels = tf.io.decode_image(encoded, channels=3)
    except (OSError, ValueError, SyntaxError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{path} is damaged, or no image ({first_line(error)})") from error
    return encoded, tuple(pixels.shape[:2])


def _files(folder, classes):
    found = []
    names = [each.name for each in _folders(folder)]
    for odd in sorted(set(names) ^ set(classes)):
        what = "unexpected folder" if odd in names else "missing folder"
        raise UserError(f"{what} {folder / odd}: the classes are {_some(classes)}")
    for place, name in enumerate(classes):
        with os.scandir(folder / name) as entries:
            paths = sorted(folder / name / entry.name for entry in entries if entry.name[0] != ".")
        for path in paths:
            if path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{path} is no image: a class holds {', '.join(SUFFIXES)} alone")
        if not paths:
            raise UserError(f"{folder / name} holds no image")
        found += [(path, place) for path in paths]
    return found


def _folders(path):
    """Those in it, but for hidden ones and what macOS packs with an archive."""
    found = (each for each in path.iterdir() if each.is_dir())
    return sorted(each for each in found if each.name[0] != "." and each.name != "__MACOSX")


def _root(folder):
    """The folder itself, or the only one within, as archives often have it."""
    inner = _folders(folder)
    known = {name for names in SPLITS.values() for name in names}
    return inner[0] if len(inner) == 1 and inner[0].name not in known else folder


def _some(names):
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _unpacked(archive, scratch):
    """The folder that an archive was unpacked to, now or before."""
    about = archive.stat()
    state = f"{archive.resolve()} {about.st_size} {about.st_mtime_ns}"
    mark = hashlib.sha256(state.encode()).hexdigest()[:8]
    target = scratch / f"{archive.name.split('.')[0]}_{mark}"
    if target.is_dir():
        return target
    print(f"unpacking {archive} to {target}", file=sys.stderr)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        part = tempfile.mkdtemp(dir=scratch, prefix="part_")
    except OSError as error:
        raise UserError(
            f"{scratch} cannot be written ({error.strerror}): name another folder with --data_dir"
        ) from error
    try:
        kind = {"format": "zip"} if archive.suffix.lower() == ".zip" else {"filter": "data"}
        shutil.unpack_archive(archive, part, **kind)
        os.replace(part, target)
    except Exception as error:
        raise UserError(
            f"{archive} cannot be unpacked ({first_line(error)}): it is cut short, or no archive"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
