"""The training loop, which runs blocks of many steps, each block in one TensorFlow function.

A block runs N steps of each phase, in turn, on the devices. Between blocks, Python logs, saves,
evaluates and reacts to signals:

    for block in loop.run([beta_phase, w_phase], last_step):
        if block.means:
            summaries.scalars(block.scalar_means, block.step)

The length of a block depends on the speed of the machine. The results of the steps do not.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.data.pipeline import replica_part
from dfa_tf.errors import Interrupted, ReportedError, UserError
from dfa_tf.progress import Progress, print_line
from dfa_tf.training.checkpoints import Checkpoints, Journal
from dfa_tf.training.devices import (
    Consensus,
    is_chief,
    replica_sum,
    report_lost_workers,
    worker_count,
)
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.signals import StopRequest, stop_request
from dfa_tf.training.summation_order import fixed_summation_order

SECONDS_PER_BLOCK = 1.0


class Diverged(ReportedError):
    """A loss or a weight is NaN or infinite. The last checkpoint is kept."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of an iteration: a step and its batches.

    Attributes:
        step: A function of (images, labels) that runs on each replica. It returns the replica's
            share of each measurement, `{name: tensor}`.
        batches: A dataset of this process's parts of the global batches. With a zip of several
            datasets, the step receives one tuple (images, labels) for each.
    """

    step: Callable
    batches: tf.data.Dataset

    @classmethod
    def of(cls, step: Callable, streams: Sequence[tf.data.Dataset]) -> "Phase":
        """Returns a phase whose step receives a batch of each data set."""
        return cls(step, streams[0] if len(streams) == 1 else tf.data.Dataset.zip(*streams))


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of steps that has just run.

    Attributes:
        step: The last step of the block.
        measurements: For each measurement, the values `[steps, ...]`.
        means: The mean of each measurement since the last log, if `step` is logged; else None.
    """

    step: int
    measurements: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray] | None

    @property
    def scalar_means(self) -> dict[str, np.ndarray]:
        """The means that are numbers."""
        return {name: mean for name, mean in (self.means or {}).items() if np.ndim(mean) == 0}


def restore(checkpoints: Checkpoints, label: str, strategy: tf.distribute.Strategy) -> None:
    """Restores the state of a run, the same one on all workers.

    Args:
        checkpoints: The checkpoints of the run.
        label: Name of what is running, for messages.
        strategy: The strategy of the run.

    Raises:
        UserError: As `Checkpoints.restore`, or if the workers find different states.
        WorkerLost: If another worker stops responding.
    """
    checkpoints.restore()
    consensus, step = Consensus(strategy), checkpoints.journal.step
    with report_lost_workers(label, strategy):
        is_different = consensus([consensus.of_chief(step) != step])[0]
    if is_different:
        raise UserError(
            f"{checkpoints.folder}: expected the checkpoint of one step on all workers, got step {step} "
            "on this one and another step on another one; choose a --workdir on a file system that "
            "all workers share"
        )


class Loop:
    """Runs phases step by step, and saves checkpoints.

    Args:
        label: Name of what is running, for messages.
        runtime: Devices, logging and saving.
        checkpoints: The state of the run.
        images_per_step: Number of images in one iteration, over all phases.
        finite_metric: The measurement that must stay finite.
        progress_metrics: Measurements that the progress line shows, `{title: name}`.
    """

    def __init__(
        self,
        label: str,
        runtime: Runtime,
        checkpoints: Checkpoints,
        images_per_step: int,
        finite_metric: str,
        progress_metrics: Mapping[str, str],
    ):
        self._label = label
        self._runtime = runtime
        self._strategy = runtime.devices
        self._is_chief = is_chief(self._strategy)
        self._quiet = runtime.quiet or not self._is_chief
        self._consensus = Consensus(self._strategy)
        self._checkpoints = checkpoints
        self._images_per_step = images_per_step
        self._finite_metric = finite_metric
        self._progress_metrics = progress_metrics
        self._started = time.monotonic() - self.journal.seconds
        self._saved_at = time.monotonic()

    @property
    def journal(self) -> Journal:
        """The records of the run."""
        return self._checkpoints.journal

    def say(self, line: str) -> None:
        """Prints a line, unless the run is quiet."""
        if not self._quiet:
            print_line(f"{self._label}: {line}")

    def save(self) -> None:
        """Saves a checkpoint.

        Raises:
            Diverged: If a weight is not finite. Nothing is saved.
        """
        if not self._checkpoints.is_finite():
            raise Diverged(
                f"{self._label}: a weight is NaN or infinite at step {self.journal.step}; "
                f"{self._checkpoints.latest}; try a lower learning rate"
            )
        self.journal.seconds = time.monotonic() - self._started
        self._checkpoints.save()
        self._saved_at = time.monotonic()

    def run(
        self,
        phases: Sequence[Phase],
        last: int,
        *,
        log_from: int = 0,
        block_ends: Iterable[int] = (),
    ) -> Iterator[Block]:
        """Runs the phases in turn from the journal's step to `last`, and saves at the end.

        A checkpoint is saved only when the caller requests the next block, so that it includes
        what the caller recorded about the previous one.

        Args:
            phases: The parts of an iteration.
            last: The last step.
            log_from: The step from which the log interval counts.
            block_ends: Steps at which a block must end, for evaluations.

        Yields:
            Each `Block` of steps.

        Raises:
            Interrupted: On a stop signal (`training.signals`), after the state is saved.
            Diverged: If the loss or a weight is not finite.
        """
        function = StepFunction(self._strategy, phases)
        boundaries = BlockBoundaries(log_from, self._runtime.log_every, block_ends, last)
        progress = Progress(
            self._label, self.journal.step, last, self._images_per_step, self._quiet
        )
        with stop_request() as request, contextlib.closing(progress):
            size = 1
            while True:
                size, save, signum = self._agree(size, request)
                if signum:
                    self.save()
                    raise self._interrupted(signum)
                if self.journal.step >= last:
                    break
                if save:
                    self.save()
                size = min(size, boundaries.after(self.journal.step) - self.journal.step)
                measurements, seconds = function(size)
                self._record(measurements)
                if not function.is_first_call:
                    self.journal.timed_steps += size
                    self.journal.timed_seconds += seconds
                    size = max(1, min(2 * size, int(SECONDS_PER_BLOCK * size / seconds)))
                progress.update(self.journal.step, seconds, self._shown(measurements))
                is_log = boundaries.is_log(self.journal.step)
                means = self._window_means() if is_log else None
                yield Block(self.journal.step, measurements, means)
            self.save()
            *_, signum = self._agree(size, request)  # for a signal during the save
            if signum:
                raise self._interrupted(signum)

    def _agree(self, size: int, request: StopRequest) -> tuple[int, bool, int]:
        """Returns (steps of the next block, whether to save, number of the stop signal or 0).

        All workers receive the same result. The chief's clock decides the first two, and a signal
        to any worker stops all of them.
        """
        save = time.monotonic() - self._saved_at > self._runtime.checkpoint_seconds
        proposal = [size * self._is_chief, save * self._is_chief, bool(request.signum)]
        agreed_size, agreed_save, stop = self._consensus(proposal)
        signum = (request.signum or signal.SIGTERM) if stop else 0
        return round(agreed_size), agreed_save > 0, signum

    def _interrupted(self, signum):
        without_fresh = " without --fresh" if self._runtime.fresh else ""
        return Interrupted(
            f"{self._label}: stopped and saved at step {self.journal.step}; "
            f"run the same command{without_fresh} to continue",
            signum,
        )

    def _record(self, measurements):
        """Adds a block's measurements to the journal."""
        values = measurements[self._finite_metric]
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            step = self.journal.step + int(np.argmax(is_bad)) + 1
            raise Diverged(
                f"{self._label}: {self._finite_metric} is {values[is_bad][0]} at step {step}; "
                f"{self._checkpoints.latest}; try a lower learning rate"
            )
        for k in range(len(values)):
            # Values are added step by step, so that a resumed run has exactly the same sums.
            sums = self.journal.window_sums
            for name, value in measurements.items():
                sums[name] = (np.float64(sums.get(name, 0.0)) + value[k]).tolist()
            self.journal.window_steps += 1
            self.journal.step += 1

    def _window_means(self):
        journal = self.journal
        means = {
            n: np.divide(sums, journal.window_steps) for n, sums in journal.window_sums.items()
        }
        journal.window_steps, journal.window_sums = 0, {}
        return means

    def _shown(self, measurements):
        return {
            title: float(np.mean(measurements[name]))
            for title, name in self._progress_metrics.items()
            if name in measurements
        }


class StepFunction:
    """Runs N steps of each phase, in turn, in one TensorFlow function.

    Args:
        strategy: The strategy of the run.
        phases: The phases of an iteration.
    """

    def __init__(self, strategy: tf.distribute.Strategy, phases: Sequence[Phase]):
        self._calls = 0
        self._iterators = [iter(phase.batches) for phase in phases]
        self._shapes: dict[str, tf.TensorShape] = {}

        processes = worker_count(strategy)

        def on_replica(*batches):
            """Runs all phases. Returns the replica's shares of all measurements in one vector."""
            measured = {}
            for phase, batch in zip(phases, batches, strict=True):
                measured |= phase.step(*replica_part(batch, processes))
            self._shapes = {name: value.shape for name, value in measured.items()}
            flat = [tf.reshape(tf.cast(value, tf.float32), [-1]) for value in measured.values()]
            return tf.concat(flat, 0)

        def step(iterators):
            shares = strategy.run(on_replica, [next(iterator) for iterator in iterators])
            return replica_sum(strategy, shares)  # one reduction for all of them

        @tf.function
        def run(iterators, steps):
            log = tf.TensorArray(tf.float32, steps)
            for k in tf.range(steps):
                log = log.write(k, step(iterators))
            return log.stack()

        self._run = run

    @property
    def is_first_call(self) -> bool:
        """Whether the last call was the first, whose duration includes tracing."""
        return self._calls == 1

    def __call__(self, steps: int) -> tuple[dict[str, np.ndarray], float]:
        """Runs steps. Returns (measurements `{name: [steps, ...]}`, duration in seconds)."""
        started = time.monotonic()
        with fixed_summation_order():
            flat = self._run(self._iterators, tf.constant(steps)).numpy()
        seconds = time.monotonic() - started
        self._calls += 1
        measurements, start = {}, 0
        for name, shape in self._shapes.items():
            size = shape.num_elements()
            measurements[name] = flat[:, start : start + size].reshape(steps, *shape)
            start += size
        return measurements, seconds


class BlockBoundaries:
    """The steps at which blocks must end: logged steps, given steps and the last step.

    Args:
        log_from: The step from which the log interval counts.
        log_every: Steps between logs.
        ends: Additional steps at which a block must end.
        last: The last step.
    """

    def __init__(self, log_from: int, log_every: int, ends: Iterable[int], last: int):
        self._ends = sorted({*ends, last})
        self._log_from, self._log_every = log_from, log_every

    def after(self, step: int) -> int:
        """Returns the first boundary after `step`."""
        log = step + self._log_every - (step - self._log_from) % self._log_every
        return min(log, next(end for end in self._ends if end > step))

    def is_log(self, step: int) -> bool:
        """Returns whether `step` is logged."""
        return (step - self._log_from) % self._log_every == 0 or step == self._ends[-1]
