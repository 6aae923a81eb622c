"""Runs the teachers once on each batch of a cycle, and writes their logits to a `LogitCache`."""

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.data.pipeline import replica_part
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.models.network import Network
from dfa_tf.objectives.objective import frozen_outputs
from dfa_tf.progress import Progress
from dfa_tf.training.devices import Consensus, is_chief, worker_count
from dfa_tf.training.logit_cache import SETTING, LogitCache
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.signals import stop_request
from dfa_tf.training.summation_order import fixed_summation_order

WAIT_SECONDS = 60  # for a shared file system


def fill_cache(
    cache: LogitCache,
    teachers: Sequence[Network],
    batches: Callable[[int], tf.data.Dataset],
    mix: Callable | None,
    runtime: Runtime,
) -> None:
    """Computes and writes the logits that a cache lacks. Other processes wait meanwhile.

    Args:
        cache: The cache.
        teachers: The frozen teachers, built in the scope of the run's strategy.
        batches: A function of a step that returns this process's parts of the batches from that
            step on.
        mix: A function of (images, labels, step) that returns the images that the teachers receive,
            and the targets; None for the images as they are.
        runtime: Devices, logging and saving.

    Raises:
        Interrupted: On a stop signal (`training.signals`), after the computed logits are saved.
        UserError: If the folder contains other logits or cannot be written, or a logit is not finite in
            float16.
    """
    chief, consensus = is_chief(runtime.devices), Consensus(runtime.devices)
    if consensus.of_chief(cache.filled) < cache.period:
        with cache.locked() if chief else contextlib.nullcontext():
            first = consensus.of_chief(cache.filled)
            computed = _logits_of(teachers, batches(first), first, mix, runtime.devices)
            quiet = runtime.quiet or not chief
            without_fresh = " without --fresh" if runtime.fresh else ""
            progress = Progress("teacher_views", first, cache.period, cache.batch_size, quiet)
            appending = cache.appending(first) if chief else contextlib.nullcontext(_discard)
            with contextlib.closing(progress), stop_request() as request, appending as append:
                for step in range(first, cache.period):
                    started = time.monotonic()
                    append(_finite(next(computed)))
                    progress.update(step + 1, time.monotonic() - started, {})
                    if consensus([bool(request.signum)])[0]:
                        raise Interrupted(
                            f"{SETTING}: stopped and saved the logits of {step + 1} of "
                            f"{cache.period} batches; run the same command{without_fresh} to "
                            "continue",
                            request.signum or signal.SIGTERM,
                        )
        consensus([0])  # the chief has written the file
    _wait_for(cache)


def _wait_for(cache):
    """Waits until this process sees what the chief has written. File servers can be late."""
    for _ in range(WAIT_SECONDS):
        if cache.is_complete:
            return
        time.sleep(1)
    raise UserError(
        f"{SETTING}: {cache.folder} lacks the logits that the chief wrote; choose a folder on a "
        "file system that all workers share"
    )


def _logits_of(teachers, batches, first, mix, strategy):
    """Yields the logits float16 [B, teachers, classes] of each batch, those of step `first` first."""
    processes = worker_count(strategy)

    def on_replica(step, *batch):
        images, labels = replica_part(batch, processes)
        if mix:
            images, _ = mix(images, labels, step)
        logits = [frozen_outputs(each, images, labels).logits for each in teachers]
        return tf.cast(tf.stack(logits, 1), tf.float16)

    @tf.function
    def compute(step, iterator):
        return strategy.gather(strategy.run(on_replica, (step, *next(iterator))), 0)

    iterator = iter(batches)
    for step in itertools.count(first):
        with fixed_summation_order():
            logits = compute(tf.constant(step, tf.int64), iterator).numpy()
        yield logits


def _finite(logits):
    """Returns the logits of a batch.

    Raises:
        UserError: If one of them is not finite in float16.
    """
    if np.isfinite(logits).all():
        return logits
    raise UserError(
        f"{SETTING}: expected finite logits of the teacher from -65504 to 65504, the range of "
        "float16, got NaN or larger values; bind distill.teacher_views = 0"
    )


def _discard(logits):
    """Ignores the logits. The chief writes them."""
