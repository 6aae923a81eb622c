"""The example for photos, whole, with photos that are made on the spot."""

import json
import os
import subprocess

import pytest
from PIL import Image

from tests.conftest import ROOT

SHORT = [
    "dataset.image_size=(32, 32)",
    "dataset.color_jitter=None",
    "distill.methods=[@kd()]",
    "train_teacher.epochs=1",
    "train_teacher.head_epochs=0",
    "distill.epochs=1",
]


@pytest.mark.slow
def test_example_runs_from_photos_to_the_answers_of_an_int8_file(tmp_path):
    flags = [f"--gin_bindings={binding}" for binding in SHORT]
    done = subprocess.run(
        ["sh", "examples/photos/run.sh", f"--data_dir={tmp_path}/tfds", *flags],
        cwd=ROOT,
        env=os.environ | {"FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    photos = list((tmp_path / "photos").rglob("*.jpg"))
    shapes = {Image.open(path).size for path in photos}
    assert len(photos) == 180
    assert any(width > height for width, height in shapes)
    assert any(width < height for width, height in shapes)
    report = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    assert report["preprocessing"] == {"resize": "crop", "crop_fraction": 1.0}
    answers = [line for line in done.stdout.splitlines() if ".jpg: " in line]
    assert len(answers) == 5
    assert all("china" in line and "flower" in line for line in answers)
