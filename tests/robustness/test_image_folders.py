"""Folders of images with generated names, formats, modes and sizes."""

import pathlib
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dfa_tf import data
from dfa_tf.errors import UserError
from tests.robustness.conftest import examples

LETTERS = string.ascii_letters + string.digits + " ._-+%'\"$[]{}*?äß漢字\n\t\\"
names = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))
images = st.tuples(
    names,
    st.sampled_from([".png", ".jpg", ".JPEG", ".bmp", ".gif", ".webp", ".txt", ""]),
    st.sampled_from(["RGB", "L", "P", "RGBA", "1", "CMYK", "broken", "empty", "cut"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
FORMATS = {".jpg": "JPEG", ".JPEG": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}


def _draw(path: pathlib.Path, suffix, mode, size):
    if mode in ("broken", "empty"):
        path.write_bytes(b"\x89PNG\r\n\x1a\nxxxx" if mode == "broken" else b"")
        return
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (*size, 3), np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if mode == "cut" else mode)
    kind = FORMATS.get(suffix, "PNG")
    if image.mode == "CMYK" or (kind != "PNG" and image.mode not in ("RGB", "L")):
        image = image.convert("RGB")
    image.save(path, kind)
    if mode == "cut":
        path.write_bytes(path.read_bytes()[:-15])


@pytest.mark.slow
@examples(60)
@given(
    classes=st.lists(
        st.tuples(names, st.lists(images, min_size=1, max_size=3)), min_size=1, max_size=3
    ),
    same_size=st.booleans(),
)
def test_folder_is_read_or_refused_in_one_line(tmp_path_factory, classes, same_size):
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "test"):
        for name, files in classes:
            (root / "set" / split / name).mkdir(parents=True, exist_ok=True)
            for file, suffix, mode, size in files:
                path = root / "set" / split / name / f"{file}{suffix}"
                _draw(path, suffix, mode, (4, 4) if same_size else size)
    try:
        dataset = data.load(f"folder:{root / 'set'}", root / "data", image_size=(4, 4))
    except UserError as error:
        message = str(error)
    else:
        message = "read"
        assert dataset.image_shape == (4, 4, 3)
        names_of_classes = [name for name, _ in classes if not name.startswith(".")]
        assert dataset.class_names == tuple(sorted(set(names_of_classes)))
        assert sum(1 for _ in dataset.train.in_order(2)) == -(-len(dataset.train) // 2)
    assert "\n" not in message
    assert not list((root / "set").rglob("image_folder"))
