"""The example programs classify a picture as bin/evaluate does."""

import ast
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dfa_tf import data
from dfa_tf.deployment.convert import calibration_images, convert
from dfa_tf.deployment.metadata import ModelInfo, add_metadata
from dfa_tf.deployment.saved_model import inference_model, write_saved_model
from tests.conftest import ROOT, SHAPE, made_examples
from tests.deployment.networks import tiny_network

SCRIPT = ROOT / "examples" / "python" / "classify.py"
ORIENTATION = 0x0112  # a tag of EXIF
NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(folder of TF Lite files, the network, an image)."""
    folder = tmp_path_factory.mktemp("converted")
    network, examples = tiny_network(), made_examples(20, seed=9)
    write_saved_model(inference_model(network, "float32"), folder / "saved_model")
    info = ModelInfo(network.name, "1.0", NAMES, SHAPE)
    for kind in ("float32", "int8"):
        contents = convert(folder / "saved_model", kind, calibration_images(examples, 20))
        (folder / f"student_{kind}.tflite").write_bytes(add_metadata(contents, info))
    return folder, network, examples.images[0]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_first_class_printed_is_the_networks_prediction(converted, tmp_path, kind):
    folder, network, image = converted
    Image.fromarray(image).save(tmp_path / "picture.png")
    command = [sys.executable, str(SCRIPT), str(folder / f"student_{kind}.tflite")]
    done = subprocess.run(
        [*command, str(tmp_path / "picture.png")], capture_output=True, text=True, check=True
    )
    logits = network(image[np.newaxis], training=False)["logits"][0]
    classes = done.stdout.split("picture.png: ")[1]
    assert classes.startswith(NAMES[int(np.argmax(logits))])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 200 pictures of four classes and many shapes, some turned by their camera."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for k in range(208):
        label, (height, width) = k % 4, generator.integers(20, 90, 2)
        coarse = generator.integers(0, 200, (5, 5, 3), np.uint8)
        coarse[..., : label or 3] += 55
        picture = Image.fromarray(coarse).resize(
            (int(width), int(height)), Image.Resampling.BICUBIC
        )
        path = (
            folder
            / ("train" if k < 8 else "test")
            / NAMES[label]
            / f"{k}.{'png' if k % 8 < 4 else 'jpg'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[ORIENTATION] = int(generator.integers(1, 9))  # how the camera was held
        picture.save(path, quality=95, exif=exif)
    return folder


@pytest.mark.parametrize("arguments", [{}, {"crop_fraction": 0.875}, {"resize": "stretch"}])
def test_pictures_are_resized_as_the_examples_resize_them(photos, tmp_path, arguments):
    """Pixels, and the prediction of a network with random weights, for 200 pictures."""
    dataset = data.load(f"folder:{photos}", tmp_path, image_size=(16, 12), **arguments)
    module = _script()
    paths = sorted(path for path in (photos / "test").rglob("*.*"))
    how = {"resize": "crop", "crop_fraction": 1.0} | arguments
    in_python = np.concatenate([module.read_picture(p, (1, 16, 12, 3), how) for p in paths])
    fraction = None if how["resize"] == "stretch" else how["crop_fraction"]
    in_kotlin = np.stack([_resized_as_in_kotlin(path, 16, 12, fraction) for path in paths])
    # The data set has an order of its own: each picture is paired with the most similar one.
    images = dataset.test.images.astype(np.float32)
    distances = np.abs(in_python[:, np.newaxis] - images).mean((2, 3, 4))
    expected = images[distances.argmin(1)]
    assert sorted(distances.argmin(1)) == list(range(200))
    # A JPEG file that is turned upright is encoded again.
    is_exact = np.array(
        [p.suffix == ".png" or Image.open(p).getexif()[ORIENTATION] == 1 for p in paths]
    )
    network = tiny_network(shape=(16, 12, 3))
    logits = network(expected, training=False)["logits"].numpy()
    for found in (in_python, in_kotlin):
        difference = np.abs(found.astype(np.float32) - expected)
        assert difference[is_exact].max() <= 1
        assert difference[~is_exact].mean() < 1
        predicted = network(found, training=False)["logits"].numpy().argmax(-1)
        np.testing.assert_array_equal(predicted, logits.argmax(-1))


def _script():
    spec = importlib.util.spec_from_file_location("classify", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _resized_as_in_kotlin(path, height, width, fraction):
    """The arithmetic of examples/android/ImageClassifier.kt, for an upright bitmap."""
    bitmap = np.asarray(_upright(path), np.float32)
    rows, columns = bitmap.shape[:2]
    if fraction is not None:
        scale = fraction * min(rows / height, columns / width)
        rows, columns = max(int(scale * height + 0.5), 1), max(int(scale * width + 0.5), 1)
    top, left = (bitmap.shape[0] - rows) // 2, (bitmap.shape[1] - columns) // 2
    window = bitmap[top : top + rows, left : left + columns]
    narrow = np.stack([shares @ window[:, part] for part, shares in _weights(columns, width)], 1)
    result = np.stack(
        [shares @ narrow[part].reshape(len(shares), -1) for part, shares in _weights(rows, height)]
    )
    return np.floor(result.reshape(height, width, 3) + 0.5)


def _weights(before, after):
    scale = np.float32(before / after)
    radius = max(scale, np.float32(1))
    for index in range(after):
        centre = np.float32(index + 0.5) * scale
        first, end = (
            max(int(np.floor(centre - radius)), 0),
            min(int(np.ceil(centre + radius)), before),
        )
        shares = np.maximum(
            0, 1 - np.abs(np.arange(first, end) + np.float32(0.5) - centre) / radius
        )
        yield slice(first, end), shares / shares.sum()


def _upright(path):
    turns = {3: 180, 6: 270, 8: 90, 4: 180, 5: 90, 7: 270}  # counterclockwise, in degrees
    image = Image.open(path)
    orientation = image.getexif()[ORIENTATION]
    if orientation in (2, 4, 5, 7):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.rotate(turns.get(orientation, 0), expand=True)


def test_script_imports_neither_tensorflow_nor_this_package():
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"json", "sys", "zipfile", "numpy", "ai_edge_litert", "PIL"}
