"""How much arithmetic a step needs: two operations for each multiplication and addition.

Counted are convolutions and dense layers, and only those that the method needs: what an
implementation computes beyond that makes it slower, not more productive.
"""

import keras


def forward_flops(model):
    """Of one example's way through a Keras functional model."""
    return sum(map(_layer_flops, model.layers))


def training_flops(model, needs_input_gradient=True):
    """Of one example forward, and back for every weight.

    Each product of the forward pass has two in the backward pass: one for the weight, one for the
    input. needs_input_gradient: False where the model's first convolution takes data.
    """
    spared = 0 if needs_input_gradient else _layer_flops(_first_convolution(model))
    return 3 * forward_flops(model) - spared


def beta_step_flops(supernet, group):
    """Of one example in `beta_step`: both networks forward, back through the TS path alone.

    The gradient for beta needs that for the aggregation, which needs no weight's.
    """
    forward, tail = _parts(supernet, group)
    ts = forward_flops(supernet.ts_connectors[group])
    return forward + forward_flops(supernet.st_connectors[group]) + 2 * (ts + forward_flops(tail))


def w_step_flops(supernet, group):
    """Of one example in `w_step`: all of w is trained, the aggregation is a constant."""
    teacher = forward_flops(supernet.teacher.features_model(group))
    student = supernet.student.features_model(group)
    _, tail = _parts(supernet, group)
    return (
        teacher
        + training_flops(student, needs_input_gradient=False)
        + training_flops(supernet.st_connectors[group])
        + training_flops(supernet.ts_connectors[group], needs_input_gradient=False)
        + training_flops(tail)
    )


def distill_step_flops(teacher, student, transforms):
    """Of one example in stage 2: the teacher up to its last feature, the student trained."""
    return (
        forward_flops(teacher.features_model(teacher.group_names[-1]))
        + training_flops(student, needs_input_gradient=False)
        + sum(map(training_flops, transforms))
    )


def _parts(supernet, group):
    forward = sum(
        forward_flops(network.features_model(group))
        for network in (supernet.teacher, supernet.student)
    )
    return forward, supernet.student.tail_model(group, supernet.entry)


def _layer_flops(layer):
    if isinstance(layer, keras.layers.Conv2D):
        _, height, width, _ = layer.output.shape
        return 2 * height * width * _size(layer.kernel)
    if isinstance(layer, keras.layers.Dense):
        return 2 * _size(layer.kernel)
    return 0


def _size(kernel):
    size = 1
    for axis in kernel.shape:
        size *= axis
    return size


def _first_convolution(model):
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
