"""Functional Keras models as networks: their groups are found, their layers stay as they are."""

import contextlib
import copy
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from dfa_tf.errors import UserError, first_line
from dfa_tf.models.keras_graph import calls_on, layers_in, models_in, producer
from dfa_tf.models.keras_groups import CONVOLUTIONS, find_groups, map_before_head, named_groups
from dfa_tf.models.network import Group, Network, Precision
from dfa_tf.validation import checked_arguments

AFTER_SOFTMAX = ("Flatten", "Reshape", "Identity", "Dropout")  # layers that may follow a softmax
# The layers added around the model, and those of a new head.
RESERVED_NAMES = ("image", "raw_pixels", "logits_float32")
POOLED, CLASSIFIER = "pooled", "classifier"

Scaling = float | Sequence[float]  # of all channels, or of each
FLOAT32_KINDS = ("Rescaling", "Normalization", "InputLayer", "__keras_tensor__")


@checked_arguments("from_keras")
def from_keras(
    model: keras.Model,
    groups: Sequence[Sequence[str]] | None = None,
    scale: Scaling = 1.0,
    offset: Scaling = 0.0,
    num_classes: int | None = None,
    seed: int = 0,
) -> Network:
    """Returns a functional Keras model as a Network with equal weights.

    The model itself is not changed. Inner models are opened, and a softmax at the end is removed.
    A group consists of the layers of one spatial size. Its features are the ends of its blocks,
    after the normalization and before the activation (DFA §3.4):

    - the sums of residual blocks, else the outputs of convolutions;
    - only those after which later layers read no other map;
    - up to the group's last sum, if it has sums;
    - those that have the shape of the last one.

    The layers from global pooling or flattening on are the head. The pooled map is its input.

    Args:
        model: A built model with one image input `[B, H, W, C]` of fixed size and one output
            `[B, classes]`.
        groups: The names of the layers whose outputs are the features, group by group. By default
            the groups are found as above.
        scale: Factor of pixels 0..255, or of each channel; the model receives
            `scale * pixel + offset`. For keras.applications.MobileNetV2 it is 1 / 127.5. MobileNetV3
            and EfficientNet rescale pixels themselves.
        offset: Offset of pixels, -1 for MobileNetV2.
        num_classes: Number of classes of a new head: a dense layer on the spatial average of the
            map before the model's head, which is left out. None keeps the model's own head.
        seed: Seed of the new head.

    Returns:
        The network, in float32.

    Raises:
        UserError: If the model cannot be rebuilt or split into groups. The message names the layer.
    """
    _check_model(model, has_head=num_classes is None)
    _check_size(model)
    model = _with_layers_in_config(model)
    head = {} if num_classes is None else {"num_classes": num_classes, "seed": seed}
    config = keras.saving.serialize_keras_object(model)
    network = keras_model(config, groups, scale, offset, **head)
    _copy_weights(model, network)
    network.set_weights(network.get_weights())  # updates what layers derive from their weights
    return network


def logits_model(model: keras.Model, scale: Scaling = 1.0, offset: Scaling = 0.0) -> keras.Model:
    """Returns a functional Keras model as a model from pixels 0..255 to logits `[B, classes]`.

    The logits are those of `from_keras`. The model need not have groups, and its images can be of
    any size.

    Args:
        model: A built model with one image input and one output `[B, classes]`.
        scale, offset: See `from_keras`.

    Raises:
        UserError: If the model has another form. The message names it.
    """
    _check_model(model)
    model = _with_layers_in_config(model)
    config = keras.saving.serialize_keras_object(model)
    graph = _graph(config, scale, offset, "float32")
    twin = keras.Model(graph.image, _own_logits(graph), name=model.name)
    _copy_weights(model, twin)
    for layer in twin.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return twin


def _with_layers_in_config(model):
    """Returns the model as one whose config lists its layers.

    The backbones of Keras Hub are functional models whose configs are the arguments of their class.
    """
    with contextlib.suppress(NotImplementedError):  # of a class without a config
        if "layers" in model.get_config():
            return model
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _copy_weights(model, twin):
    originals = {layer.name: layer for layer in layers_in(model)}
    for layer in twin.layers:
        if layer.weights and layer.name in originals:
            layer.set_weights(originals[layer.name].get_weights())


class _Graph(NamedTuple):
    """A Keras model behind an input of pixels."""

    name: str
    image: keras.KerasTensor
    pixels: keras.KerasTensor
    calls: list
    output: keras.KerasTensor


def _graph(config, scale, offset, precision):
    try:
        model = keras.saving.deserialize_keras_object(_adapted_config(config, precision))
    except Exception as error:
        raise UserError(
            f"model: Keras cannot rebuild it from its config ({first_line(error)}); register its "
            "own layers with keras.saving.register_keras_serializable"
        ) from error
    for setting, value in (("scale", scale), ("offset", offset)):
        channels = model.inputs[0].shape[-1]
        if not isinstance(value, int | float) and len(value) != channels:
            raise UserError(
                f"keras_file.{setting}: expected a number, or one for each of {channels} channels, "
                f"got {value!r}"
            )
    if not np.all(scale):
        raise UserError(f"keras_file.scale: expected numbers other than 0, got {scale!r}")
    _remove_softmax_of_last_layer(model)
    image = keras.Input(model.inputs[0].shape[1:], name="image", dtype="float32")
    pixels = keras.layers.Rescaling(scale, offset, name="raw_pixels", dtype="float32")(image)
    try:
        calls, output = calls_on(model, pixels)
    except ValueError as error:
        raise UserError(
            f"{model.name}: its layers cannot be called one by one ({first_line(error)}); an inner "
            "model can be used only once"
        ) from error
    return _Graph(model.name, image, pixels, calls, output)


def _own_logits(graph):
    """Returns the float32 logits of the model's own head."""
    output = _before_softmax(graph.calls, graph.output)
    return keras.layers.Activation("linear", name="logits_float32", dtype="float32")(output)


def _new_logits(pooled_map, num_classes, seed):
    """Returns the float32 logits of a new head on a map."""
    pooled = keras.layers.GlobalAveragePooling2D(name=POOLED)(pooled_map)
    initializer = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(
        num_classes, kernel_initializer=initializer, name=CLASSIFIER, dtype="float32"
    )(pooled)


@keras.saving.register_keras_serializable("dfa_tf")
@checked_arguments("keras_model")
def keras_model(
    config: dict,
    groups: Sequence[Sequence[str]] | None = None,
    scale: Scaling = 1.0,
    offset: Scaling = 0.0,
    precision: Precision = "float32",
    folded: bool = False,
    num_classes: int | None = None,
    seed: int = 0,
) -> Network:
    """Builds the network of `from_keras` with new weights.

    Args:
        config: The model as `keras.saving.serialize_keras_object` returns it.
        groups, scale, offset, num_classes, seed: See `from_keras`.
        precision: Keras dtype policy of all layers but those of pixels and logits.
        folded: Has no effect, because the layers can be of any kind.
    """
    arguments = {"config": config, "groups": groups, "scale": scale, "offset": offset}
    if num_classes is not None:
        arguments |= {"num_classes": num_classes, "seed": seed}
    graph = _graph(config, scale, offset, precision)
    name, image, pixels, calls, _ = graph
    pooled_map = map_before_head(calls, pixels)
    if num_classes is None:
        logits = _own_logits(graph)
    else:
        logits = _new_logits(pooled_map, num_classes, seed)
    maps_of_groups = (
        named_groups(calls, pixels, groups, name) if groups else find_groups(calls, pixels)
    )
    if not maps_of_groups:
        raise UserError(f"{name}: it cannot be split into groups because {_obstacle(calls)}")
    return Network(
        image,
        [
            Group(f"group{k}", tuple(maps), stream=maps[-1])
            for k, maps in enumerate(maps_of_groups, start=1)
        ],
        pooled_map,
        logits,
        {"builder": "dfa_tf>keras_model", "arguments": arguments},
        precision,
        name="".join(c if c.isalnum() or c in "_-" else "_" for c in name),
    )


def _obstacle(calls):
    convolution = next((c.operation.name for c in calls if c.kind in CONVOLUTIONS), None)
    if convolution is None:
        return "it has no convolution"
    return f"other maps bypass {convolution} and all later layers"


def _check_model(model, has_head=True):
    if not getattr(model, "inputs", None):
        raise UserError(
            f"{model.name}: expected a built functional or sequential model, got a model whose "
            "layers are unknown before it runs; build it from keras.Input"
        )
    for each in models_in(model):
        if len(each.inputs) != 1 or len(each.outputs) != 1:
            raise UserError(
                f"{each.name}: expected one image input and one output, got {len(each.inputs)} "
                f"inputs and {len(each.outputs)} outputs"
            )
    if has_head and len(model.outputs[0].shape) != 2:
        raise UserError(
            f"{model.name}: expected an output [B, classes], got {tuple(model.outputs[0].shape)} "
            f"from {model.layers[-1].name}; add a classifier"
        )
    names = [layer.name for layer in layers_in(model)]
    for name in names:
        if name in (RESERVED_NAMES if has_head else (*RESERVED_NAMES, POOLED, CLASSIFIER)):
            raise UserError(f"{model.name}: the layer name {name!r} is reserved; rename the layer")
        if names.count(name) > 1:
            raise UserError(f"{model.name}: several layers are named {name!r}; rename them")


def _check_size(model):
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        raise UserError(
            f"{model.name}: expected an input of fixed size (height, width, channels), got {shape};"
            " build it with input_shape"
        )


def _adapted_config(config, precision):
    """Returns a copy of a model's config for this package.

    - All layers but those of pixels compute in `precision`.
    - This package's batch normalization replaces that of Keras, whose moving statistics would
      diverge between replicas.
    - Each layer that draws random numbers has a seed.
    """
    config = copy.deepcopy(config)

    def visit(value):
        if isinstance(value, dict):
            inner = value.get("config")
            if "class_name" in value and isinstance(inner, dict):
                kind = value["class_name"]
                if "dtype" in inner and kind not in FLOAT32_KINDS:
                    inner["dtype"] = precision
                if kind == "BatchNormalization" and _is_plain(inner):
                    value |= {
                        "module": "dfa_tf.models.normalization",
                        "registered_name": "dfa_tf>BatchNormalization",
                    }
                if "seed" in inner and inner["seed"] is None:
                    inner["seed"] = zlib.crc32(str(inner.get("name")).encode())
            for each in value.values():
                visit(each)
        elif isinstance(value, list | tuple):
            for each in value:
                visit(each)

    visit(config)
    return config


def _is_plain(config):
    """Returns whether a batch normalization is over the channels, with gamma and beta."""
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    return axis in (-1, 3) and config.get("center", True) and config.get("scale", True)


def _is_softmax(operation):
    return getattr(operation, "activation", None) is keras.activations.softmax


def _remove_softmax_of_last_layer(model):
    """Removes a softmax that is the last layer's activation; the layer computes in float32."""
    last = producer(model.outputs[0])
    while isinstance(last, keras.Model) or type(last).__name__ in AFTER_SOFTMAX:
        is_model = isinstance(last, keras.Model)
        last = producer(last.outputs[0] if is_model else last.input)
    if isinstance(last, keras.layers.Dense | keras.layers.Conv2D):
        last.dtype_policy = "float32"
        if _is_softmax(last):
            last.activation = keras.activations.linear


def _before_softmax(calls, output):
    """Returns the output without a softmax operation at the end.

    Raises:
        UserError: If the output is a sigmoid.
    """
    call_of = {id(call.output): call for call in calls}
    skipped, tensor = [], output
    while id(tensor) in call_of:
        call = call_of[id(tensor)]
        if getattr(call.operation, "activation", None) is keras.activations.sigmoid:
            raise UserError(
                f"{call.operation.name}: expected logits or a softmax, got a sigmoid; classes must "
                "exclude each other"
            )
        is_activation = call.kind == "Activation" and _is_softmax(call.operation)
        if call.kind == "Softmax" or is_activation:
            tensor = call.inputs[0]
            for each in reversed(skipped):
                tensor = each.operation(tensor)
            return tensor
        if call.kind not in AFTER_SOFTMAX:
            break
        skipped.append(call)
        tensor = call.inputs[0]
    return output
