"""Fake quantization: a network that answers about as its int8 file does, and can be trained
[Jacob et al., CVPR 2018]."""

import keras
import tensorflow as tf

from dfa_tf.methods.kd import kd_loss
from dfa_tf.methods.losses import cross_entropy

BITS = 8
KERNELS = ("Conv2D", "DepthwiseConv2D", "Dense")
TEMPERATURE, OF_TEACHER = 4.0, 0.9  # as KD takes them


def quantized_objective(network, teacher):
    """How a network learns from its teacher what int8 takes away.

    CE and KD of logits whose kernels and maps are rounded to 8 bits, in inference mode: batch
    normalization is a part of the convolutions by then. Gradients pass the rounding as they are.
    network, teacher: Networks. Returns the objective of `fit`.
    """
    model = with_rounded_maps(network)
    kernels = [
        (layer.kernel, type(layer).__name__)
        for layer in network.layers
        if type(layer).__name__ in KERNELS
    ]

    def objective(images, labels):
        rounded = [(variable, rounded_kernel(variable.value, k)) for variable, k in kernels]
        with keras.StatelessScope(state_mapping=rounded):
            logits = model(tf.cast(images, tf.float32), training=False)
        taught = teacher(images, training=False)["logits"]
        kd = kd_loss(taught, logits, TEMPERATURE)
        ce = cross_entropy(logits, labels)
        loss = OF_TEACHER * kd + (1 - OF_TEACHER) * ce
        return loss, logits, {"kd": kd, "cross_entropy": ce}

    return objective


def with_rounded_maps(network):
    """A Keras model from image to logits of the network's own layers, with what TF Lite holds in
    int8 rounded: the outputs of all layers but those that an activation is made one with, and of
    convolutions that a normalization is."""
    model = keras.Model(network.input, network.output["logits"])
    followers = {}
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                before = tensor._keras_history.operation
                followers.setdefault(id(before), []).append(operation)

    def call(operation, *args, **kwargs):
        output = operation(*args, **kwargs)
        after = followers.get(id(operation), [])
        is_kernel = type(operation).__name__ in KERNELS
        is_one_with_next = bool(after) and all(
            _is_relu(each) or (is_kernel and type(each).__name__ == "BatchNormalization")
            for each in after
        )
        return output if is_one_with_next else RoundedMap()(output)

    return keras.models.clone_model(
        model, clone_function=lambda operation: operation, call_function=call
    )


def _is_relu(operation):
    kind = type(operation).__name__
    activation = getattr(operation, "activation", None)
    return kind == "ReLU" or activation in (keras.activations.relu, keras.activations.relu6)


class RoundedMap(keras.layers.Layer):
    """A map rounded to 256 levels between its least and its largest value in the batch, and 0."""

    def call(self, inputs):
        x = tf.cast(inputs, tf.float32)
        low = tf.minimum(tf.reduce_min(tf.stop_gradient(x)), 0.0)
        high = tf.maximum(tf.reduce_max(tf.stop_gradient(x)), low + 1e-6)
        rounded = tf.quantization.fake_quant_with_min_max_vars(x, low, high, BITS)
        return tf.cast(rounded, inputs.dtype)


def rounded_kernel(kernel, kind):
    """A kernel rounded channel by channel to 255 levels about 0. kind: of its layer."""
    shape = kernel.shape
    if kind == "DepthwiseConv2D":  # [k, k, C, 1]: its channels are the third axis
        kernel = tf.reshape(kernel, [*shape[:2], shape[2] * shape[3]])
    axes = list(range(len(kernel.shape) - 1))
    limit = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axes), 1e-8)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -limit, limit, BITS, narrow_range=True
    )
    return tf.reshape(rounded, shape)
