"""The student as files that need nothing of this package: SavedModel and TF Lite."""

import collections
import json
import pathlib
import shutil
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from dfa_tf import files
from dfa_tf.stages.folder import fingerprint, held
from dfa_tf.stages.saved_models import classifier

MAX_ERROR = 1e-4  # of a logit, as a fraction of the largest one
MIN_AGREEMENT = 0.99
BATCH = 100
TIMED_RUNS = 50


class ExportError(Exception):
    """An exported file does not do what the network does. It has been removed."""

    told = True  # the message says it all: no traceback


def export(*, network, test, workdir, fresh=False):
    """Writes the network's SavedModel and float32 TF Lite file, and checks both against it.

    network: a Network; only its path from image to logits is exported. test: examples to check
    on. Both files take `image` [B, H, W, C] float32, 0..255, and give `logits` and
    `probabilities`, [B, classes] float32. What an export of the same weights left is kept, unless
    `fresh`.
    Writes WORKDIR/export and returns what export.json holds. Raises ExportError, leaving no such
    file, where one disagrees with the network.
    """
    folder = pathlib.Path(workdir) / "export"
    student = fingerprint(network)
    report = None if fresh else _finished(folder, student)
    if report is None:
        with held(folder):
            print(f"export: {folder}", file=sys.stderr)
            _remove_outdated(folder)
            report = {"student": student} | _export(network.copy("float32"), test, folder)
            files.write_json(folder / "export.json", report)
    return report


def _export(network, test, folder):
    logits = network.output["logits"]
    outputs = {
        "logits": logits,
        "probabilities": keras.layers.Softmax(name="probabilities")(logits),
    }
    deployed = keras.Model(network.input, outputs, name=network.name)
    expected = _answers(lambda images: deployed(images, training=False)["logits"].numpy(), test)

    with files.replacing(folder / "saved_model") as part:
        deployed.export(str(part), format="tf_saved_model", verbose=False)
        saved_model = _compared(classifier(part)[0], expected, test)
        _check(folder / "saved_model", saved_model, expected)
    with files.replacing(folder / "student_float32.tflite") as part:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
        part.write_bytes(converter.convert())
        tflite = _compared(classifier(part)[0], expected, test)
        _check(folder / "student_float32.tflite", tflite, expected)
        tflite |= {"latency_ms": {"threads_1": _latency(part, threads=1)}, "ops": _ops(part)}

    return {
        "test_examples": len(test),
        "keras": {"accuracy": float(np.mean(expected.argmax(-1) == test.labels))},
        "saved_model": _described(folder / "saved_model") | saved_model,
        "files": [_described(folder / "student_float32.tflite") | tflite],
    }


def _remove_outdated(folder):
    """Removes what another student's export left, its report first."""
    (folder / "export.json").unlink(missing_ok=True)
    for file in folder.glob("student_*.tflite"):
        file.unlink()
    shutil.rmtree(folder / "saved_model", ignore_errors=True)


def _finished(folder, student):
    """The report of a complete export of this student, or None."""
    try:
        report = json.loads((folder / "export.json").read_text())
        recorded = [report["saved_model"], *report["files"]]
        sizes = [_described(folder / file["path"])["bytes"] for file in recorded]
        is_whole = sizes == [file["bytes"] for file in recorded]
        return report if is_whole and report["student"] == student else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answers(run, test):
    batches = test.in_order(BATCH).as_numpy_iterator()
    return np.concatenate([run(images) for images, _ in batches])


def _compared(run, expected, test):
    """How a saved model does on the test images beside the network's logits `expected`."""
    logits = _answers(run, test)
    return {
        "accuracy": float(np.mean(logits.argmax(-1) == test.labels)),
        "max_abs_error": float(np.abs(logits - expected).max()),
        "agreement": float(np.mean(logits.argmax(-1) == expected.argmax(-1))),
    }


def _check(path, compared, expected):
    limit = MAX_ERROR * max(1.0, float(np.abs(expected).max()))
    # As what must hold, since a comparison with NaN never does.
    right = compared["max_abs_error"] <= limit and compared["agreement"] >= MIN_AGREEMENT
    if not right:
        raise ExportError(
            f"{path} does not match the network: largest error of a logit {compared['max_abs_error']:.2g} (at most {limit:.2g}), same class for {compared['agreement']:.2%} of the test images (at least {MIN_AGREEMENT:.0%})"
        )


def _described(path):
    entries = path.rglob("*") if path.is_dir() else [path]
    size = sum(entry.stat().st_size for entry in entries if entry.is_file())
    return {"path": path.name, "bytes": size}


def _latency(path, threads):
    """Milliseconds for one image: median and 90th percentile of TIMED_RUNS runs after a few."""
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    times = []
    for _ in range(TIMED_RUNS + 5):
        began = time.perf_counter()
        interpreter.invoke()
        times.append(1000 * (time.perf_counter() - began))
    timed = times[5:]
    return {
        "median": round(float(np.median(timed)), 4),
        "p90": round(float(np.percentile(timed, 90)), 4),
    }


def _ops(path):
    """How often each TF Lite operation occurs."""
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    return dict(sorted(collections.Counter(names).items()))
