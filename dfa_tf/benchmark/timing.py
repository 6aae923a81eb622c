"""Timings of steps in turn, so that a change in the machine's speed affects all of them."""

import dataclasses
import statistics
from collections.abc import Callable

SECONDS_PER_SAMPLE = 0.7
ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Milliseconds:
    """Duration of a step over several samples, in milliseconds."""

    min: float
    median: float
    max: float


class Sampler:
    """Takes samples of the duration of a step.

    Args:
        run: A function of a number of steps that runs them and returns their duration in seconds.

    Attributes:
        samples: Seconds of one step, for each sample.
    """

    def __init__(self, run: Callable[[int], float]):
        self._run = run
        self._steps = 1
        self.samples: list[float] = []

    def warm_up(self) -> None:
        """Traces the step, and finds how many steps make a sample."""
        self._run(1)
        seconds = min(self._run(1) for _ in range(2))
        self._steps = max(1, round(SECONDS_PER_SAMPLE / seconds))

    def sample(self) -> None:
        """Adds a sample."""
        self.samples.append(self.run())

    def run(self) -> float:
        """Runs the steps of a sample, and returns the seconds of one step."""
        return self._run(self._steps) / self._steps

    def milliseconds(self) -> Milliseconds:
        """Returns the duration of a step over all samples."""
        functions = min, statistics.median, max
        return Milliseconds(*(round(1000 * function(self.samples), 3) for function in functions))
