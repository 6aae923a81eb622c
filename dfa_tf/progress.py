"""Progress of long work, printed to standard error."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15
SMOOTHING = 0.2  # weight of the latest block


def print_line(line: str) -> None:
    """Prints a line to standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def with_progress(label: str, batches: Iterable, total: int) -> Iterator[Any]:
    """Yields the batches (images, labels), and shows how many images are done.

    Args:
        label: Name of what is running.
        batches: The batches.
        total: Number of images in all of them.
    """
    progress = Progress(label, 0, total, 1, unit="image", delay=SECONDS_BETWEEN_LINES)
    done, started = 0, time.monotonic()
    with contextlib.closing(progress):
        for batch in batches:
            yield batch
            done, before = done + len(batch[1]), started
            started = time.monotonic()
            progress.update(done, started - before, {})


class Progress:
    """A progress bar on a terminal, or a line every 15 seconds elsewhere.

    Args:
        label: Name of what is running.
        first: Number of steps already finished.
        last: Number of steps at the end.
        images_per_step: Number of images in a step, for the speed in images per second.
        quiet: Whether to print nothing.
        unit: What a step is called.
        delay: Seconds after which the bar appears.
    """

    def __init__(
        self,
        label: str,
        first: int,
        last: int,
        images_per_step: int,
        quiet: bool = False,
        unit: str = "step",
        delay: float = 0,
    ):
        self._unit = unit
        self._label = label
        self._step, self._last = first, last
        self._images_per_step = images_per_step
        self._quiet = quiet
        self._smoothed: dict[str, float] = {}
        self._line_at = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            self._bar = tqdm(
                total=last,
                initial=first,
                desc=label,
                unit=unit,
                dynamic_ncols=True,
                leave=True,
                delay=delay,
            )

    def update(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Shows the steps up to `step`.

        Args:
            step: The last finished step.
            seconds: Duration of the steps since the last call, in seconds.
            metrics: Numbers to show, smoothed like the speed.
        """
        steps = step - self._step
        self._step = step
        latest = {**metrics, "images/s": self._images_per_step * steps / max(seconds, 1e-9)}
        for name, value in latest.items():
            previous = self._smoothed.get(name, value)
            self._smoothed[name] = previous + SMOOTHING * (value - previous)
        texts = {name: f"{value:.4g}" for name, value in self._smoothed.items()}
        texts["images/s"] = f"{self._smoothed['images/s']:.0f}"
        if self._bar is not None:
            self._bar.set_postfix(texts, refresh=False)
            self._bar.update(steps)
        elif not self._quiet and time.monotonic() - self._line_at > SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            images_left = (self._last - step) * self._images_per_step
            left = tqdm.format_interval(images_left / self._smoothed["images/s"])
            facts = ", ".join(f"{name} {value}" for name, value in texts.items())
            print_line(f"{self._label}: {self._unit} {step} of {self._last}, {facts}, {left} left")

    def close(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
