"""Saved models of any format, .keras, SavedModel or .tflite, as functions from pixels to logits."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.errors import UserError, first_line
from dfa_tf.models.from_keras import Scaling, logits_model
from dfa_tf.models.network import Network


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A saved model as a function.

    Attributes:
        logits: Function of images `[B, H, W, C]`, 0..255, that returns their logits, float32
            `[B, classes]`.
        image_shape: (height, width, channels) of the images; None for a dimension that may vary.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    image_shape: tuple[int | None, ...]


def load_classifier(
    path: str | os.PathLike, scale: Scaling = 1.0, offset: Scaling = 0.0
) -> Classifier:
    """Loads a saved model.

    A softmax at the end of a Keras model is removed, as `from_keras` removes it. Other formats do
    not show their layers: see `as_logits`.

    Args:
        path: A `.keras` file, a SavedModel folder or a `.tflite` file. The model has one input, and
            either an output named "logits" or a single output.
        scale, offset: See `from_keras`; for `.keras` files that this package did not save.

    Raises:
        UserError: If the file is missing, damaged or of another format. Its function raises
            UserError if the model cannot be run.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: file not found; give the path of a saved model")
    is_saved_model = path.is_dir() and (path / "saved_model.pb").exists()
    if not is_saved_model and path.suffix not in (".keras", ".tflite"):
        raise UserError(f"{path}: expected a .keras file, a SavedModel folder or a .tflite file")
    try:
        if path.suffix == ".keras" and not is_saved_model:
            loaded = _load_keras(path, scale, offset)
        else:
            loaded = _load_saved_model(path) if is_saved_model else _load_tflite(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as a model ({first_line(error)}); the file may be damaged, "
            "or made to run code, which is refused"
        ) from error

    def logits(images):
        try:
            return loaded.logits(images)
        except Exception as error:
            raise UserError(
                f"{path}: cannot be run ({first_line(error)}); the file may be damaged"
            ) from error

    return dataclasses.replace(loaded, logits=logits)


def _load_keras(path, scale, offset):
    model = keras.saving.load_model(path, compile=False)
    if isinstance(model, Network):  # the file contains its own scale
        selected = keras.Model(model.inputs, model.output["logits"])
    else:
        if isinstance(getattr(model, "output", None), dict):
            model = keras.Model(model.inputs, _select_logits(model.output), name=model.name)
        selected = logits_model(model, scale, offset)
    shape = (None, *selected.input_shape[1:])
    run = tf.function(
        lambda images: selected(images, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )

    def logits(images):
        return run(tf.cast(images, tf.float32)).numpy()

    return Classifier(logits, tuple(selected.input_shape[1:]))


def _load_saved_model(path):
    with files.without_patterns(pathlib.Path(path)) as folder:
        model = tf.saved_model.load(str(folder))
    signature = model.signatures["serving_default"]
    _select_logits(signature.structured_outputs)
    (name,) = signature.structured_input_signature[1]
    spec = signature.structured_input_signature[1][name]

    def logits(images):
        return _select_logits(signature(**{name: tf.cast(images, spec.dtype)})).numpy()

    return Classifier(logits, tuple(spec.shape[1:]))


def _load_tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner()
    (name, details), *_ = runner.get_input_details().items()
    batch_size = int(details["shape"][0])
    has_fixed_batch = details["shape_signature"][0] != -1
    output_details = runner.get_output_details()
    _select_logits(output_details)

    def logits(images):
        images = _quantize(images, details)
        places = range(batch_size, len(images), batch_size)
        batches = np.split(images, places) if has_fixed_batch else [images]
        results = [runner(**{name: batch}) for batch in batches]
        outputs = {
            key: _dequantize(
                np.concatenate([result[key] for result in results]), output_details[key]
            )
            for key in output_details
        }
        return _select_logits(outputs)

    shape = details["shape_signature"][1:]
    return Classifier(logits, tuple(int(size) if size != -1 else None for size in shape))


def as_logits(outputs: np.ndarray) -> np.ndarray:
    """Returns the logits behind the outputs `[B, classes]` of a classifier.

    Outputs that are probabilities, non-negative with a sum of 1 in each row, are replaced by their
    logarithms. Cross entropy and predictions are then those of the logits.
    """
    rounding = 0.5 * outputs.shape[-1] / 256  # of the sum of 8-bit probabilities
    sums_to_one = np.allclose(outputs.sum(-1), 1.0, rtol=0, atol=max(1e-3, min(rounding, 0.2)))
    if (outputs < 0).any() or not sums_to_one:
        return outputs
    return np.log(np.maximum(outputs, np.finfo(np.float32).tiny))


def _select_logits(outputs):
    """Returns the output named "logits", or the only output."""
    if not isinstance(outputs, dict):
        return outputs
    if "logits" in outputs:
        return outputs["logits"]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    raise UserError(f"expected an output named logits, got the outputs {', '.join(outputs)}")


def _quantize(images, details):
    """Converts pixels to the numbers of a TF Lite tensor: pixel / scale + zero point, rounded."""
    images, dtype = np.asarray(images), details["dtype"]
    scale, zero_point = details["quantization"]
    if not scale:
        return images.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantize(values, details):
    """Converts the numbers of a TF Lite tensor to float32: (value - zero point) * scale."""
    scale, zero_point = details["quantization"]
    values = values.astype(np.float32)
    return (values - zero_point) * np.float32(scale) if scale else values
