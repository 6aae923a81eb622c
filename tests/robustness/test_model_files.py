"""The readers of .keras and .tflite files against files with changed bytes.

    DFA_MUTATIONS=1000 bin/test -m slow tests/robustness/test_model_files.py -s

tries 1,000 changed files of each kind and prints what became of them.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dfa_tf.stages.export import ExportOptions, export
from tests.conftest import ROOT, made_examples
from tests.deployment.networks import tiny_network

pytestmark = pytest.mark.slow

MUTATIONS = int(os.environ.get("DFA_MUTATIONS", "60"))
# A process of its own, because TF Lite's interpreter trusts its files and can end the process.
CODE = """
import json, pathlib, sys
import numpy as np
from dfa_tf.deployment.loading import load_classifier
from dfa_tf.errors import UserError
from tests.deployment import networks  # registers the builder of the file

images = np.zeros((1, 8, 8, 3), np.uint8)
for line in sys.stdin:
    path = pathlib.Path(line.strip())
    try:
        shape = load_classifier(path).logits(images).shape
        result = "read"
    except UserError as error:
        result = "refused" if chr(10) not in str(error) and str(path) in str(error) else str(error)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps(result), flush=True)
"""


def _mutated(content, draws):
    """Returns the bytes with a part changed, cut, repeated or removed."""
    data, kind = bytearray(content), draws.integers(5)
    start, length = int(draws.integers(len(data))), int(draws.integers(1, 64))
    if kind == 0:
        data[start] ^= 1 << int(draws.integers(8))
    elif kind == 1:
        data[start : start + length] = draws.bytes(length)
    elif kind == 2:
        del data[start:]
    elif kind == 3:
        del data[start : start + length]
    else:
        data[start:start] = data[start : start + length]
    return bytes(data)


class _Reader:
    def __init__(self):
        self._start()

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(self, path):
        """Returns "read", "refused", a wrong error, or the signal that ended the process."""
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._start()
        return f"ended with status {status}"

    def close(self):
        self._process.communicate()


@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_changed_file_is_read_or_refused_in_one_line(tmp_path, kind):
    network, test = tiny_network(), made_examples(37, seed=9)
    network.save(tmp_path / "student.keras")
    export(network=network, test=test, workdir=tmp_path, options=ExportOptions(kinds=("float32",)))
    names = {"keras": "student.keras", "tflite": "export/student_float32.tflite"}
    content = (tmp_path / names[kind]).read_bytes()
    draws, reader, results = np.random.default_rng(0), _Reader(), {}
    assert reader.read(tmp_path / names[kind]) == "read"
    for _ in range(MUTATIONS):
        path = tmp_path / f"changed.{kind}"
        path.write_bytes(_mutated(content, draws))
        result = reader.read(path)
        results[result] = results.get(result, 0) + 1
    reader.close()
    print(f"{kind}: {results}")
    assert sum(results.values()) == MUTATIONS
    assert set(results) <= {"read", "refused"}
