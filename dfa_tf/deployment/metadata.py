"""Descriptions inside a TF Lite file: TF Lite's metadata, and text files packed after the model.

The metadata is a FlatBuffer of TensorFlow's metadata_schema.fbs, which Android's tools read. The
text files are a ZIP archive at the end of the file, as that schema defines it:
`unzip -p student_int8.tflite labels.txt` prints the labels.
"""

import dataclasses
import io
import json
import zipfile

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

from dfa_tf.data.preprocessing import Preprocessing

LABELS_FILE, INFO_FILE = "labels.txt", "about.json"
_IDENTIFIER, _MODEL_IDENTIFIER, _BUFFER = b"M001", b"TFL3", "TFLITE_METADATA"
# Members of unions and enumerations of metadata_schema.fbs.
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION, _TENSOR_AXIS_LABELS = 2, 1, 1, 2
_RGB, _GRAYSCALE = 1, 2
_ALIGNMENT = 16  # bytes
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_MEAN, _STD = 0.0, 1.0  # The model receives raw pixels and normalizes them itself.


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A description of a model.

    Attributes:
        name: Name of the network.
        version: Version of this package.
        class_names: Names of the classes, by label.
        image_shape: (height, width, channels) of the images.
        preprocessing: How pictures of other sizes are resized.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing = Preprocessing()

    @property
    def labels_text(self) -> str:
        """The contents of LABELS_FILE: one class name a line."""
        return "\n".join([*self.class_names, ""])


def add_metadata(model: bytes, info: ModelInfo) -> bytes:
    """Adds the metadata, LABELS_FILE and INFO_FILE to a TF Lite file.

    Args:
        model: Contents of the file as the converter returns them.
        info: The description to add.

    Returns:
        The contents of the new file.
    """
    unpacked = schema.ModelT.InitFromPackedBuf(model, 0)
    details = [_tensor_details(name, tensor) for name, tensor in _inputs_and_outputs(unpacked)]
    unpacked.description = info.name
    buffer = schema.BufferT()
    buffer.data = list(_metadata(info, details))
    unpacked.buffers.append(buffer)
    for each in unpacked.buffers:
        each.__class__ = _AlignedBuffer
    entry = schema.MetadataT()
    entry.name, entry.buffer = _BUFFER, len(unpacked.buffers) - 1
    unpacked.metadata = [*(unpacked.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(unpacked.Pack(builder), _MODEL_IDENTIFIER)
    contents = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(contents, "a") as archive:
        # Without the current time, so that equal models are equal files.
        about = json.dumps(_info_content(info, details), indent=2)
        for name, text in ((LABELS_FILE, info.labels_text), (INFO_FILE, about)):
            archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), text)
    return contents.getvalue()


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data starts at a multiple of 16 bytes.

    TF Lite's schema requires this alignment; its generated Python code does not apply it.
    """

    def Pack(self, builder):
        data = bytes(bytearray(self.data)) if self.data is not None else b""
        if data:
            builder.StartVector(1, len(data), _ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if data:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _inputs_and_outputs(model):
    """Yields (name in the signature, tensor) of the inputs, then of the outputs."""
    (graph,) = model.subgraphs
    names = {
        entry.tensorIndex: entry.name.decode()
        for signature in model.signatureDefs or []
        for entry in (*signature.inputs, *signature.outputs)
    }
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        yield names.get(index, tensor.name.decode()), tensor


def _tensor_details(name, tensor):
    dtypes = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    quantization = tensor.quantization
    is_quantized = quantization is not None and quantization.scale is not None
    return {
        "name": name,
        "dtype": dtypes[tensor.type],
        "scale": float(quantization.scale[0]) if is_quantized else None,
        "zero_point": int(quantization.zeroPoint[0]) if is_quantized else None,
    }


def _info_content(info, details):
    """Returns the content of INFO_FILE."""
    image, *outputs = details
    return {
        "name": info.name,
        "version": info.version,
        "input": image
        | {
            "shape": list(info.image_shape),
            **dataclasses.asdict(info.preprocessing),
            "pixels": "raw, 0..255; the model normalizes them itself. Where it has a scale, "
            "give pixel / scale + zero_point",
        },
        "outputs": outputs,
        "labels": LABELS_FILE,
    }


def _metadata(info, details):
    """Returns the bytes of a ModelMetadata FlatBuffer. Its fields are given by position."""
    builder = flatbuffers.Builder(1024)
    image, *outputs = details

    def labels():
        return _table(
            builder,
            [
                ("offset", builder.CreateString(LABELS_FILE)),
                ("offset", builder.CreateString("Names of the classes, one a line.")),
                ("byte", _TENSOR_AXIS_LABELS),
            ],
        )

    graph = _table(
        builder,
        [
            ("offset", builder.CreateString(info.name)),
            None,
            ("offset", _vector(builder, [_image_tensor(builder, info, image)])),
            (
                "offset",
                _vector(builder, [_class_tensor(builder, each, labels()) for each in outputs]),
            ),
        ],
    )
    description = f"Classifies images into {len(info.class_names)} classes."
    root = _table(
        builder,
        [
            ("offset", builder.CreateString(info.name)),
            ("offset", builder.CreateString(description)),
            ("offset", builder.CreateString(info.version)),
            ("offset", _vector(builder, [graph])),
            ("offset", builder.CreateString("dfa_tf")),
            None,
            None,
            ("offset", builder.CreateString("1.0.0")),
        ],
    )
    builder.Finish(root, _IDENTIFIER)
    return bytes(builder.Output())


def _image_tensor(builder, info, details):
    properties = _table(builder, [("byte", _RGB if info.image_shape[-1] == 3 else _GRAYSCALE)])
    normalization = _table(
        builder, [("offset", _floats(builder, [value])) for value in (_MEAN, _STD)]
    )
    unit = _table(builder, [("byte", _NORMALIZATION), ("offset", normalization)])
    limits = _table(builder, [("offset", _floats(builder, [value])) for value in (255.0, 0.0)])
    return _tensor(
        builder, details["name"], "Raw pixels, 0..255.", (_IMAGE_PROPERTIES, properties),
        units=[unit], stats=limits,
    )  # fmt: skip


def _class_tensor(builder, details, labels):
    content = _table(builder, [])
    description = f"{details['name'].capitalize()} of the classes."
    return _tensor(
        builder, details["name"], description, (_FEATURE_PROPERTIES, content), files=[labels]
    )


def _tensor(builder, name, description, content, units=(), stats=None, files=()):
    """Creates a TensorMetadata table. content: (member of the union, its table)."""
    kind, properties = content
    content = _table(builder, [("byte", kind), ("offset", properties)])
    return _table(
        builder,
        [
            ("offset", builder.CreateString(name)),
            ("offset", builder.CreateString(description)),
            None,
            ("offset", content),
            ("offset", _vector(builder, units)) if units else None,
            ("offset", stats) if stats else None,
            ("offset", _vector(builder, files)) if files else None,
        ],
    )


def _table(builder, fields):
    """Creates a table. fields: ("offset" or "byte", value) by position; None for absent fields."""
    builder.StartObject(len(fields))
    for position, field in enumerate(fields):
        if field is None:
            continue
        kind, value = field
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(position, value, 0)
        else:
            builder.PrependUint8Slot(position, value, 0)
    return builder.EndObject()


def _vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder, values):
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()
