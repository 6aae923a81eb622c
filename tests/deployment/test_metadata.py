"""The descriptions inside a TF Lite file."""

import json
import pathlib
import zipfile

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

import dfa_tf


def _field(table, position):
    """Offset of a field in a FlatBuffer's table, None if it is absent."""
    offset = table.Offset(4 + 2 * position)
    return table.Pos + offset if offset else None


def _table(table, position):
    return flatbuffers.table.Table(table.Bytes, table.Indirect(_field(table, position)))


def _element(table, position, index=0):
    start = table.Vector(_field(table, position) - table.Pos)
    return flatbuffers.table.Table(table.Bytes, table.Indirect(start + 4 * index))


def _string(table, position):
    return table.String(_field(table, position)).decode()


def _floats(table, position):
    offset = _field(table, position) - table.Pos
    start = table.Vector(offset)
    number = flatbuffers.number_types.Float32Flags
    return [table.Get(number, start + 4 * k) for k in range(table.VectorLen(offset))]


def _byte(table, position):
    return table.Get(flatbuffers.number_types.Uint8Flags, _field(table, position))


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_metadata_follows_the_schema_that_android_reads(exported, kind):
    """The positions of the fields in metadata_schema.fbs are written out here by hand."""
    contents = (exported.folder / f"student_{kind}.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(contents, 0)
    (entry,) = [each for each in model.metadata if each.name == b"TFLITE_METADATA"]
    metadata = bytes(model.buffers[entry.buffer].data)
    assert metadata[4:8] == b"M001"
    root = flatbuffers.table.Table(metadata, int.from_bytes(metadata[:4], "little"))
    assert _string(root, 0) == exported.network.name
    assert "4 classes" in _string(root, 1)
    assert _string(root, 2) == dfa_tf.__version__
    graph = _element(root, 3)
    image, scores = _element(graph, 2), _element(graph, 3)
    assert _string(image, 0) == "image"
    assert _byte(_table(image, 3), 0) == 2  # image properties
    assert _byte(_table(_table(image, 3), 1), 0) == 1  # RGB
    unit = _element(image, 4)
    assert _byte(unit, 0) == 1  # normalization
    assert (_floats(_table(unit, 1), 0), _floats(_table(unit, 1), 1)) == ([0.0], [1.0])
    assert (_floats(_table(image, 5), 0), _floats(_table(image, 5), 1)) == ([255.0], [0.0])
    assert _string(scores, 0) in ("logits", "probabilities")
    labels = _element(scores, 6)
    assert (_string(labels, 0), _byte(labels, 2)) == ("labels.txt", 2)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_file_holds_no_path_of_the_machine(exported, kind):
    contents = (exported.folder / f"student_{kind}.tflite").read_bytes()
    for path in (exported.folder, pathlib.Path.cwd(), pathlib.Path.home()):
        assert str(path).encode() not in contents


def test_labels_and_description_can_be_unzipped_from_the_file(exported):
    with zipfile.ZipFile(exported.folder / "student_int8.tflite") as archive:
        assert archive.read("labels.txt").decode().split() == list(exported.class_names)
        about = json.loads(archive.read("about.json"))
    assert (about["name"], about["version"]) == (exported.network.name, dfa_tf.__version__)
    assert set(about) == {"name", "version", "input", "outputs", "labels"}
    assert about["input"]["dtype"] == "int8"
    assert about["input"]["shape"] == [8, 8, 3]
    assert about["input"]["zero_point"] == -128
    assert {output["name"] for output in about["outputs"]} == {"logits", "probabilities"}


def test_weights_are_aligned_to_16_bytes(exported):
    contents = (exported.folder / "student_float32.tflite").read_bytes()
    model = schema.Model.GetRootAs(contents, 0)
    buffers = [model.Buffers(k) for k in range(model.BuffersLength())]
    offsets = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(offsets) > 10
    assert {offset % 16 for offset in offsets} == {0}
