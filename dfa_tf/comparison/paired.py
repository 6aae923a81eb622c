"""Comparisons of two methods by seed: runs with the same seed have the same initial weights and data."""

import dataclasses
import statistics
from collections.abc import Mapping

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean difference of two methods over the seeds that both have.

    Attributes:
        seeds: Number of seeds.
        mean: Mean difference.
        half_width: Half the width of its 95 % confidence interval; None for a single seed.
    """

    seeds: int
    mean: float
    half_width: float | None

    def text(self, scale: float = 1.0) -> str:
        """Returns "mean +- half width" times a factor, with the sign of the mean."""
        mean = f"{scale * self.mean:+.2f}"
        return mean if self.half_width is None else f"{mean} +- {scale * self.half_width:.2f}"


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Difference | None:
    """Compares two methods by seed.

    The interval is that of Student's t distribution: mean +- t s / sqrt(n), where s is the sample
    standard deviation (n - 1) of the differences.

    Args:
        values: The values of a method, by seed.
        baseline: The values of the method to compare with, by seed.

    Returns:
        The difference values - baseline; None if they have no seed in common.
    """
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    count = len(differences)
    if not count:
        return None
    mean, half_width = statistics.mean(differences), None
    if count > 1:
        t = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
        half_width = t * statistics.stdev(differences) / count**0.5
    return Difference(count, mean, half_width)
