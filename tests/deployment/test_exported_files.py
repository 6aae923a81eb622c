"""Exported files: all are written, described in export.json, small, and agree with the network."""

import json

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from dfa_tf import data
from dfa_tf.deployment.convert import calibration_images, convert
from dfa_tf.deployment.saved_model import inference_model, write_saved_model
from dfa_tf.stages.export import ExportOptions, export
from tests.conftest import made_examples
from tests.deployment.networks import tiny_network


def test_all_files_are_written_and_described(exported):
    folder, report = exported.folder, exported.report
    assert json.loads((folder / "export.json").read_text()) == report
    assert [file["path"] for file in report["files"]] == [
        f"student_{kind}.tflite" for kind in ("float32", "float16", "dynamic", "int8", "uint8")
    ]
    for file in report["files"]:
        assert file["bytes"] == (folder / file["path"]).stat().st_size
        for threads in ("threads_1", "threads_2"):
            assert set(file["latency_ms"][threads]) == {"median", "p90"}
        assert file["ops"]["CONV_2D"] == 9  # the stem, three blocks of two, two shortcuts
        assert set(file["outside_xnnpack"]) <= set(file["ops"])
    assert (folder / "saved_model" / "saved_model.pb").exists()
    assert (folder / "labels.txt").read_text() == "ant\nbee\ncow\ndog\n"


def test_float32_file_is_exact_and_runs_in_xnnpack(exported):
    report = exported.report
    float32 = report["files"][0]
    assert float32["max_abs_error"] < 1e-4
    assert float32["agreement"] == 1.0
    assert float32["outside_xnnpack"] == {}
    accuracies = {each["accuracy"] for each in (float32, report["saved_model"], report["keras"])}
    assert len(accuracies) == 1


def test_files_of_fewer_bits_are_smaller_and_nearly_as_accurate(exported):
    sizes = {file["kind"]: file["bytes"] for file in exported.report["files"]}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert max(sizes["dynamic"], sizes["int8"], sizes["uint8"]) < 0.5 * sizes["float32"]
    for file in exported.report["files"]:
        assert exported.report["keras"]["accuracy"] - file["accuracy"] <= 0.01


def test_files_contain_the_student_alone(exported):
    """Their size is that of its float32 weights: no teacher, connector or optimizer."""
    weights = 4 * sum(np.prod(w.shape) for w in exported.network.weights)
    for name in ("export/student_float32.tflite", "student.keras"):
        size = (exported.workdir / name).stat().st_size
        assert weights < size * 1.1
        assert size < weights * 1.3 + 80_000
    variables = exported.folder / "saved_model" / "variables"
    stored = sum(path.stat().st_size for path in variables.glob("variables.data*"))
    assert weights <= stored < weights * 1.1 + 20_000


def signature(path):
    """(runner, details of the image, details of the outputs) of a TF Lite file."""
    runner = Interpreter(str(path)).get_signature_runner()
    return runner, runner.get_input_details()["image"], runner.get_output_details()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integer_files_have_integer_inputs_outputs_and_weights(exported, kind):
    """An input is its pixel, minus 128 for int8. Weights are int8, with a scale per channel."""
    path = exported.folder / f"student_{kind}.tflite"
    _, image, outputs = signature(path)
    assert image["dtype"] == getattr(np, kind)
    assert {details["dtype"] for details in outputs.values()} == {getattr(np, kind)}
    scale, zero_point = image["quantization"]
    assert scale == pytest.approx(1.0, abs=0.02)
    assert zero_point == (-128 if kind == "int8" else 0)
    kernels = [
        tensor
        for tensor in Interpreter(str(path)).get_tensor_details()
        if tensor["dtype"] == np.int8 and len(tensor["shape"]) == 4 and tensor["shape"][1] == 3
    ]
    channels = [len(k["quantization_parameters"]["scales"]) for k in kernels]
    # The stem, and two 3x3 convolutions in each of the three blocks.
    assert sorted(channels) == [16, 16, 16, 32, 32, 64, 64]


def test_tflite_file_computes_the_networks_logits_and_probabilities(exported):
    runner, _, outputs = signature(exported.folder / "student_float32.tflite")
    assert list(runner.get_input_details()) == ["image"]
    assert set(outputs) == {"logits", "probabilities"}
    image = exported.test.images[:1].astype(np.float32)
    logits = exported.network(image, training=False)["logits"]
    result = runner(image=image)
    np.testing.assert_allclose(result["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(result["probabilities"], tf.nn.softmax(logits), atol=1e-5)


def test_saved_model_runs_without_this_package(exported):
    loaded = tf.saved_model.load(str(exported.folder / "saved_model"))
    images = exported.test.images[:5].astype(np.float32)
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](image=images)["logits"],
        exported.network(images, training=False)["logits"],
        atol=1e-5,
    )


def test_uint8_input_is_that_of_the_saved_model_and_the_float_files(tmp_path):
    network, test = tiny_network(), made_examples(37, seed=9)
    report = export(
        network=network,
        test=test,
        train=test,
        workdir=tmp_path,
        options=ExportOptions(kinds=("float32", "int8"), input_dtype="uint8", max_loss=1.0),
    )
    run, image, _ = signature(tmp_path / "export" / "student_float32.tflite")
    assert image["dtype"] == np.uint8
    _, integer_image, _ = signature(tmp_path / "export" / "student_int8.tflite")
    assert integer_image["dtype"] == np.int8
    pixels = test.images[:1]
    np.testing.assert_allclose(
        run(image=pixels)["logits"], network(pixels, training=False)["logits"], atol=1e-5
    )
    assert report["saved_model"]["agreement"] == 1.0
    loaded = tf.saved_model.load(str(tmp_path / "export" / "saved_model"))
    (spec,) = loaded.signatures["serving_default"].structured_input_signature[1].values()
    assert spec.dtype == tf.uint8


def test_input_range_is_0_to_255_even_if_calibration_images_are_dark(tmp_path):
    """Otherwise brighter pixels would be clipped."""
    examples = made_examples(20)
    dark = data.Examples(examples.images // 4, examples.labels)
    write_saved_model(inference_model(tiny_network(), "float32"), tmp_path / "saved_model")
    contents = convert(tmp_path / "saved_model", "uint8", calibration_images(dark, 10))
    (tmp_path / "dark.tflite").write_bytes(contents)
    _, image, _ = signature(tmp_path / "dark.tflite")
    assert image["quantization"] == (pytest.approx(1.0, abs=1e-6), 0)


def test_calibration_images_are_training_images_chosen_independently_of_the_seed():
    train = made_examples(30)
    images = calibration_images(train, 10)
    assert images.shape == (11, *train.image_shape)
    np.testing.assert_array_equal(images, calibration_images(train, 10))
    originals = {image.tobytes() for image in train.images}
    assert all(image.tobytes() in originals for image in images[:10])
    assert len(calibration_images(train, 1000)) == 31
