"""Conversion of a SavedModel to TF Lite files that use built-in operations only."""

import os
import pathlib
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.examples import AnyExamples
from dfa_tf.quiet import quiet_libraries

TFLiteKind = Literal["float32", "float16", "dynamic", "int8", "uint8"]
TFLITE_KINDS = get_args(TFLiteKind)
INTEGER_KINDS = ("int8", "uint8")


def convert(
    saved_model: str | os.PathLike, kind: TFLiteKind, calibration: np.ndarray | None = None
) -> bytes:
    """Converts a SavedModel to a TF Lite file.

    The kinds are
        "float32": weights and activations in float32;
        "float16": weights in float16, half the size;
        "dynamic": weights in int8; each kernel chooses float32 or int8 activations;
        "int8", "uint8": weights, by channel, and activations in int8; the input and the outputs
            have the dtype of the name.

    Args:
        saved_model: Folder of a SavedModel with the input `image` `[B, H, W, C]`, float32, 0..255.
        kind: One of TFLITE_KINDS.
        calibration: Images `[N, H, W, C]`, 0..255, that set the activation ranges of the integer
            kinds. Other kinds do not use them.

    Returns:
        The contents of the file.
    """
    with files.without_patterns(pathlib.Path(saved_model)) as folder, quiet_libraries():
        return _converter(folder, kind, calibration).convert()


def _converter(saved_model, kind, calibration):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in INTEGER_KINDS:
        converter.representative_dataset = lambda: (
            {"image": image[tf.newaxis]} for image in tf.cast(calibration, tf.float32)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(kind)
    return converter


def calibration_images(train: AnyExamples, count: int) -> np.ndarray:
    """Returns images whose activations set the ranges of an integer file.

    The choice does not depend on the run's seed, and the images are not augmented. The first image
    is repeated with one black and one white pixel, so that the input's range is 0..255.

    Args:
        train: Training examples.
        count: Number of images; all of them if there are fewer.

    Returns:
        uint8 array `[min(count, len(train)) + 1, H, W, C]`.
    """
    chosen = np.random.default_rng(0).permutation(len(train))[:count]
    batches = train.select(np.sort(chosen)).in_order(batch_size=100).as_numpy_iterator()
    images = np.concatenate([images for images, _ in batches])
    full_range = images[:1].copy()
    full_range[0, 0, 0], full_range[0, -1, -1] = 0, 255
    return np.concatenate([images, full_range])
