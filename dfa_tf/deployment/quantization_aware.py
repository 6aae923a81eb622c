"""Fake quantization: a trainable network that computes about as its int8 file does.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from dfa_tf.methods.kd import kd_loss
from dfa_tf.methods.losses import cross_entropy
from dfa_tf.models.keras_graph import consumers
from dfa_tf.models.network import Network

BITS = 8
KERNEL_LAYERS = ("Conv2D", "DepthwiseConv2D", "Dense")
TEMPERATURE, KD_WEIGHT = 4.0, 0.9  # KD's own defaults


def quantized_objective(network: Network, teacher: Network) -> Callable:
    """Builds the objective that fine-tunes a network for int8.

    The loss is cross entropy plus KD of logits whose kernels and feature maps are rounded to 8
    bits. The network runs in inference mode, because its int8 file has batch normalization folded
    into the convolutions. Gradients ignore the rounding.

    Args:
        network: The network that is trained.
        teacher: The frozen teacher.

    Returns:
        A function of images `[B, H, W, C]` and labels `[B]` that returns the loss `[B]`, the
        logits `[B, classes]` and the terms `{name: [B]}`, as `Problem` expects.
    """
    model = with_rounded_maps(network)
    kernels = [
        (layer.kernel, type(layer).__name__)
        for layer in network.layers
        if type(layer).__name__ in KERNEL_LAYERS
    ]

    def objective(images, labels, step=0):
        rounded = [(variable, rounded_kernel(variable.value, kind)) for variable, kind in kernels]
        with keras.StatelessScope(state_mapping=rounded):
            logits = model(tf.cast(images, tf.float32), training=False)
        teacher_logits = teacher(images, training=False)["logits"]
        kd = kd_loss(teacher_logits, logits, TEMPERATURE)
        ce = cross_entropy(logits, labels)
        loss = KD_WEIGHT * kd + (1 - KD_WEIGHT) * ce
        return loss, logits, {"kd": kd, "cross_entropy": ce}

    return objective


def with_rounded_maps(network: Network) -> keras.Model:
    """Builds a model of the network's own layers that rounds what TF Lite stores in int8.

    These are the outputs of all layers, except where TF Lite fuses the layer with the next one: a
    convolution with the normalization after it, and any layer with the ReLU after it.

    Returns:
        A Keras model from images `[B, H, W, C]` to logits `[B, classes]`.
    """
    model = keras.Model(network.input, network.output["logits"])
    readers = consumers(model)

    def call(operation, *args, **kwargs):
        output = operation(*args, **kwargs)
        next_operations = readers.get(id(operation), [])
        has_kernel = type(operation).__name__ in KERNEL_LAYERS
        is_fused = bool(next_operations) and all(
            _is_relu(reader) or (has_kernel and type(reader).__name__ == "BatchNormalization")
            for reader in next_operations
        )
        return output if is_fused else RoundedMap()(output)

    return keras.models.clone_model(
        model, clone_function=lambda operation: operation, call_function=call
    )


def _is_relu(operation):
    kind = type(operation).__name__
    activation = getattr(operation, "activation", None)
    return kind == "ReLU" or activation in (keras.activations.relu, keras.activations.relu6)


class RoundedMap(keras.layers.Layer):
    """Rounds a map to 256 levels between its minimum and its maximum in the batch.

    The levels include 0. Inside this range the gradient passes unchanged.
    """

    def call(self, inputs):
        x = tf.cast(inputs, tf.float32)
        low = tf.minimum(tf.reduce_min(tf.stop_gradient(x)), 0.0)
        high = tf.maximum(tf.reduce_max(tf.stop_gradient(x)), low + 1e-6)
        rounded = tf.quantization.fake_quant_with_min_max_vars(x, low, high, BITS)
        return tf.cast(rounded, inputs.dtype)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Returns a dense map. Keras takes the product of a map and a scalar for sparse."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def rounded_kernel(kernel: tf.Tensor, kind: str) -> tf.Tensor:
    """Rounds a kernel to 255 levels, symmetric around 0, for each output channel.

    Args:
        kernel: Float32 kernel of a layer.
        kind: Class name of the layer, one of KERNEL_LAYERS.

    Returns:
        The rounded kernel, of the same shape. The gradient passes unchanged.
    """
    shape = kernel.shape
    if kind == "DepthwiseConv2D":  # [k, k, C, 1]: the channels are the third axis
        kernel = tf.reshape(kernel, [*shape[:2], shape[2] * shape[3]])
    axes = list(range(len(kernel.shape) - 1))
    limit = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axes), 1e-8)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -limit, limit, BITS, narrow_range=True
    )
    return tf.reshape(rounded, shape)
