"""Adaptive Distillation: the importance of each path is learnt with the student (BMVC 2021).

The importance follows the size of a loss, not its usefulness: see docs/systems.md.
"""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.validation import NonNegative
from dfa_tf.weightings.weighting import Weighting, weight_measurements


@dataclasses.dataclass(frozen=True)
class Adaptive(Weighting):
    """CE + scale * sum over paths k of (exp(-a_k) lambda_k L_k + a_k).

    The variables a_k start at 0 and are trained by the student's optimizer, with its learning rate,
    momentum and weight decay. For a constant loss, the importance exp(-a_k) tends to
    1 / (lambda_k L_k), so that all paths contribute equally. lambda_k changes the start alone. The
    combined loss can be negative. lambda_k L_k must be positive: otherwise a_k has no limit.

    The weight of a path whose loss is far above 10 stays near 0 for many steps, because a_k
    overshoots. Use weights lambda_k that bring the losses below about 10. CE has the weight 1, or
    `distill.ce_weight`. The methods' own weights of it, such as `kd.gamma`, do not apply.

    Args:
        layerwise: Whether each part of a term has an importance of its own.
        scale: Weight of the sum over the paths; 1 in the authors' code.
    """

    layerwise: bool = False
    scale: NonNegative = 1.0

    name = "adaptive"
    accepts_negative = False

    def check(self, factors):
        """Checks that each path has a loss."""
        for path, factor in factors.items():
            if factor == 0:
                raise UserError(
                    f"distill.weights: expected paths with a weight above 0 for @adaptive(), got 0 for "
                    f"{path}; give it a weight, or use numbers"
                )

    def build(self, paths, steps):
        """Builds the weights."""
        return AdaptiveWeights(paths, self.scale)


class AdaptiveWeights:
    """The importances exp(-a_k) of the paths.

    Args:
        paths: Names of the paths.
        scale: Weight of the sum over the paths.
    """

    def __init__(self, paths: Sequence[str], scale: float = 1.0):
        self._paths = list(paths)
        self._scale = scale
        self._log_losses = _LogLosses(len(self._paths))
        self.layers = [self._log_losses]

    def __call__(self, losses, step):
        """Implements `PathWeights`."""
        a = dict(zip(self._paths, tf.unstack(self._log_losses(())), strict=True))
        importances = {path: tf.exp(-a[path]) for path in losses}
        # Each example's share of a_k, whose mean over the global batch is a_k.
        total = tf.add_n([importances[path] * loss + a[path] for path, loss in losses.items()])
        weights = {path: self._scale * importance for path, importance in importances.items()}
        return self._scale * total, weight_measurements(weights, losses)


class _LogLosses(keras.layers.Layer):
    """The variables a `[K]`."""

    def __init__(self, count):
        super().__init__(name="adaptive", dtype="float32")
        self.a = self.add_weight(shape=(count,), initializer="zeros", name="a")
        self.built = True

    def __call__(self, inputs):
        return tf.convert_to_tensor(self.a)
