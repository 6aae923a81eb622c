"""Products of gradients with a direction, by forward-mode differentiation."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


def directional_derivatives(
    function: Callable[[], tf.Tensor],
    variables: Sequence[keras.Variable],
    values: Sequence[tf.Tensor],
    direction: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Returns the derivatives of several losses along one direction in the space of weights.

    These are the products <grad f_k, v> for all k. Forward mode computes them in one pass. Reverse
    mode would need one backward pass for each k, or two nested ones (the gradient, with respect to
    u, of <sum over k of u_k grad f_k, v>), and would keep the intermediate maps of both.

    The variables keep their values, which other code may need: within `function` they read as
    `values`. What `function` assigns, such as moving averages, is discarded.

    Args:
        function: A function that returns f_1, ..., f_K as a float tensor `[K]`.
        variables: The variables to substitute while `function` runs.
        values: Their substitutes, the point at which to differentiate.
        direction: v, one tensor for each of the first variables. v is 0 for the others.

    Returns:
        Tensor `[K]`.
    """
    moving = list(values[: len(direction)])
    mapping = list(zip(variables, values, strict=True))
    with (
        tf.autodiff.ForwardAccumulator(moving, list(direction)) as accumulator,
        keras.StatelessScope(state_mapping=mapping),
    ):
        losses = function()
    return accumulator.jvp(losses, tf.UnconnectedGradients.ZERO)
