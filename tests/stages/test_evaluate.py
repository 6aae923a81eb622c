"""Evaluation of saved models of each format."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import data, models
from dfa_tf.config import Config
from dfa_tf.errors import UserError
from dfa_tf.stages.evaluate import evaluate
from dfa_tf.stages.export import ExportOptions, export
from dfa_tf.training.evaluation import Evaluator
from tests.conftest import made_examples
from tests.deployment.networks import tiny_network


@pytest.fixture(scope="module")
def dataset():
    examples = made_examples(37, seed=9)
    return data.Dataset("made", examples, examples, tuple("abcd"), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, dataset):
    """A workdir with a student in all three formats."""
    workdir = tmp_path_factory.mktemp("evaluated")
    network = tiny_network()
    network.save(workdir / "student.keras")
    options = ExportOptions(kinds=("float32",))
    export(network=network, test=dataset.test, workdir=workdir, options=options)
    return workdir


def test_all_formats_have_the_same_accuracy_and_loss(workdir, dataset):
    paths = ["student.keras", "export/saved_model", "export/student_float32.tflite"]
    results = [evaluate(workdir / path, dataset).metrics for path in paths]
    for result in results:
        assert result["accuracy"] == results[0]["accuracy"]
        assert result["loss"] == pytest.approx(results[0]["loss"], rel=1e-4)


def test_any_keras_classifier_can_be_evaluated(tmp_path, dataset):
    images = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    model = keras.Model(images, outputs)
    # The higher the class, the brighter the image. This model mistakes class 2 for 3.
    kernel, bias = np.ones((192, 1)) * [-1.0, -0.5, 0.5, 1.0] / 192, [95.0, 60.0, -60.0, -95.0]
    model.layers[-1].set_weights([kernel, np.array(bias)])
    model.save(tmp_path / "plain.keras")
    logits = dataset.test.images.reshape(37, -1) @ kernel + bias
    accuracy = np.mean(np.argmax(logits, -1) == dataset.test.labels)
    assert 0.3 < accuracy < 1
    metrics = evaluate(tmp_path / "plain.keras", dataset).metrics
    assert metrics["accuracy"] == pytest.approx(accuracy)


def test_model_whose_outputs_are_nan_is_refused(tmp_path, dataset):
    images = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(4)
    model = keras.Model(images, dense(keras.layers.Flatten()(images)))
    dense.bias.assign([np.nan] * 4)
    model.save(tmp_path / "diverged.keras")
    with pytest.raises(UserError, match=r"diverged\.keras"):
        evaluate(tmp_path / "diverged.keras", dataset)


def _convolutional(activation, seed=0):
    """A classifier whose weights do not depend on its last activation."""
    images = keras.Input((8, 8, 3))
    draw = keras.initializers.RandomNormal(0.05, seed=seed)
    maps = keras.layers.Conv2D(6, 3, kernel_initializer=draw, activation="relu")(images)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    outputs = keras.layers.Dense(4, kernel_initializer=draw, activation=activation)(pooled)
    return keras.Model(images, outputs)


def test_model_that_ends_in_a_softmax_has_the_loss_of_its_logits(tmp_path, dataset):
    """For each format, and with the scale that the same file has as a teacher."""
    scaling = {"scale": 1 / 16, "offset": -1.0}
    _convolutional("softmax").save(tmp_path / "softmax.keras")
    _convolutional(None).save(tmp_path / "logits.keras")
    teacher = models.load(tmp_path / "softmax.keras", **scaling)
    expected = Evaluator(teacher, dataset.test)(teacher).metrics()
    for name in ("softmax.keras", "logits.keras"):
        found = evaluate(tmp_path / name, dataset, **scaling).metrics
        assert found == pytest.approx(expected, rel=1e-5)
    unscaled = evaluate(tmp_path / "logits.keras", dataset).metrics
    assert unscaled["loss"] != pytest.approx(expected["loss"], rel=1e-2)
    probabilities = _convolutional("softmax")
    probabilities.export(tmp_path / "saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(probabilities)
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    for name in ("saved_model", "model.tflite"):
        found = evaluate(tmp_path / name, dataset).metrics
        assert found == pytest.approx(unscaled, rel=1e-3)


def test_pixel_scale_of_the_config_is_that_of_the_network_that_names_the_file(tmp_path):
    path = tmp_path / "softmax.keras"
    _convolutional("softmax").save(path)
    bindings = [
        "teacher = @teacher/keras_file",
        "student = @student/wide_resnet",
        f"teacher/keras_file.path = {str(path)!r}",
        "teacher/keras_file.scale = 0.5",
        "keras_file.scale = 0.25",
    ]
    config = Config([], bindings)
    assert config.pixel_scale(path) == {"scale": 0.5}
    assert config.pixel_scale(tmp_path / "other.keras") == {"scale": 0.25}


@pytest.mark.parametrize("inputs", [2, "scalar"])
def test_keras_model_that_is_no_classifier_of_images_is_refused_by_name(tmp_path, dataset, inputs):
    path = tmp_path / "other.keras"
    if inputs == 2:
        images = [keras.Input((8, 8, 3), name=name) for name in "ab"]
        outputs = keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Add()(images)))
    else:
        images = keras.Input((8, 8, 3))
        outputs = keras.ops.sum(images)
    keras.Model(images, outputs).save(path)
    with pytest.raises(UserError, match=r"other\.keras"):
        evaluate(path, dataset)


@pytest.mark.parametrize("kind", ["missing", "cut", "cut tflite", "text", "empty folder"])
def test_file_that_is_not_a_model_is_refused_by_name_in_one_line(tmp_path, workdir, dataset, kind):
    path = tmp_path / "model.keras"
    if kind == "cut":
        contents = (workdir / "student.keras").read_bytes()
        path.write_bytes(contents[: len(contents) // 2])
    if kind == "cut tflite":
        path = tmp_path / "model.tflite"
        path.write_bytes((workdir / "export/student_float32.tflite").read_bytes()[:200])
    if kind == "text":
        path = tmp_path / "model.txt"
        path.write_text("no model")
    if kind == "empty folder":
        path.mkdir()
    with pytest.raises(UserError) as error:
        evaluate(path, dataset)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_model_of_another_data_set_is_refused_with_both_image_shapes(workdir):
    with pytest.raises(UserError) as error:
        evaluate(workdir / "student.keras", data.load("digits"))
    for named in ("student.keras", "digits", "(8, 8, 3)", "(8, 8, 1)"):
        assert named in str(error.value)


@pytest.mark.parametrize("outputs", [{"a": 4, "b": 4}, 3])
def test_model_with_other_outputs_is_refused_by_name(tmp_path, dataset, outputs):
    """With several outputs but none named logits, or with another number of classes."""
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    if isinstance(outputs, dict):
        outputs = {name: keras.layers.Dense(size)(flat) for name, size in outputs.items()}
    else:
        outputs = keras.layers.Dense(outputs)(flat)
    path = tmp_path / "other.keras"
    keras.Model(images, outputs).save(path)
    with pytest.raises(UserError, match=r"other\.keras"):
        evaluate(path, dataset)
