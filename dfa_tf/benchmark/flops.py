"""Floating-point operations of a step, counted analytically (paper, Eqn 13).

A multiplication and an addition are two operations. Only convolutions and dense layers count, and
only those that the method requires: further work of an implementation does not count as speed.
"""

import math
from collections.abc import Sequence

import keras

from dfa_tf.bilevel.dfa_search import Supernet
from dfa_tf.models.network import Network

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def bridge_loss_flops(supernet: Supernet, group: str) -> int:
    """Returns the operations of one example in the two paths of the bridge loss (paper, Eqn 13).

    Eqn 13 is the cost of both paths for group i of G, where t_T^j and t_S^j are the times of group
    j of the teacher and of the student:

        T_1 = sum_{j=1}^{i} (t_T^j + t_S^j)                            ST path
            + sum_{j=1}^{i} t_T^j + sum_{j=i+1}^{G} t_S^j              TS path
            = 2 sum_{j=1}^{i} t_T^j + sum_{j=1}^{G} t_S^j

    Both paths use the same aggregation, so the teacher's groups count once here. The connectors,
    which Eqn 13 omits, are included.

    Args:
        supernet: The teacher and the student of the search.
        group: Name of group i.
    """
    teacher, head, tail, st, ts = _parts(supernet, group)
    st_path = forward_flops(head) + forward_flops(st)
    ts_path = forward_flops(ts) + forward_flops(tail)
    return forward_flops(teacher) + st_path + ts_path


def beta_step_flops(supernet: Supernet, groups: Sequence[str]) -> int:
    """Returns the operations of one example in `beta_step`.

    One pass of the teacher and one of the student serve all groups. The gradient with respect to
    beta passes back through the TS paths to the aggregations, without gradients of weights.
    """
    teacher, head, *_ = _parts(supernet, groups[-1])
    total = forward_flops(teacher) + forward_flops(head)
    for group in groups:
        *_, tail, st, ts = _parts(supernet, group)
        total += forward_flops(st) + 2 * (forward_flops(ts) + forward_flops(tail))
    return total


def w_step_flops(supernet: Supernet, groups: Sequence[str]) -> int:
    """Returns the operations of one example in `w_step`.

    All of w is trained. The aggregations are constants.
    """
    teacher, head, *_ = _parts(supernet, groups[-1])
    total = forward_flops(teacher) + training_flops(head, needs_input_gradient=False)
    for group in groups:
        *_, tail, st, ts = _parts(supernet, group)
        total += training_flops(st) + training_flops(tail)
        total += training_flops(ts, needs_input_gradient=False)
    return total


def distill_step_flops(teacher: Network, student: Network, transforms: list[keras.Model]) -> int:
    """Returns the operations of one example in stage 2 (the second term of Eqn 14).

    The teacher runs as far as its last feature. The student and its transforms are trained.
    """
    return (
        forward_flops(teacher.features_model(teacher.group_names[-1]))
        + training_flops(student, needs_input_gradient=False)
        + sum(map(training_flops, transforms))
    )


def method_step_flops(
    teachers: Sequence[Network], student: Network, connectors: Sequence[keras.Model]
) -> int:
    """Returns the operations of one example in a distillation from whole teachers.

    Their logits are included. Losses do not count, even if they contain products of maps.
    """
    return (
        sum(map(forward_flops, teachers))
        + training_flops(student, needs_input_gradient=False)
        + sum(map(training_flops, connectors))
    )


def forward_flops(model: keras.Model) -> int:
    """Returns the operations of one example in a forward pass of a functional model."""
    return sum(map(_layer_flops, model.layers))


def training_flops(model: keras.Model, needs_input_gradient: bool = True) -> int:
    """Returns the operations of one example in a forward and a backward pass.

    For each product of the forward pass, the backward pass has two: the gradients with respect to
    the weight and to the input.

    Args:
        model: A functional model.
        needs_input_gradient: False if the input of the first convolution needs no gradient.
    """
    saved = 0
    if not needs_input_gradient:
        first = next(layer for layer in model.layers if isinstance(layer, CONVOLUTIONS))
        saved = _convolution_flops(first, _kernels(first)[:1])
    return 3 * forward_flops(model) - saved


def _parts(supernet, group):
    """Returns (teacher up to the group, student up to the group, student after it, ST, TS)."""
    return (
        supernet.teacher.features_model(group),
        supernet.student.features_model(group),
        supernet.student.tail_model(group, supernet.options.tail_input),
        supernet.st_connectors[group],
        supernet.ts_connectors[group],
    )


def _layer_flops(layer):
    if isinstance(layer, keras.layers.Dense):
        return 2 * math.prod(layer.kernel.shape)
    if isinstance(layer, CONVOLUTIONS):
        return _convolution_flops(layer, _kernels(layer))
    return 0


def _convolution_flops(layer, kernels):
    _, height, width, _ = layer.output.shape
    return 2 * height * width * sum(math.prod(kernel.shape) for kernel in kernels)


def _kernels(layer):
    """Returns the kernels of a convolution: a separable one has two, one after the other."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]
