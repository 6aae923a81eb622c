"""Any functional Keras model as a network: its groups are found, its layers are used as they are."""

import copy
import zlib

import keras

from dfa_tf.errors import UserError, first_line
from dfa_tf.models.keras_graph import CONVOLUTIONS, Call, found_groups, named_groups
from dfa_tf.models.network import Group, Network, check_precision

PASSING = ("Flatten", "Reshape", "Identity", "Dropout")  # what may follow a softmax
RESERVED = ("image", "raw_pixels", "logits_float32")  # names of what is put around the model
AS_THEY_ARE = ("Rescaling", "Normalization", "InputLayer", "__keras_tensor__")  # of pixels


def from_keras(model, groups=None, scale=1.0, offset=0.0):
    """The Network of a functional Keras model, with its weights; the model is left as it is.

    A group is of one spatial size. Its features are what blocks end in, as far as one map alone
    carries all that follows from it: the sums of residual blocks, else what convolutions give,
    after their normalization and before the activation (DFA §3.4). Of those, the ones up to the
    last sum, or the last convolution where there is no sum, that have its shape. What comes behind
    global pooling is the head, and the logits are what a last softmax takes. Models within the
    model are opened.

    model: built, with one image input [B, H, W, C] of fixed size and one output [B, classes].
    groups: lists of names of layers, whose outputs are the features of each group, to choose others.
    scale, offset: the model is given scale * pixel + offset of pixels 0..255. (Of keras.applications
        MobileNetV2 takes 1 / 127.5 and -1; MobileNetV3 and EfficientNet have that inside.)
    Raises UserError, naming the layer, for what cannot be rebuilt or split.
    """
    _check(model)
    network = keras_model(keras.saving.serialize_keras_object(model), groups, scale, offset)
    own = {layer.name: layer for layer in _layers(model)}
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(own[layer.name].get_weights())
    network.set_weights(network.get_weights())  # for what layers derive from them
    return network


@keras.saving.register_keras_serializable("dfa_tf")
def keras_model(config, groups=None, scale=1.0, offset=0.0, precision="float32", folded=False):
    """The network of `from_keras`, with new weights. config: what Keras serializes of the model.

    folded: changes nothing here, as the layers may be of any kind.
    """
    check_precision(precision)
    spec = {
        "builder": "dfa_tf>keras_model",
        "arguments": {"config": config, "groups": groups, "scale": scale, "offset": offset},
    }
    try:
        model = keras.saving.deserialize_keras_object(_of_precision(config, precision))
    except Exception as error:
        raise UserError(
            f"the model cannot be rebuilt from its config ({first_line(error)})"
        ) from error
    _without_softmax(model)
    image = keras.Input(model.inputs[0].shape[1:], name="image", dtype="float32")
    pixels = keras.layers.Rescaling(scale, offset, name="raw_pixels", dtype="float32")(image)
    try:
        calls, output = _calls_on(model, pixels)
    except ValueError as error:
        raise UserError(
            f"{model.name} cannot be taken apart ({first_line(error)}): does it use a model within it twice?"
        ) from error
    output = _before_softmax(calls, output)
    logits = keras.layers.Activation("linear", name="logits_float32", dtype="float32")(output)
    found = (
        named_groups(calls, pixels, groups, model.name) if groups else found_groups(calls, pixels)
    )
    if not found:
        crossing = next((c.operation.name for c in calls if c.kind in CONVOLUTIONS), None)
        told = (
            f"other maps pass by {crossing} and all later ones"
            if crossing
            else "it has no convolution"
        )
        raise UserError(f"{model.name} cannot be split into groups: {told}")
    named = [Group(f"group{k}", tuple(maps), maps[-1]) for k, maps in enumerate(found, start=1)]
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in model.name)
    return Network(image, named, logits, spec, precision, name=name)


def _check(model):
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UserError(
            f"{getattr(model, 'name', model)!r} is no built functional or sequential Keras model: its layers are not known before it runs"
        )
    for layer in _models(model):
        if len(layer.inputs) != 1 or len(layer.outputs) != 1:
            raise UserError(
                f"{layer.name} has {len(layer.inputs)} inputs and {len(layer.outputs)} outputs: it needs one image and one output"
            )
    shape = model.inputs[0].shape[1:]
    if len(shape) != 3 or None in shape:
        raise UserError(
            f"{model.name} takes {(*shape,)}: build it with a fixed input_shape=(height, width, channels)"
        )
    if len(model.outputs[0].shape) != 2:
        raise UserError(
            f"{model.name} ends in {model.outputs[0].shape[1:]}, not in classes: its last layer is {model.layers[-1].name}"
        )
    names = [layer.name for layer in _layers(model)]
    for name in names:
        if name in RESERVED:
            raise UserError(
                f"{model.name} has a layer called {name}, as this package's own: rename it"
            )
        if names.count(name) > 1:
            raise UserError(f"{model.name} has several layers called {name}: rename them")


def _models(model):
    """The model and those within it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            if not getattr(layer, "inputs", None):
                raise UserError(f"{layer.name} within {model.name} is no functional model")
            yield from _models(layer)


def _layers(model):
    """All layers with those of the models within, but for inputs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _of_precision(config, precision):
    """The config with all layers but those of pixels in `precision`, this package's batch
    normalization in the place of Keras' own, and a seed for each layer that draws.

    With replicas Keras' own lets the moving statistics of each go their own way.
    """
    config = copy.deepcopy(config)

    def visit(value):
        if isinstance(value, dict):
            inner = value.get("config")
            if "class_name" in value and isinstance(inner, dict):
                kind = value["class_name"]
                if "dtype" in inner and kind not in AS_THEY_ARE:
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
    """Whether a batch normalization is over the channels, with a scale and an offset."""
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    return axis in (-1, 3) and config.get("center", True) and config.get("scale", True)


def _is_softmax(operation):
    return getattr(operation, "activation", None) is keras.activations.softmax


def _without_softmax(model):
    """Takes a last layer's own softmax away, and has the layer compute in float32."""
    tensor = model.outputs[0]
    while True:
        last = tensor._keras_history.operation
        if isinstance(last, keras.Model):
            tensor = last.outputs[0]
        elif type(last).__name__ in PASSING:
            tensor = tensor._keras_history.operation._inbound_nodes[0].input_tensors[0]
        else:
            break
    if isinstance(last, keras.layers.Dense | keras.layers.Conv2D):
        last.dtype_policy = "float32"
        if _is_softmax(last):
            last.activation = keras.activations.linear


def _before_softmax(calls, output):
    """The output as it would be without a softmax at the end. Raises UserError for a sigmoid."""
    maker = {id(call.output): call for call in calls}
    passed, tensor = [], output
    while id(tensor) in maker:
        call = maker[id(tensor)]
        if getattr(call.operation, "activation", None) is keras.activations.sigmoid:
            raise UserError(
                f"{call.operation.name} ends in a sigmoid: the classes of a network exclude each other"
            )
        is_activation = call.kind == "Activation" and _is_softmax(call.operation)
        if call.kind == "Softmax" or is_activation:
            tensor = call.inputs[0]
            for after in reversed(passed):
                tensor = after.operation(tensor)
            return tensor
        if call.kind not in PASSING:
            break
        passed.append(call)
        tensor = call.inputs[0]
    return output


def _calls_on(model, x):
    """Calls the model's layers on `x`, those of models within it too: ([Call], the output)."""
    calls = []

    def open_up(model, x):
        functional = keras.Model(model.inputs[0], model.outputs[0])  # what a Sequential is, too
        # Not for the clone, but to have each of its operations called, in order.
        keras.models.clone_model(
            functional, input_tensors=x, clone_function=lambda layer: layer, call_function=call
        )
        return calls[-1].output

    def call(operation, *args, **kwargs):
        if isinstance(operation, keras.Model):
            return open_up(operation, args[0])
        output = operation(*args, **kwargs)
        inputs = keras.tree.flatten((args, kwargs))
        tensors = [each for each in inputs if isinstance(each, keras.KerasTensor)]
        calls.append(Call(operation, tensors, output))
        return output

    return calls, open_up(model, x)
