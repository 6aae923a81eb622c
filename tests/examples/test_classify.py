"""examples/python/classify.py: prints the class of a picture."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dfa_tf.deployment.convert import calibration_images, convert
from dfa_tf.deployment.metadata import ModelInfo, add_metadata
from dfa_tf.deployment.saved_model import inference_model, write_saved_model
from tests.conftest import ROOT, SHAPE, made_examples
from tests.deployment.networks import tiny_network

SCRIPT = ROOT / "examples" / "python" / "classify.py"
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


def test_script_imports_neither_tensorflow_nor_this_package():
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"sys", "zipfile", "numpy", "ai_edge_litert", "PIL"}
