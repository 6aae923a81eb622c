"""A weighting that follows a process: a schedule of weights, from a search or another run."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.process import Process
from dfa_tf.validation import NOT_BINDABLE, NonNegative
from dfa_tf.weightings.weighting import Weighting, weight_measurements


@dataclasses.dataclass(frozen=True)
class ProcessWeighting(Weighting):
    """CE + sum over paths k of w_k(step) lambda_k L_k, where w is stretched to the run.

    Args:
        process: The process. `bin/distill` reads it from `file` or from the search of its workdir.
        file: The path of a process.json; "" for the search of the same workdir.
        threshold: Weights below it count as 0: DistPro's tau, 0.5 in the paper. That this applies to
            the weights after their factor K is inferred. Paths whose weight is 0 throughout an epoch
            are not computed.
        final: Whether to use the last weights of the process at every step.
        layerwise: Whether each part of a term is a path, as for the process of a layer-wise run.
    """

    process: Process | None = dataclasses.field(default=None, repr=False, metadata=NOT_BINDABLE)
    file: str = ""
    threshold: NonNegative = 0.0
    final: bool = False
    layerwise: bool = False

    name = "process"

    def check(self, factors: Mapping[str, float]) -> None:
        """Checks that the process is for these paths, and that some weight reaches the threshold."""
        if self.process is None:
            raise UserError("process: expected the process to follow, got None; search one first")
        self.process.check_paths(list(factors), self.file or "process")
        used = self.process.weights[-1:] if self.final else self.process.weights
        highest = float(np.max(used))
        if highest == 0:
            raise UserError(f"{self.file or 'process'}: expected a weight above 0, got none")
        if highest < self.threshold:
            raise UserError(
                f"process.threshold: expected at most {highest:.3g}, the highest weight of the "
                f"process, got {self.threshold}"
            )

    def build(self, paths, steps):
        """Builds the weights."""
        assert self.process is not None
        weights = self.process.stretched(steps)
        if self.final:
            weights = np.repeat(weights[-1:], steps, 0)
        weights = np.where(weights < self.threshold, 0, weights).astype(np.float32)
        if not weights.any():
            raise UserError(
                f"process.threshold: expected a weight of at least {self.threshold} in one of the "
                f"{steps} steps of the run, got none; lower it, or train longer"
            )
        return ScheduledWeights(
            {path: weights[:, self.process.paths.index(path)] for path in paths}
        )


class ScheduledWeights:
    """A weight for each path and step.

    Args:
        weights: For each path, an array `[steps]`.
    """

    layers = ()

    def __init__(self, weights: dict[str, np.ndarray]):
        self._weights = weights

    def segments(self, ends: Sequence[int]) -> list[tuple[int, set[str]]]:
        """Splits a run into parts with the same paths.

        Args:
            ends: The last step of each epoch.

        Returns:
            (last step, paths whose weight is not 0 throughout) of each part.
        """
        parts: list[tuple[int, set[str]]] = []
        first = 0
        for end in ends:
            paths = {path for path, weights in self._weights.items() if weights[first:end].any()}
            if parts and parts[-1][1] == paths:
                parts.pop()
            parts.append((end, paths))
            first = end
        return parts

    def __call__(self, losses, step):
        """Implements `PathWeights`."""
        weights = {path: tf.gather(tf.constant(self._weights[path]), step) for path in losses}
        total = tf.add_n([weights[path] * loss for path, loss in losses.items()])
        return total, weight_measurements(weights, losses)
