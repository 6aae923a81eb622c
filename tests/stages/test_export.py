"""Exported files do what the network does, or are not there."""

import json
import shutil
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import dfa_tf
from dfa_tf import data
from dfa_tf.errors import UserError
from dfa_tf.stages import export as exporting
from dfa_tf.stages.evaluate import evaluate
from tests.conftest import made_examples, small_network

NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def images_of_test():
    return made_examples(37, seed=9)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, images_of_test):
    workdir = tmp_path_factory.mktemp("exported")
    network = small_network(depth=10, seed=3)
    network.save(workdir / "student.keras")
    return workdir, network, _whole(network, images_of_test, workdir)


def _whole(network, test, workdir):
    return exporting.export(
        network=network,
        test=test,
        train=made_examples(60, seed=3),
        class_names=NAMES,
        workdir=workdir,
        command="export --seed=1",
    )


def test_files_are_there_and_described(exported):
    workdir, _, report = exported
    assert json.loads((workdir / "export" / "export.json").read_text()) == report
    assert [file["path"] for file in report["files"]] == [
        f"student_{kind}.tflite" for kind in ("float32", "float16", "dynamic", "int8", "uint8")
    ]
    for file in report["files"]:
        assert file["bytes"] == (workdir / "export" / file["path"]).stat().st_size
        for threads in ("threads_1", "threads_2"):
            assert set(file["latency_ms"][threads]) == {"median", "p90"}
        assert file["ops"]["CONV_2D"] == 9  # the stem, three blocks of two, two shortcuts
        assert set(file["outside_xnnpack"]) <= set(file["ops"])
    exact = report["files"][0]
    assert exact["max_abs_error"] < 1e-4
    assert exact["agreement"] == 1.0
    assert exact["outside_xnnpack"] == {}
    assert exact["accuracy"] == report["saved_model"]["accuracy"] == report["keras"]["accuracy"]
    assert (workdir / "export" / "saved_model" / "saved_model.pb").exists()
    assert (workdir / "export" / "labels.txt").read_text() == "ant\nbee\ncow\ndog\n"


def test_files_of_shorter_numbers_are_smaller_and_nearly_right(exported):
    _, _, report = exported
    sizes = {file["kind"]: file["bytes"] for file in report["files"]}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert max(sizes["dynamic"], sizes["int8"], sizes["uint8"]) < 0.5 * sizes["float32"]
    for file in report["files"]:
        assert report["keras"]["accuracy"] - file["accuracy"] <= 0.01


def _ends(path):
    interpreter = Interpreter(str(path))
    run = interpreter.get_signature_runner()
    return run, run.get_input_details()["image"], run.get_output_details()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integer_files_take_and_give_integers(exported, kind):
    """A pixel is its own number, less 128 for int8; weights are int8 by channel."""
    workdir, _, _ = exported
    path = workdir / "export" / f"student_{kind}.tflite"
    _, image, outputs = _ends(path)
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
    by_channel = {len(k["quantization_parameters"]["scales"]) for k in kernels}
    assert by_channel <= {16, 32, 64}


def test_files_may_take_bytes(tmp_path, images_of_test):
    network = small_network(depth=10, seed=3)
    report = exporting.export(
        network=network,
        test=images_of_test,
        train=images_of_test,
        workdir=tmp_path,
        ladder=("float32", "int8"),
        input_dtype="uint8",
    )
    run, image, _ = _ends(tmp_path / "export" / "student_float32.tflite")
    assert image["dtype"] == np.uint8
    pixels = images_of_test.images[:1]
    np.testing.assert_allclose(
        run(image=pixels)["logits"], network(pixels, training=False)["logits"], atol=1e-5
    )
    assert report["saved_model"]["agreement"] == 1.0
    signature = tf.saved_model.load(str(tmp_path / "export" / "saved_model")).signatures
    (spec,) = signature["serving_default"].structured_input_signature[1].values()
    assert spec.dtype == tf.uint8


def _field(table, place):
    """Where a table of a FlatBuffer has its field `place`, None where it has not."""
    offset = table.Offset(4 + 2 * place)
    return table.Pos + offset if offset else None


def _inner(table, place):
    return flatbuffers.table.Table(table.Bytes, table.Indirect(_field(table, place)))


def _nth(table, place, k=0):
    start = table.Vector(_field(table, place) - table.Pos)
    return flatbuffers.table.Table(table.Bytes, table.Indirect(start + 4 * k))


def _string(table, place):
    return table.String(_field(table, place)).decode()


def _floats(table, place):
    offset = _field(table, place) - table.Pos
    start = table.Vector(offset)
    count = table.VectorLen(offset)
    number = flatbuffers.number_types.Float32Flags
    return [table.Get(number, start + 4 * k) for k in range(count)]


def _byte(table, place):
    return table.Get(flatbuffers.number_types.Uint8Flags, _field(table, place))


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_metadata_is_what_androids_tools_read(exported, kind):
    """By the places that metadata_schema.fbs gives its fields, in this test by hand."""
    workdir, network, _ = exported
    model = schema.ModelT.InitFromPackedBuf(
        (workdir / "export" / f"student_{kind}.tflite").read_bytes(), 0
    )
    (entry,) = [each for each in model.metadata if each.name == b"TFLITE_METADATA"]
    told = bytes(model.buffers[entry.buffer].data)
    assert told[4:8] == b"M001"
    start = int.from_bytes(told[:4], "little")
    root = flatbuffers.table.Table(told, start)
    assert _string(root, 0) == network.name
    assert "export --seed=1" in _string(root, 1)
    assert _string(root, 2) == dfa_tf.__version__
    graph = _nth(root, 3)
    image, logits = _nth(graph, 2), _nth(graph, 3)
    assert _string(image, 0) == "image"
    assert _byte(_inner(image, 3), 0) == 2  # image properties
    assert _byte(_inner(_inner(image, 3), 1), 0) == 1  # RGB
    unit = _nth(image, 4)
    assert _byte(unit, 0) == 1  # normalization
    assert (_floats(_inner(unit, 1), 0), _floats(_inner(unit, 1), 1)) == ([0.0], [1.0])
    assert (_floats(_inner(image, 5), 0), _floats(_inner(image, 5), 1)) == ([255.0], [0.0])
    assert _string(logits, 0) in ("logits", "probabilities")
    labels = _nth(logits, 6)
    assert (_string(labels, 0), _byte(labels, 2)) == ("labels.txt", 2)


def test_labels_and_more_lie_in_the_file_for_anyone_to_unpack(exported):
    workdir, network, _ = exported
    with zipfile.ZipFile(workdir / "export" / "student_int8.tflite") as archive:
        assert archive.read("labels.txt").decode().split() == list(NAMES)
        about = json.loads(archive.read("about.json"))
    assert (about["name"], about["version"]) == (network.name, dfa_tf.__version__)
    assert about["command"] == "export --seed=1"
    assert about["input"]["dtype"] == "int8"
    assert about["input"]["shape"] == [8, 8, 3]
    assert about["input"]["zero_point"] == -128
    assert {each["name"] for each in about["outputs"]} == {"logits", "probabilities"}


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


def test_bytes_are_taken_as_they_are_whatever_the_calibration_saw(tmp_path, images_of_test):
    """Dark training images alone: pixels above theirs would be cut off."""
    dark = data.Examples(images_of_test.images // 4, images_of_test.labels)
    exporting.export(
        network=small_network(depth=10, seed=3),
        test=images_of_test,
        train=dark,
        workdir=tmp_path,
        ladder=("uint8",),
        max_loss=1.0,
    )
    _, image, _ = _ends(tmp_path / "export" / "student_uint8.tflite")
    assert image["quantization"] == (pytest.approx(1.0, abs=1e-6), 0)


def test_weights_lie_at_multiples_of_16_bytes(exported):
    workdir, _, _ = exported
    told = (workdir / "export" / "student_float32.tflite").read_bytes()
    model = schema.Model.GetRootAs(told, 0)
    buffers = [model.Buffers(k) for k in range(model.BuffersLength())]
    places = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(places) > 10
    assert {place % 16 for place in places} == {0}


def test_size_is_the_students_alone(exported):
    """Its float32 weights, and little else: no teacher, connector or optimizer."""
    workdir, network, _ = exported
    weights = 4 * sum(np.prod(w.shape) for w in network.weights)
    for name in ("export/student_float32.tflite", "student.keras"):
        size = (workdir / name).stat().st_size
        assert weights < size * 1.1
        assert size < weights * 1.3 + 80_000
    variables = workdir / "export" / "saved_model" / "variables"
    held = sum(path.stat().st_size for path in variables.glob("variables.data*"))
    assert weights <= held < weights * 1.1 + 20_000


def _quick(network, test, workdir):
    return exporting.export(network=network, test=test, workdir=workdir, ladder=("float32",))


def test_export_that_does_not_match_fails_and_leaves_no_such_file(
    tmp_path, images_of_test, monkeypatch
):
    monkeypatch.setattr(exporting, "MAX_ERROR", -1.0)
    with pytest.raises(exporting.ExportError, match="does not match the network"):
        _quick(small_network(depth=10), images_of_test, tmp_path)
    assert not list((tmp_path / "export").iterdir())


def test_finished_export_is_kept_until_the_student_changes(
    exported, images_of_test, monkeypatch, tmp_path
):
    workdir, network, report = exported
    shutil.copytree(workdir / "export", tmp_path / "export")
    monkeypatch.setattr(exporting, "_Export", None)  # would fail if it were called
    assert _whole(network, images_of_test, tmp_path) == report
    with pytest.raises(TypeError):
        _whole(small_network(depth=10), images_of_test, tmp_path)
    # Nothing of the former student is left to be taken for this one's.
    assert not list((tmp_path / "export").iterdir())


def test_export_made_in_another_way_is_made_again_or_kept_where_that_is_asked(
    tmp_path, images_of_test
):
    network = small_network(depth=10, seed=3)
    common = {"network": network, "test": images_of_test, "workdir": tmp_path}
    first = exporting.export(**common, ladder=("float32", "float16"), input_dtype="uint8")
    assert exporting.export(**common, ladder=("float32",), keep=True) == first
    labels = tmp_path / "export" / "labels.txt"
    second = exporting.export(**common, ladder=("float32",), class_names=NAMES)
    assert second["input_dtype"] == "float32"
    assert labels.read_text().split() == list(NAMES)
    third = exporting.export(**common, ladder=("float16",), class_names=NAMES)
    assert [file["kind"] for file in third["files"]] == ["float32", "float16"]  # none is lost
    labels.unlink()
    exporting.export(**common, ladder=("float16",), class_names=NAMES)
    assert labels.exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ladder": ("int4",)}, "export.ladder lists float32"),
        ({"input_dtype": "int8"}, "'float32' or 'uint8'"),
        ({"calibration_images": 0}, "calibration_images is a whole number"),
        ({"max_loss": "a"}, "max_loss is a fraction"),
        ({"fine_tune_above": "a"}, "fine_tune_above is a fraction"),
        ({"class_names": ("a", "b")}, "2 class names for 4 classes"),
        ({"train": None}, "give train="),
        ({"teacher": "gone.keras"}, "there is no file gone.keras"),
        ({"fine_tune_epochs": 0, "teacher": small_network}, "epochs"),
    ],
)
def test_arguments_that_are_not_right_are_told_before_anything_is_removed(
    exported, images_of_test, wrong, told
):
    workdir, network, _ = exported
    wrong = {name: value() if callable(value) else value for name, value in wrong.items()}
    given = {"train": images_of_test, "network": network, "test": images_of_test} | wrong
    with pytest.raises(UserError, match=told):
        exporting.export(**given, workdir=workdir)
    assert (workdir / "export" / "export.json").exists()


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
