#!/usr/bin/env python3
"""Makes a folder of photos, to try docs/photos.md without photos of your own.

    python make_photos.py photos                              # crops of scikit-learn's two photos
    python make_photos.py photos --archive=cinic10.tar.gz     # CINIC-10's images, enlarged

The photos have different sizes and aspect ratios, as photos of a phone have.
"""

import argparse
import io
import pathlib
import random
import tarfile
import zlib

from PIL import Image

ASPECT_RATIOS = (16 / 9, 4 / 3, 1, 3 / 4, 9 / 16)
CROPS = {"train": 60, "test": 30}  # of each of scikit-learn's photos


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="folder to write")
    parser.add_argument("--archive", help="CINIC-10 or a part of it: SPLIT/CLASS/*.png in a tar")
    parser.add_argument(
        "--sides", type=int, nargs=2, default=(96, 160), help="short side, in pixels"
    )
    arguments = parser.parse_args()
    low, high = arguments.sides
    if not 0 < low <= high:
        parser.error(f"--sides: expected two numbers in ascending order, got {low} and {high}")
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; name a new folder")
    try:
        count = 0
        for name, photo in from_archive(arguments.archive) if arguments.archive else crops():
            path = arguments.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            reshaped(photo, name, arguments.sides).save(path.with_suffix(".jpg"), quality=90)
            count += 1
    except (OSError, tarfile.TarError) as error:
        parser.error(str(error))
    print(f"{count} photos in {arguments.folder}")


def from_archive(archive):
    """Yields (name, image) of each image in the archive."""
    with tarfile.open(archive) as opened:
        for member in opened:
            parts = pathlib.PurePosixPath(member.name).parts[-3:]  # SPLIT, CLASS and the file
            if member.isfile() and member.name.endswith(".png") and ".." not in parts:
                yield "/".join(parts), Image.open(io.BytesIO(opened.extractfile(member).read()))


def crops():
    """Yields (name, image) of random crops: on the left for training, on the right for testing."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images()
    for filename, pixels in zip(photos.filenames, photos.images, strict=True):
        label = pathlib.Path(filename).stem
        height, width = pixels.shape[:2]
        for split, count in CROPS.items():
            left, right = (0, width * 2 // 3) if split == "train" else (width * 2 // 3, width)
            for k in range(count):
                name = f"{split}/{label}/{k}"
                draw = random.Random(zlib.crc32(name.encode()))
                side = draw.randint(120, right - left)
                x, y = draw.randint(left, right - side), draw.randint(0, height - side)
                yield name, Image.fromarray(pixels[y : y + side, x : x + side])


def reshaped(photo, name, sides):
    """Returns a centred part of a photo, with a size and an aspect ratio that follow from its name."""
    draw = random.Random(zlib.crc32(name.encode()))
    ratio, short_side = draw.choice(ASPECT_RATIOS), draw.randint(*sides)
    width, height = photo.size
    width, height = min(width, height * ratio), min(height, width / ratio)
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    scale = short_side / min(width, height)
    return photo.convert("RGB").resize(
        (round(width * scale), round(height * scale)),
        Image.Resampling.BICUBIC,
        box=(left, top, left + width, top + height),
    )


if __name__ == "__main__":
    main()
