"""Times cases in turn, so that a machine whose speed drifts does so for all of them."""

import statistics

SECONDS_PER_SAMPLE = 0.7
ROUNDS = 7


class Sampled:
    """A case and its timings so far. run(steps) returns seconds."""

    def __init__(self, run):
        self._run = run
        self._steps = 1
        self.samples = []  # seconds of one step

    def warm_up(self):
        """Traces the step, and finds how many of them make a sample."""
        self._run(1)
        seconds = min(self._run(1) for _ in range(2))
        self._steps = max(1, round(SECONDS_PER_SAMPLE / seconds))

    def sample(self):
        """Takes one more timing, and returns it."""
        self.samples.append(self._run(self._steps) / self._steps)
        return self.samples[-1]

    def milliseconds(self):
        """{"min", "median", "max"} of a step."""
        return {
            name: round(1000 * function(self.samples), 3)
            for name, function in (("min", min), ("median", statistics.median), ("max", max))
        }
