"""Archives of images, unpacked once."""

import hashlib
import os
import pathlib
import shutil
import sys
import tempfile

from dfa_tf.errors import UserError, first_line


def unpack(archive: pathlib.Path, scratch: pathlib.Path) -> pathlib.Path:
    """Unpacks an archive into a subfolder of `scratch`, or reuses an earlier copy.

    The subfolder's name depends on the archive's path, size and modification time, so a changed
    archive is unpacked again.

    Args:
        archive: A .tar, .tar.gz, .zip or other archive that `shutil` can unpack.
        scratch: Folder of unpacked archives. It is created if it is missing.

    Returns:
        The folder with the contents of the archive.

    Raises:
        UserError: If the archive is damaged or has members outside its own folder, or if `scratch`
            cannot be written.
    """
    status = archive.stat()
    state = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    suffix = hashlib.sha256(state.encode()).hexdigest()[:8]
    target = scratch / f"{archive.name.split('.')[0]}_{suffix}"
    if target.is_dir():
        return target
    print(f"Unpacking {archive} to {target}", file=sys.stderr)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(dir=scratch, prefix="part_")
    except OSError as error:
        raise UserError(
            f"{scratch}: cannot be written ({error.strerror}); set another folder with --data_dir"
        ) from error
    try:
        if archive.suffix.lower() == ".zip":
            shutil.unpack_archive(archive, partial, "zip")
        else:
            shutil.unpack_archive(archive, partial, filter="data")
        os.replace(partial, target)
    except Exception as error:
        raise UserError(
            f"{archive}: cannot be unpacked ({first_line(error)}); the file is truncated or not an archive"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
