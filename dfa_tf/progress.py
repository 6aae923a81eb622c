"""Progress of long work, printed to standard error."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from dfa_tf.system import peak_memory

SECONDS_BETWEEN_LINES = 15
SMOOTHING = 0.2  # weight of the latest block


def print_line(line: str) -> None:
    """Prints a line to standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def with_progress(
    label: str,
    items: Iterable,
    total: int,
    size: Callable[[Any], float] = lambda batch: len(batch[1]),
    unit: str = "image",
) -> Iterator[Any]:
    """Yields the items of long work, and shows how much of it is done.

    If it took long, a last line states the time and the peak memory of the process.

    Args:
        label: Name of what is running.
        items: The items, by default batches (images, labels).
        total: Size of all items.
        size: Returns the size of an item in units, by default the number of images.
        unit: What the sizes count.
    """
    progress = Progress(label, 0, total, 1, unit=unit, delay=SECONDS_BETWEEN_LINES)
    done, start = 0.0, time.monotonic()
    started = start
    with contextlib.closing(progress):
        for item in items:
            yield item
            done, before = done + size(item), started
            started = time.monotonic()
            progress.update(int(done), started - before, {})
    if started - start > SECONDS_BETWEEN_LINES:
        took = tqdm.format_interval(started - start)
        memory = peak_memory() / 2**30
        print_line(f"{label}: finished in {took}, peak memory {memory:.1f} GiB")


class Progress:
    """A progress bar on a terminal, or a line every 15 seconds elsewhere.

    Args:
        label: Name of what is running.
        first: Number of steps already finished.
        last: Number of steps at the end.
        images_per_step: Number of images, or units, in a step, for the speed.
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
        self._speed = "images/s" if unit in ("step", "image") else f"{unit}/s"
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
        latest = {**metrics, self._speed: self._images_per_step * steps / max(seconds, 1e-9)}
        for name, value in latest.items():
            previous = self._smoothed.get(name, value)
            self._smoothed[name] = previous + SMOOTHING * (value - previous)
        texts = {name: f"{value:.4g}" for name, value in self._smoothed.items()}
        texts[self._speed] = f"{self._smoothed[self._speed]:.0f}"
        if self._bar is not None:
            self._bar.set_postfix(texts, refresh=False)
            self._bar.update(steps)
        elif not self._quiet and time.monotonic() - self._line_at > SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            images_left = (self._last - step) * self._images_per_step
            speed = self._smoothed[self._speed]
            left = tqdm.format_interval(images_left / speed) if speed else "unknown time"
            facts = ", ".join(f"{name} {value}" for name, value in texts.items())
            print_line(f"{self._label}: {self._unit} {step} of {self._last}, {facts}, {left} left")

    def close(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
