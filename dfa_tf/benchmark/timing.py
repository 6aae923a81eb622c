"""Timings of steps in turn, so that a change in the machine's speed affects all of them."""

import dataclasses
import random
import statistics
from collections.abc import Callable, Sequence

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


def median_and_interval(values: Sequence[float], resamples: int = 4000) -> tuple[float, ...]:
    """Returns the median and its 95 % bootstrap interval: (median, lower end, upper end)."""
    draws = random.Random(0)
    medians = sorted(
        statistics.median(draws.choices(values, k=len(values))) for _ in range(resamples)
    )
    return statistics.median(values), medians[resamples // 40], medians[-resamples // 40]
