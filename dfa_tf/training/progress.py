"""What a run tells the person in front of it."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15
SMOOTHING = 0.2  # how much the latest block counts


class Progress:
    """A bar on a terminal; elsewhere a line every so often.

    label: what is running. first, last: steps. images_per_step: to tell images per second.
    """

    def __init__(self, label, first, last, images_per_step, quiet=False):
        self._label = label
        self._step, self._last = first, last
        self._images_per_step = images_per_step
        self._quiet = quiet
        self._smooth = {}
        self._line_at = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            self._bar = tqdm(
                total=last, initial=first, desc=label, unit="step", dynamic_ncols=True, leave=True
            )

    def update(self, step, seconds, measured):
        """Tells of the steps up to `step`, the last ones of which took `seconds`.

        measured: {name: number} to show, smoothed as the speed is.
        """
        steps = step - self._step
        self._step = step
        latest = measured | {"images/s": self._images_per_step * steps / max(seconds, 1e-9)}
        for name, value in latest.items():
            before = self._smooth.get(name, value)
            self._smooth[name] = before + SMOOTHING * (value - before)
        shown = {name: f"{value:.4g}" for name, value in self._smooth.items()}
        shown["images/s"] = f"{self._smooth['images/s']:.0f}"
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._line_at > SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            images_left = (self._last - step) * self._images_per_step
            left = tqdm.format_interval(images_left / self._smooth["images/s"])
            facts = ", ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"{self._label}: step {step} of {self._last}, {facts}, {left} left")

    def say(self, line):
        """Prints one line, above the bar if there is one."""
        if not self._quiet:
            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()

    def close(self):
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
