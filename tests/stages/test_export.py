"""Exported files do what the network does, or are not there."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from dfa_tf import data
from dfa_tf.errors import UserError
from dfa_tf.stages import export as exporting
from dfa_tf.stages.evaluate import evaluate
from tests.conftest import made_examples, small_network


@pytest.fixture(scope="module")
def images_of_test():
    return made_examples(37, seed=9)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, images_of_test):
    workdir = tmp_path_factory.mktemp("exported")
    network = small_network(depth=10, seed=3)
    network.save(workdir / "student.keras")
    return workdir, network, exporting.export(network=network, test=images_of_test, workdir=workdir)


def test_files_are_there_and_described(exported):
    workdir, _, report = exported
    assert json.loads((workdir / "export" / "export.json").read_text()) == report
    (file,) = report["files"]
    path = workdir / "export" / file["path"]
    assert path.name == "student_float32.tflite"
    assert file["bytes"] == path.stat().st_size
    assert file["max_abs_error"] < 1e-4
    assert file["agreement"] == 1.0
    assert file["accuracy"] == report["saved_model"]["accuracy"] == report["keras"]["accuracy"]
    assert set(file["latency_ms"]["threads_1"]) == {"median", "p90"}
    assert file["ops"]["CONV_2D"] == 9  # the stem, three blocks of two, two shortcuts
    assert (workdir / "export" / "saved_model" / "saved_model.pb").exists()


def test_tflite_file_answers_as_the_network_does(exported, images_of_test):
    workdir, network, _ = exported
    interpreter = Interpreter(str(workdir / "export" / "student_float32.tflite"))
    run = interpreter.get_signature_runner()
    assert list(run.get_input_details()) == ["image"]
    assert set(run.get_output_details()) == {"logits", "probabilities"}
    image = images_of_test.images[:1].astype(np.float32)
    logits = network(image, training=False)["logits"]
    np.testing.assert_allclose(run(image=image)["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(run(image=image)["probabilities"], tf.nn.softmax(logits), atol=1e-5)


def test_saved_model_needs_nothing_of_this_package(exported, images_of_test):
    workdir, network, _ = exported
    signature = tf.saved_model.load(str(workdir / "export" / "saved_model")).signatures[
        "serving_default"
    ]
    images = images_of_test.images[:5].astype(np.float32)
    np.testing.assert_allclose(
        signature(image=images)["logits"], network(images, training=False)["logits"], atol=1e-5
    )


def test_size_is_the_students_alone(exported):
    """Its float32 weights, and little else: no teacher, connector or optimizer."""
    workdir, network, _ = exported
    weights = 4 * sum(np.prod(w.shape) for w in network.weights)
    for name in ("export/student_float32.tflite", "student.keras"):
        size = (workdir / name).stat().st_size
        assert weights < size * 1.1
        assert size < weights * 1.3 + 80_000


def test_export_that_does_not_match_fails_and_leaves_no_such_file(
    tmp_path, images_of_test, monkeypatch
):
    monkeypatch.setattr(exporting, "MAX_ERROR", -1.0)
    with pytest.raises(exporting.ExportError, match="does not match the network"):
        exporting.export(network=small_network(depth=10), test=images_of_test, workdir=tmp_path)
    assert not list((tmp_path / "export").iterdir())


def test_finished_export_is_kept_until_the_student_changes(
    exported, images_of_test, monkeypatch, tmp_path
):
    workdir, network, report = exported
    shutil.copytree(workdir / "export", tmp_path / "export")
    monkeypatch.setattr(exporting, "_compared", None)  # would fail if it were called
    assert exporting.export(network=network, test=images_of_test, workdir=tmp_path) == report
    with pytest.raises(TypeError):
        exporting.export(network=small_network(depth=10), test=images_of_test, workdir=tmp_path)
    # Nothing of the former student is left to be taken for this one's.
    assert not list((tmp_path / "export").iterdir())


@pytest.fixture(scope="module")
def made_set(images_of_test):
    return data.Dataset(
        "made", images_of_test, images_of_test, tuple("abcd"), (0.5,) * 3, (0.25,) * 3
    )


def test_evaluate_gives_the_same_for_all_three_kinds(exported, made_set):
    workdir, _, report = exported
    paths = ["student.keras", "export/saved_model", "export/student_float32.tflite"]
    results = [evaluate(workdir / path, made_set) for path in paths]
    for result in results:
        assert result["accuracy"] == report["keras"]["accuracy"]
        assert result["loss"] == pytest.approx(results[0]["loss"], rel=1e-4)


def test_evaluate_takes_any_keras_classifier(tmp_path, made_set):
    images = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    keras.Model(images, outputs).save(tmp_path / "plain.keras")
    assert 0 <= evaluate(tmp_path / "plain.keras", made_set)["accuracy"] <= 1


@pytest.mark.parametrize("kind", ["missing", "cut", "cut tflite", "text", "empty folder"])
def test_evaluate_tells_what_is_no_model(tmp_path, exported, made_set, kind):
    workdir, _, _ = exported
    path = tmp_path / "model.keras"
    if kind == "cut":
        path.write_bytes((workdir / "student.keras").read_bytes()[:-3000])
    if kind == "cut tflite":
        path = tmp_path / "model.tflite"
        path.write_bytes((workdir / "export/student_float32.tflite").read_bytes()[:200])
    if kind == "text":
        path = tmp_path / "model.txt"
        path.write_text("no model")
    if kind == "empty folder":
        path.mkdir()
    with pytest.raises(
        UserError, match=r"there is no model|cannot be read|is no \.keras file"
    ) as told:
        evaluate(path, made_set)
    assert "\n" not in str(told.value)


def test_evaluate_tells_a_model_of_another_task(exported):
    workdir, _, _ = exported
    digits = data.load("digits")
    with pytest.raises(UserError, match=r"takes images \(8, 8, 3\), digits's are \(8, 8, 1\)"):
        evaluate(workdir / "student.keras", digits)
