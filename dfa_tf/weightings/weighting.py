"""The interface of weightings.

A path is a term of a distillation method, such as "kd". With a layer-wise weighting, each part of a
term with parts is a path, such as "at/group1". L_k is the loss of path k, lambda_k its constant
weight in the method.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import tensorflow as tf

from dfa_tf.validation import Settings


class PathWeights(Protocol):
    """The weights of the paths of one run.

    Attributes:
        layers: Keras layers whose variables are trained together with the student.
    """

    @property
    def layers(self) -> Sequence: ...

    def __call__(
        self, losses: Mapping[str, tf.Tensor], step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Combines the losses of the paths.

        Args:
            losses: lambda_k L_k of each path, `[B]`.
            step: Number of finished steps of the run.

        Returns:
            The combined loss `[B]`, and measurements `{name: [B]}`.
        """


class Weighting(Settings):
    """Base class of the weightings that `distill.weights` accepts in place of numbers.

    Attributes:
        name: The weighting's name in gin.
        accepts_negative: Whether the loss of a path can be negative.
        layerwise: Whether each part of a term is a path of its own.
    """

    name: ClassVar[str]
    accepts_negative: ClassVar[bool] = True
    layerwise: bool = False

    def check(self, factors: Mapping[str, float]) -> None:
        """Checks that the weighting can weigh these paths.

        Args:
            factors: lambda_k of each path.

        Raises:
            UserError: If it cannot.
        """

    def build(self, paths: Sequence[str], steps: int) -> PathWeights:
        """Builds the weights of paths that `check` accepts, in the scope of the run's strategy.

        Args:
            paths: The paths of the run.
            steps: Number of training steps.
        """
        raise NotImplementedError


class ConstantWeights:
    """A constant factor for each path.

    Args:
        factors: The factor of each path.
    """

    layers = ()

    def __init__(self, factors: Mapping[str, float]):
        self._factors = factors

    def __call__(self, losses, step):
        """Implements `PathWeights`."""
        return sum(self._factors[path] * loss for path, loss in losses.items()), {}


def weight_measurements(
    weights: Mapping[str, tf.Tensor], losses: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Returns the weight of each path as a measurement, `{"weight/<path>": [B]}`.

    Args:
        weights: The weight of each path, scalars.
        losses: The losses `[B]`.
    """
    return {f"weight/{path}": tf.fill(tf.shape(losses[path]), w) for path, w in weights.items()}
