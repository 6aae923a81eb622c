"""What a TF Lite file tells of itself: TF Lite's own metadata, and files packed behind the model.

The metadata is a FlatBuffer of TensorFlow's metadata_schema.fbs, which Android's tools read; the
files are a ZIP archive at the end of the model's file, as that schema has it: `unzip -p
student_int8.tflite labels.txt` shows one.
"""

import dataclasses
import io
import json
import zipfile

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

LABELS, ABOUT = "labels.txt", "about.json"
_IDENTIFIER, _MODEL_IDENTIFIER, _BUFFER = b"M001", b"TFL3", "TFLITE_METADATA"
# Members of unions and enumerations of metadata_schema.fbs.
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION, _TENSOR_AXIS_LABELS = 2, 1, 1, 2
_RGB, _GRAYSCALE = 1, 2
ALIGNMENT = 16
_MEAN, _STD = 0.0, 1.0  # normalization happens inside of the model: it takes raw pixels


@dataclasses.dataclass(frozen=True)
class About:
    """What there is to tell. command: that made the file. classes: names by label.
    image_shape: (height, width, channels).
    """

    name: str
    version: str
    command: str
    classes: tuple
    image_shape: tuple


def with_metadata(model, about):
    """The bytes of a TF Lite file with its metadata, LABELS and ABOUT. model: those without."""
    unpacked = schema.ModelT.InitFromPackedBuf(model, 0)
    details = [_details(tensor) for tensor in _ends(unpacked)]
    unpacked.description = about.name
    buffer = schema.BufferT()
    buffer.data = list(_metadata(about, details))
    unpacked.buffers.append(buffer)
    for each in unpacked.buffers:
        each.__class__ = _AlignedBuffer
    entry = schema.MetadataT()
    entry.name, entry.buffer = _BUFFER, len(unpacked.buffers) - 1
    unpacked.metadata = [*(unpacked.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(unpacked.Pack(builder), _MODEL_IDENTIFIER)
    whole = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(LABELS, "\n".join([*about.classes, ""]))
        archive.writestr(ABOUT, json.dumps(_described(about, details), indent=2))
    return whole.getvalue()


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data begins at a multiple of 16 bytes, as TF Lite's schema has it and its
    Python code forgets."""

    def Pack(self, builder):
        data = bytes(bytearray(self.data)) if self.data is not None else b""
        if data:
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if data:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _ends(model):
    """The tensors of the input and of the outputs, with the names of the signature."""
    (graph,) = model.subgraphs
    names = {
        each.tensorIndex: each.name.decode()
        for signature in model.signatureDefs or []
        for each in (*signature.inputs, *signature.outputs)
    }
    for k in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[k]
        yield names.get(k, tensor.name.decode()), tensor


def _details(named):
    name, tensor = named
    dtypes = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    quantization = tensor.quantization
    is_quantized = quantization is not None and quantization.scale is not None
    return {
        "name": name,
        "dtype": dtypes[tensor.type],
        "scale": float(quantization.scale[0]) if is_quantized else None,
        "zero_point": int(quantization.zeroPoint[0]) if is_quantized else None,
    }


def _described(about, details):
    image, *outputs = details
    return {
        "name": about.name,
        "version": about.version,
        "command": about.command,
        "input": image
        | {
            "shape": list(about.image_shape),
            "pixels": "raw, 0..255; the model normalizes them itself. Where it has a scale, "
            "give pixel / scale + zero_point",
        },
        "outputs": outputs,
        "labels": LABELS,
    }


def _metadata(about, details):
    """The ModelMetadata FlatBuffer."""
    builder = flatbuffers.Builder(1024)
    image, *outputs = details

    def labels():
        return _table(
            builder,
            [
                ("offset", builder.CreateString(LABELS)),
                ("offset", builder.CreateString("Names of the classes, one a line.")),
                ("byte", _TENSOR_AXIS_LABELS),
            ],
        )

    graph = _table(
        builder,
        [
            ("offset", builder.CreateString(about.name)),
            None,
            ("offset", _vector(builder, [_image_tensor(builder, about, image)])),
            (
                "offset",
                _vector(builder, [_class_tensor(builder, each, labels()) for each in outputs]),
            ),
        ],
    )
    told = f"Classifies images into {len(about.classes)} classes. Made by: {about.command}"
    root = _table(
        builder,
        [
            ("offset", builder.CreateString(about.name)),
            ("offset", builder.CreateString(told)),
            ("offset", builder.CreateString(about.version)),
            ("offset", _vector(builder, [graph])),
            ("offset", builder.CreateString("dfa_tf")),
            None,
            None,
            ("offset", builder.CreateString("1.0.0")),
        ],
    )
    builder.Finish(root, _IDENTIFIER)
    return bytes(builder.Output())


def _image_tensor(builder, about, details):
    properties = _table(builder, [("byte", _RGB if about.image_shape[-1] == 3 else _GRAYSCALE)])
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
    told = f"{details['name'].capitalize()} of the classes."
    return _tensor(builder, details["name"], told, (_FEATURE_PROPERTIES, content), files=[labels])


def _tensor(builder, name, told, content, units=(), stats=None, files=()):
    kind, properties = content
    content = _table(builder, [("byte", kind), ("offset", properties)])
    return _table(
        builder,
        [
            ("offset", builder.CreateString(name)),
            ("offset", builder.CreateString(told)),
            None,
            ("offset", content),
            ("offset", _vector(builder, units)) if units else None,
            ("offset", stats) if stats else None,
            ("offset", _vector(builder, files)) if files else None,
        ],
    )


def _table(builder, fields):
    """A table. fields: (kind, value) by place, None for those that are left out."""
    builder.StartObject(len(fields))
    for place, field in enumerate(fields):
        if field is None:
            continue
        kind, value = field
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
        else:
            builder.PrependUint8Slot(place, value, 0)
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
