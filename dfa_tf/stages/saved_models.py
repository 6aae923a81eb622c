"""Any saved model as a function from raw pixels to logits: .keras, SavedModel, .tflite."""

import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from dfa_tf.errors import UserError, first_line


def classifier(path):
    """(run, image_shape) of a saved model.

    path: a `.keras` file, a SavedModel folder or a `.tflite` file. run: images [B, H, W, C]
    (0..255) to float32 [B, classes], the model's "logits" where it names an output so, else its
    only output. image_shape: (H, W, C) that it takes, None for what may vary.
    Raises UserError where the file is missing, damaged or of another kind.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"there is no model at {path}")
    readers = {".keras": _keras, ".tflite": _tflite}
    if path.is_dir() and (path / "saved_model.pb").exists():
        read = _saved_model
    elif path.suffix in readers:
        read = readers[path.suffix]
    else:
        raise UserError(f"{path} is no .keras file, SavedModel folder or .tflite file")
    try:
        return read(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as a model ({first_line(error)})") from error


def logits_of(outputs):
    """The logits among a model's outputs."""
    if not isinstance(outputs, dict):
        return outputs
    if "logits" in outputs:
        return outputs["logits"]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    raise UserError(f"the model has the outputs {', '.join(outputs)} and none named logits")


def _keras(path):
    model = keras.saving.load_model(path, compile=False)
    logits_of(model.output)  # raises here what it has to, in plain words
    run = tf.function(lambda images: logits_of(model(images, training=False)))
    return lambda images: run(tf.cast(images, tf.float32)).numpy(), tuple(model.input_shape[1:])


def _saved_model(path):
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    spec = signature.structured_input_signature[1][name]

    def run(images):
        return logits_of(signature(**{name: tf.cast(images, spec.dtype)})).numpy()

    return run, tuple(spec.shape[1:])


def _tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner()
    (name, details), *_ = runner.get_input_details().items()
    batch = int(details["shape"][0])
    fixed = details["shape_signature"][0] != -1
    outputs = runner.get_output_details()

    def run(images):
        images = _quantized(images, details)
        chunks = np.split(images, range(batch, len(images), batch)) if fixed else [images]
        answers = [runner(**{name: chunk}) for chunk in chunks]
        whole = {key: np.concatenate([answer[key] for answer in answers]) for key in outputs}
        return logits_of({key: _dequantized(whole[key], outputs[key]) for key in outputs})

    return run, tuple(int(size) if size != -1 else None for size in details["shape_signature"][1:])


def _quantized(images, details):
    """Pixels in the numbers that a TF Lite tensor holds: value / scale + zero point, or themselves."""
    images, dtype = np.asarray(images), details["dtype"]
    scale, zero_point = details["quantization"]
    if not scale:
        return images.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantized(values, details):
    """What `_quantized` did to pixels, undone: float32."""
    scale, zero_point = details["quantization"]
    values = values.astype(np.float32)
    return (values - zero_point) * np.float32(scale) if scale else values
