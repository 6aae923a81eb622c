"""The loop: many steps in one TensorFlow function, everything else between such blocks.

A block runs N steps of each phase in turn, on the devices, from iterators; between blocks Python
logs, saves, evaluates and listens. Where the blocks end depends on the machine's speed, what the
steps compute does not.
"""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfa_tf.data.pipeline import replica_part
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.training.devices import Agreement, is_chief, replica_sum, workers
from dfa_tf.training.progress import Progress

SECONDS_PER_BLOCK = 1.0
OUT_OF_TOUCH = (  # what TensorFlow raises where another process does not answer any more
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


class Diverged(Exception):
    """A loss is NaN or infinite. The last good checkpoint is kept."""

    told = True  # the message says it all: no traceback


class WorkerLost(Exception):
    """Another process of the cluster has died. The last checkpoint is kept."""

    told = True


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How a run behaves; nothing here changes what it computes.

    strategy: tf.distribute strategy; None for the one in scope, see `devices`.
    log_every: steps between entries in TensorBoard and in alpha.json's history.
    evaluate_every: epochs between evaluations. checkpoint_seconds: seconds between checkpoints.
    fresh: begin anew, whatever the folder holds. quiet: tell nothing.
    Raises UserError for intervals that are none.
    """

    strategy: tf.distribute.Strategy | None = None
    log_every: int = 50
    evaluate_every: float = 1.0
    checkpoint_seconds: float = 120.0
    fresh: bool = False
    quiet: bool = False

    def __post_init__(self):
        if self.log_every < 1 or self.log_every != int(self.log_every):
            raise UserError(f"runtime.log_every is 1 or more whole steps, not {self.log_every}")
        for name in ("evaluate_every", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise UserError(f"runtime.{name} is 0 or more, not {getattr(self, name)}")

    @property
    def devices(self):
        """The strategy to run under."""
        return self.strategy or tf.distribute.get_strategy()


@dataclasses.dataclass(frozen=True)
class Phase:
    """One half of an iteration: a step and the batches it takes.

    step: (images, labels) of one replica to {name: tensor}, what it measured: the replica's
        share of a sum over all replicas. batches: a dataset of global batches.
    """

    step: Callable
    batches: tf.data.Dataset


class Loop:
    """Runs phases from step to step, and keeps the checkpoints, the summaries and the progress.

    watched: name of the measurement that must stay finite, as "train/loss".
    """

    def __init__(self, label, runtime, checkpoints, summaries, images_per_step, watched):
        self._label = label
        self._runtime = runtime
        self._strategy = runtime.devices
        self._agreement = Agreement(self._strategy)
        self._checkpoints = checkpoints
        self._summaries = summaries
        self._images_per_step = images_per_step
        self._watched = watched
        self._began = time.monotonic() - checkpoints.journal["seconds"]
        self._saved_at = time.monotonic()

    @property
    def journal(self):
        return self._checkpoints.journal

    def save(self):
        """Saves a checkpoint now. Raises Diverged, saving nothing, where a weight is no finite number."""
        if not self._checkpoints.is_finite():
            raise Diverged(
                f"{self._label}: a weight is NaN or infinite at step {self.journal['step']}; {self._checkpoints.kept}, a lower learning rate may help"
            )
        self.journal["seconds"] = time.monotonic() - self._began
        self._checkpoints.save()
        self._saved_at = time.monotonic()

    def run(
        self, phases, last, shown, origin=0, on_step=None, on_log=None, pauses=(), on_pause=None
    ):
        """Runs the phases, in turn within each step, from the journal's step to `last`, and saves.

        shown: {title: measurement} for the progress bar, as far as they are measured.
        on_step(measured): after each step, in order. on_log(step, means): every `log_every`
        steps counted from `origin`, with means since the last time. on_pause(step): at each step
        in `pauses`; a line that it returns is shown.
        Raises Interrupted after saving where SIGTERM or SIGINT asked to stop, Diverged where the
        watched measurement is no finite number, and WorkerLost where another worker has died.
        """
        try:
            self._run(phases, last, shown, origin, on_step, on_log, pauses, on_pause)
        except OUT_OF_TOUCH as error:
            if workers(self._strategy) == 1:
                raise
            raise WorkerLost(
                f"{self._label}: a worker is gone ({type(error).__name__}); what the chief saved is kept: start all of them again"
            ) from error

    def _run(self, phases, last, shown, origin, on_step, on_log, pauses, on_pause):
        block = Block(self._strategy, phases)
        ends = _Ends(origin, self._runtime.log_every, pauses, last)
        progress = Progress(
            self._label,
            self.journal["step"],
            last,
            self._images_per_step,
            quiet=self._runtime.quiet or not is_chief(self._strategy),
        )
        with _asked_to_stop() as asked, contextlib.closing(progress):
            size = 1
            while True:
                size, save, stop = self._decide(size, asked)
                if stop:
                    self.save()
                    self._stop(stop)
                if self.journal["step"] >= last:
                    break
                if save:
                    self.save()
                step = self.journal["step"]
                measured, seconds = block(min(size, ends.after(step) - step))
                self._take_in(measured, on_step)
                step, steps = self.journal["step"], self.journal["step"] - step
                if not block.is_first:
                    self.journal.add("timed_steps", steps)
                    self.journal.add("timed_seconds", seconds)
                    size = max(1, min(2 * size, int(SECONDS_PER_BLOCK * steps / seconds)))
                means = {
                    title: float(np.mean(measured[name]))
                    for title, name in shown.items()
                    if name in measured
                }
                progress.update(step, seconds, means)
                if ends.is_log(step):
                    self._log(on_log)
                if step in ends.pauses and on_pause:
                    line = on_pause(step)
                    if line:
                        progress.say(f"{self._label}: {line}")
            self.save()
            *_, stop = self._decide(size, asked)
            if stop:
                self._stop(stop)

    def _decide(self, size, asked):
        """(steps of the next block, whether to save, signal to stop for or 0), for all workers.

        The chief's clock counts; a signal that any worker got stops all.
        """
        chief = is_chief(self._strategy)
        save = time.monotonic() - self._saved_at > self._runtime.checkpoint_seconds
        stop = bool(asked.signum)
        size, save, stop = self._agreement([size * chief, save * chief, stop])
        return round(size), save > 0, (asked.signum or signal.SIGTERM) if stop else 0

    def _stop(self, signum):
        how = "the same command, without --fresh," if self._runtime.fresh else "the same command"
        raise Interrupted(
            f"{self._label}: stopped and saved at step {self.journal['step']}; {how} goes on from there",
            signum,
        )

    def _take_in(self, measured, on_step):
        """Adds a block's measurements to the journal, step by step."""
        self._check_finite(measured)
        for k in range(len(measured[self._watched])):
            at_step = {name: values[k] for name, values in measured.items()}
            self._add_to_means(at_step)
            if on_step:
                on_step(at_step)
            self.journal["step"] += 1

    def _log(self, on_log):
        window = self.journal.records.pop("window")
        means = {name: np.divide(sum_, window["steps"]) for name, sum_ in window["sums"].items()}
        scalars = {name: mean for name, mean in means.items() if mean.ndim == 0}
        self._summaries.scalars(scalars, self.journal["step"])
        if on_log:
            on_log(self.journal["step"], means)

    def _check_finite(self, measured):
        bad = ~np.isfinite(measured[self._watched])
        if bad.any():
            step = self.journal["step"] + int(np.argmax(bad)) + 1
            raise Diverged(
                f"{self._label}: {self._watched} is {measured[self._watched][bad][0]} at step {step}; {self._checkpoints.kept}, a lower learning rate may help"
            )

    def _add_to_means(self, measured):
        # In the journal, value by value: a resumed run then adds up as a straight one does.
        window = self.journal.records.setdefault("window", {"steps": 0, "sums": {}})
        window["steps"] += 1
        for name, value in measured.items():
            before = window["sums"].get(name, 0.0)
            window["sums"][name] = (np.float64(before) + value).tolist()


class Block:
    """Calls N steps of each phase, in turn, as one TensorFlow function.

    strategy: what the steps run under. phases: `Phase`s.
    """

    def __init__(self, strategy, phases):
        self._calls = 0
        self._iterators = [iter(phase.batches) for phase in phases]
        self._layout = {}

        def on_replica(phase):
            return lambda *batch: phase.step(*replica_part(batch))

        def step(iterators):
            measured = {}
            for phase, iterator in zip(phases, iterators, strict=True):
                measured |= replica_sum(strategy, strategy.run(on_replica(phase), next(iterator)))
            self._layout = {name: value.shape for name, value in measured.items()}
            flat = [tf.reshape(tf.cast(value, tf.float32), [-1]) for value in measured.values()]
            return tf.concat(flat, 0)

        @tf.function
        def block(iterators, steps):
            log = tf.TensorArray(tf.float32, steps)
            for k in tf.range(steps):
                log = log.write(k, step(iterators))
            return log.stack()

        self._block = block

    @property
    def is_first(self):
        """Whether the last call was the first, which spends its time on tracing."""
        return self._calls == 1

    def __call__(self, steps):
        """Runs `steps` steps. Returns ({name: [steps, ...]}, what each measured, and seconds)."""
        began = time.monotonic()
        flat = self._block(self._iterators, tf.constant(steps)).numpy()
        seconds = time.monotonic() - began
        self._calls += 1
        measured, place = {}, 0
        for name, shape in self._layout.items():
            size = shape.num_elements()
            measured[name] = flat[:, place : place + size].reshape(steps, *shape)
            place += size
        return measured, seconds


class _Ends:
    """Where blocks must end: at each log, each pause and the last step."""

    def __init__(self, origin, log_every, pauses, last):
        self.pauses = frozenset(pauses)
        self._sorted = sorted(self.pauses | {last})
        self._origin, self._log_every = origin, log_every

    def after(self, step):
        """The first of them after `step`."""
        log = step + self._log_every - (step - self._origin) % self._log_every
        return min(log, next(end for end in self._sorted if end > step))

    def is_log(self, step):
        """Whether `step` is one to log at."""
        return (step - self._origin) % self._log_every == 0 or step == self._sorted[-1]


class _Asked:
    signum = 0


@contextlib.contextmanager
def _asked_to_stop():
    """Notes SIGTERM and SIGINT instead of dying of them; a second one has its usual effect."""
    asked, before = _Asked(), {}

    def note(signum, frame):
        asked.signum = signum
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGTERM, signal.SIGINT):
            before[each] = signal.signal(each, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
