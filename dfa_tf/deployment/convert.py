"""From a SavedModel to TF Lite files of several number formats, of built-in operations only."""

import tensorflow as tf

from dfa_tf.quiet import quiet_libraries

INTEGER = ("int8", "uint8")
LADDER = ("float32", "float16", "dynamic", *INTEGER)


def convert(saved_model, kind, calibration=None):
    """The bytes of a TF Lite file.

    saved_model: folder of a SavedModel that takes `image` [B, H, W, C] float32, 0..255.
    kind: of LADDER. "float32"; "float16", weights of half the size; "dynamic", int8 weights that
        are used with activations in float32 or int8 as the kernel likes; "int8" and "uint8", all
        in int8, weights by channel, the input and the outputs int8 or uint8 with it.
    calibration: images [N, H, W, C] of the training part, 0..255, whose activations set the ranges
        of "int8" and "uint8".
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in INTEGER:
        converter.representative_dataset = lambda: (
            {"image": image[tf.newaxis]} for image in tf.cast(calibration, tf.float32)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(kind)
    with quiet_libraries():
        return converter.convert()
