"""Image files: the encoded bytes that TensorFlow can decode, and their sizes."""

import io
import pathlib

import tensorflow as tf
from PIL import ExifTags, Image, ImageOps

from dfa_tf.errors import UserError, first_line

_UNREADABLE = (OSError, Image.DecompressionBombError)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def read_image(path: pathlib.Path) -> tuple[bytes, tuple[int, int]]:
    """Reads an image file and checks that it can be decoded.

    Args:
        path: File in any format that Pillow reads, whatever its suffix. Only the first frame of an
            animation counts.

    Returns:
        PNG or JPEG bytes, and the image's (height, width). Other formats are converted to PNG. A
        photo that its camera marked as turned is turned upright.

    Raises:
        UserError: If the file cannot be read, is damaged, or is not an image.
    """
    _check_kind(path)
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format not in ("PNG", "JPEG"):
                image.seek(0)
                image_format = "JPEG" if image.format == "MPO" else "PNG"
                encoded = _encoded(image, image_format)
            elif _is_turned(image):
                encoded = _encoded(image, image.format)
        # Pinned to the CPU, because the caller may be in the scope of a strategy.
        with tf.device("CPU:0"):
            pixels = tf.io.decode_image(encoded, channels=3)
    except (*_UNREADABLE, ValueError, SyntaxError, tf.errors.InvalidArgumentError) as error:
        raise _damaged(path, error) from error
    return encoded, tuple(pixels.shape[:2])


def image_size(path: pathlib.Path) -> tuple[int, int]:
    """Returns an image's (height, width) from the header of its file.

    Raises:
        UserError: If the header is damaged, or the file is not an image.
    """
    _check_kind(path)
    try:
        with Image.open(path) as image:
            size = image.height, image.width
            is_swapped = _is_turned(image, sideways=True) and image.format != "TIFF"
            return size[::-1] if is_swapped else size  # Pillow itself turns TIFF
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _is_turned(image, sideways=False):
    """Returns whether the camera marked the photo as turned, or as turned by 90 degrees."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation in (range(5, 9) if sideways else range(2, 9))


def _encoded(image, image_format):
    """Returns an upright image of three channels of 8 bits as PNG or JPEG."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow's conversion would clip the values to 255
        image = image.point(lambda value: value / 256).convert("L")
    stream = io.BytesIO()
    quality = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    image.convert("RGB").save(stream, image_format, **quality)
    return stream.getvalue()


def _check_kind(path):
    if path.exists() and not path.is_file():  # a pipe, for instance, would block
        raise UserError(f"{path}: expected a file, got a folder, a pipe or a device; delete it")


def _damaged(path, error):
    return UserError(
        f"{path}: file is damaged or not an image ({first_line(error)}); replace or delete it"
    )
