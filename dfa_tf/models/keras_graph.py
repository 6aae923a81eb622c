"""The graph of a Keras model: which operation made a tensor, which ones read it, in which order.

Only this file reads private attributes of Keras: `_keras_history` of tensors and `_inbound_nodes`
of operations, tried with Keras 3.15.
"""

import dataclasses

import keras

from dfa_tf.errors import UserError


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation, a layer for instance, whose output the tensor is."""
    return tensor._keras_history.operation


def consumers(model: keras.Model) -> dict[int, list[keras.Operation]]:
    """Returns `{id(operation): [operations that read its output]}` for a functional model."""
    readers = {}
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(producer(tensor)), []).append(operation)
    return readers


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an operation in a model's graph.

    Attributes:
        operation: The operation, usually a layer.
        inputs: Its input tensors.
        output: Its output tensor.
    """

    operation: keras.Operation
    inputs: list[keras.KerasTensor]
    output: keras.KerasTensor

    @property
    def kind(self) -> str:
        """The name of the operation's class: "Conv2D", for instance."""
        return type(self.operation).__name__


def calls_on(model: keras.Model, x: keras.KerasTensor) -> tuple[list[Call], keras.KerasTensor]:
    """Calls a model's layers on another input. Inner models are opened.

    Args:
        model: A functional model with one input and one output.
        x: The tensor that replaces the model's input.

    Returns:
        The calls in an order in which they can run, and the model's output for `x`.
    """
    calls = []

    def open_model(model, x):
        functional = keras.Model(model.inputs[0], model.outputs[0])  # also of a Sequential
        # The clone itself is not used: cloning calls each operation once, in order.
        keras.models.clone_model(
            functional, input_tensors=x, clone_function=lambda layer: layer, call_function=call
        )
        return calls[-1].output

    def call(operation, *args, **kwargs):
        if isinstance(operation, keras.Model):
            return open_model(operation, args[0])
        output = operation(*args, **kwargs)
        inputs = keras.tree.flatten((args, kwargs))
        tensors = [each for each in inputs if isinstance(each, keras.KerasTensor)]
        calls.append(Call(operation, tensors, output))
        return output

    return calls, open_model(model, x)


def models_in(model: keras.Model):
    """Yields a model and its inner models.

    Raises:
        UserError: If an inner model is not functional.
    """
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            if not getattr(layer, "inputs", None):
                raise UserError(f"{layer.name}: expected a functional model inside {model.name}")
            yield from models_in(layer)


def layers_in(model: keras.Model):
    """Yields all layers of a model and its inner models, except for input layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_in(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer
