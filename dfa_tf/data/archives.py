"""Archives of images, unpacked once."""

import errno
import hashlib
import os
import pathlib
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO

from dfa_tf import files
from dfa_tf.errors import UserError, first_line
from dfa_tf.progress import with_progress

MEGABYTE = 1e6
SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def unpack(archive: pathlib.Path, scratch: pathlib.Path) -> pathlib.Path:
    """Unpacks an archive into a subfolder of `scratch`, or reuses an earlier copy.

    The subfolder's name depends on the archive's path, size and modification time, so a changed
    archive is unpacked again. If another process unpacks an archive there, this one waits for it.

    Args:
        archive: A .zip file, or a .tar file with or without compression (.tar.gz, .tgz and so on).
        scratch: Folder of unpacked archives. It is created if it is missing.

    Returns:
        The folder with the contents of the archive.

    Raises:
        UserError: If the file does not have the suffix of an archive, is damaged, has links or has
            members outside its own folder, or if `scratch` cannot be written.
    """
    if not archive.name.lower().endswith(SUFFIXES):
        raise UserError(f"{archive}: expected a folder or an archive ({', '.join(SUFFIXES)})")
    status = archive.stat()
    state = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    suffix = hashlib.sha256(state.encode()).hexdigest()[:8]
    target = scratch / f"{archive.name.split('.')[0]}_{suffix}"
    if target.is_dir():
        return target
    try:
        with files.exclusive(scratch, f"another process unpacks an archive in {scratch}"):
            for leftover in scratch.glob("part_*"):  # of killed processes
                shutil.rmtree(leftover, ignore_errors=True)
            if not target.is_dir():
                print(f"Unpacking {archive} to {target}", file=sys.stderr)
                partial = scratch / f"part_{target.name}"
                try:
                    _extract(archive, partial)
                    os.replace(partial, target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except UserError:
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise _damaged(archive, error) from error
        raise UserError(
            f"{scratch}: cannot be written ({error.strerror}); set another folder with --data_dir"
        ) from error
    except Exception as error:
        raise _damaged(archive, error) from error
    return target


def _damaged(archive, error):
    return UserError(
        f"{archive}: cannot be unpacked ({first_line(error)}); the file is truncated or not an "
        "archive"
    )


def _extract(archive, folder):
    """Writes all files of an archive below `folder`. Nothing but names and contents is used."""
    folder.mkdir()
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    size = archive.stat().st_size / MEGABYTE
    for name, content, _ in with_progress(
        f"unpacking {archive.name}", members(archive), int(size), lambda member: member[2], "MB"
    ):
        relative = pathlib.PurePosixPath(os.path.normpath(name))
        if relative.is_absolute() or ".." in relative.parts:
            raise UserError(f"{archive}: its member {name!r} is outside of the archive's folder")
        path = folder / relative
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            shutil.copyfileobj(content, file)


def _zip_members(archive) -> Iterator[tuple[str, IO[bytes] | None, float]]:
    """Yields (name, content, size in the archive in MB), with content None for a folder."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if member.is_dir():
                yield member.filename, None, 0.0
            else:
                with opened.open(member) as content:
                    yield member.filename, content, member.compress_size / MEGABYTE


def _tar_members(archive) -> Iterator[tuple[str, IO[bytes] | None, float]]:
    """Yields (name, content, MB read since the last member), with content None for a folder."""
    position = 0
    with open(archive, "rb") as file, tarfile.open(fileobj=file) as opened:
        for member in opened:
            read, position = file.tell() - position, file.tell()
            if not (member.isfile() or member.isdir()):
                raise UserError(
                    f"{archive}: its member {member.name!r} is a link or a device; unpack the "
                    "archive yourself and name the folder"
                )
            content = opened.extractfile(member) if member.isfile() else None
            yield member.name, content, read / MEGABYTE
