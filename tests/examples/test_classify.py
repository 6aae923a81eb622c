"""examples/python/classify.py: an image, an exported file, a name."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dfa_tf.stages.export import export
from tests.conftest import ROOT, made_examples, small_network

SCRIPT = ROOT / "examples" / "python" / "classify.py"
NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(the export's folder, the network, an image of the test part)."""
    workdir = tmp_path_factory.mktemp("exported")
    network = small_network(depth=10, seed=3)
    examples = made_examples(20, seed=9)
    export(
        network=network,
        test=examples,
        train=examples,
        class_names=NAMES,
        workdir=workdir,
        ladder=("float32", "int8"),
        max_loss=1.0,
    )
    return workdir / "export", network, examples.images[0]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_picture_is_given_the_name_that_the_network_tells(exported, tmp_path, kind):
    folder, network, image = exported
    Image.fromarray(image).save(tmp_path / "picture.png")
    command = [sys.executable, str(SCRIPT), str(folder / f"student_{kind}.tflite")]
    done = subprocess.run(
        [*command, str(tmp_path / "picture.png")], capture_output=True, text=True, check=True
    )
    logits = network(image[np.newaxis], training=False)["logits"][0]
    told = done.stdout.split("picture.png: ")[1]
    assert told.startswith(NAMES[int(np.argmax(logits))])


def test_it_imports_nothing_of_tensorflow_or_of_this_package():
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {"sys", "zipfile", "numpy", "ai_edge_litert", "PIL"}
