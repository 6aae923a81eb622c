"""A network as a SavedModel that needs only TensorFlow."""

import os

import keras
import tensorflow as tf

from dfa_tf.models.network import Network
from dfa_tf.quiet import quiet_libraries


def inference_model(network: Network, input_dtype: str) -> keras.Model:
    """Builds a Keras model from raw pixels to class scores, of the network's own layers.

    Args:
        network: A float32 network.
        input_dtype: "float32" or "uint8".

    Returns:
        A model from `image` `[B, H, W, C]`, 0..255, to the float32 outputs `logits` and
        `probabilities` `[B, classes]`.
    """
    classify = keras.Model(network.input, network.output["logits"])
    image = keras.Input(network.image_shape, name="image", dtype=input_dtype)
    pixels = image if input_dtype == "float32" else keras.ops.cast(image, "float32")
    logits = keras.layers.Identity(name="logits")(classify(pixels))
    outputs = {
        "logits": logits,
        "probabilities": keras.layers.Softmax(name="probabilities")(logits),
    }
    return keras.Model(image, outputs, name=network.name)


def write_saved_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a model of one input as a SavedModel with the signature "serving_default".

    Keras' own `export` writes all weights twice.
    """
    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    shape, dtype = model.inputs[0].shape, model.inputs[0].dtype

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="image")])
    def serve(image):
        return model(image, training=False)

    with quiet_libraries():
        tf.saved_model.save(module, str(path), {"serving_default": serve})
