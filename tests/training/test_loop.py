"""The loop: its results do not depend on its blocks, and nothing recorded is lost."""

import itertools
import os
import signal
import types

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import Interrupted
from dfa_tf.training import loop as loops
from dfa_tf.training.checkpoints import Checkpoints, Journal
from dfa_tf.training.loop import Diverged, Loop, Phase
from dfa_tf.training.runtime import Runtime


class _Counting:
    """A run whose only variable adds up its batches 1, 2, 3, ..."""

    def __init__(self, folder, runtime=None, bad_at=None):
        self.total = tf.Variable(0.0)
        self.journal = Journal()
        self.checkpoints = Checkpoints(folder, self.journal, {"total": [self.total]})
        self.checkpoints.restore()
        self._bad_at = bad_at
        runtime = runtime or Runtime(quiet=True, log_every=5)
        self.loop = Loop("counting", runtime, self.checkpoints, 1, "loss", {"loss": "loss"})

    def blocks(self, last, **options):
        batches = tf.data.Dataset.counter(self.journal.step + 1).map(
            lambda k: (tf.cast(k, tf.float32), k)
        )

        def step(number, _):
            self.total.assign_add(number)
            loss = 1.0 / number
            if self._bad_at:
                loss = tf.where(number == self._bad_at, np.nan, loss)
            return {"loss": loss, "number": tf.stack([number, -number])}

        return self.loop.run([Phase(step, batches)], last, **options)

    def run(self, last):
        for _ in self.blocks(last):
            pass


def _means(blocks):
    return {block.step: block.means["number"].tolist() for block in blocks if block.means}


def test_steps_run_in_order_to_the_last(tmp_path):
    run = _Counting(tmp_path)
    seen = [row for block in run.blocks(23) for row in block.measurements["number"].tolist()]
    assert seen == [[float(k), -float(k)] for k in range(1, 24)]
    assert float(run.total) == 23 * 24 / 2
    assert run.journal.step == 23


def test_means_are_over_the_steps_since_the_last_log(tmp_path):
    means = _means(_Counting(tmp_path).blocks(12))
    assert means == {5: [3.0, -3.0], 10: [8.0, -8.0], 12: [11.5, -11.5]}


def test_scalar_means_leave_out_vectors(tmp_path):
    *_, last = _Counting(tmp_path).blocks(2)
    assert last.scalar_means == {"loss": pytest.approx(0.75)}


def test_log_interval_counts_from_a_given_step(tmp_path):
    assert list(_means(_Counting(tmp_path).blocks(12, log_from=2))) == [2, 7, 12]


def test_blocks_end_at_the_given_steps(tmp_path):
    steps = [block.step for block in _Counting(tmp_path).blocks(12, block_ends=[4, 9, 12])]
    assert {4, 9, 12} <= set(steps)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_next_run_resumes(tmp_path, signum):
    run = _Counting(tmp_path)
    with pytest.raises(Interrupted) as caught:
        for block in run.blocks(1000):
            if block.step >= 7:
                os.kill(os.getpid(), signum)
    assert caught.value.status == 128 + signum
    stopped_at = run.journal.step
    assert 7 <= stopped_at < 1000

    again = _Counting(tmp_path)
    assert again.journal.step == stopped_at
    means = _means(again.blocks(1000))
    assert float(again.total) == 1000 * 1001 / 2
    window = stopped_at - stopped_at % 5
    assert means[window + 5][0] == window + 3  # over steps before and after the stop


def test_signal_in_the_last_block_is_not_lost(tmp_path):
    with pytest.raises(Interrupted):
        for block in _Counting(tmp_path).blocks(9):
            if block.step == 9:
                os.kill(os.getpid(), signal.SIGTERM)
    assert _Counting(tmp_path).journal.step == 9


def test_signal_handlers_are_restored_after_the_loop(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    _Counting(tmp_path).run(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_checkpoint_includes_what_was_recorded_about_the_block(tmp_path):
    """A checkpoint is saved when the iteration resumes."""
    run = _Counting(tmp_path, Runtime(quiet=True, checkpoint_seconds=0.0))
    for block in run.blocks(6):
        run.journal.curve.append(block.step)
        if block.step == 6:
            break
    again = _Counting(tmp_path)
    assert again.journal.step > 0
    assert again.journal.curve[-1] == again.journal.step


def test_nan_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    run = _Counting(tmp_path, bad_at=13)
    run.run(6)
    with pytest.raises(Diverged, match="step 13"):
        run.run(100)
    again = _Counting(tmp_path)
    assert again.journal.step == 6
    assert float(again.total) == 6 * 7 / 2


def test_infinite_weight_is_not_saved(tmp_path):
    """The loss is measured before the update: at the last step it says nothing of the weights."""
    run = _Counting(tmp_path)
    run.run(6)
    with pytest.raises(Diverged, match="step 9"):
        for block in run.blocks(9):
            if block.step == 9:
                run.total.assign(np.inf)
    again = _Counting(tmp_path)
    assert again.journal.step == 6
    assert float(again.total) == 6 * 7 / 2


def test_checkpoints_are_written_at_the_interval(tmp_path, monkeypatch):
    """Each look at the clock takes a second, and several looks are a block."""
    seconds = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(loops, "time", clock)
    monkeypatch.setattr(loops, "SECONDS_PER_BLOCK", 0.0)  # blocks of one step
    run, saved = _Counting(tmp_path, Runtime(quiet=True, checkpoint_seconds=50.0)), []
    monkeypatch.setattr(run.checkpoints, "save", lambda: saved.append(next(seconds)))
    run.run(100)
    *gaps, _ = np.diff(saved)  # the last save is that of the last step
    assert len(gaps) >= 3
    assert 50 < min(gaps) <= max(gaps) < 65


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [1] * 8), (1e9, [1, 1, 2, 4])])
def test_blocks_grow_to_the_target_duration(tmp_path, monkeypatch, seconds, expected):
    """So a signal never waits longer, whatever log_every is. The first block traces."""
    lengths = []
    call = loops.StepFunction.__call__

    def counted(self, steps):
        lengths.append(steps)
        return call(self, steps)

    monkeypatch.setattr(loops.StepFunction, "__call__", counted)
    monkeypatch.setattr(loops, "SECONDS_PER_BLOCK", seconds)
    _Counting(tmp_path, Runtime(quiet=True, log_every=10**6)).run(8)
    assert lengths == expected


def test_shares_of_two_replicas_sum_to_the_global_mean(two_replicas, tmp_path):
    journal = Journal()
    with two_replicas.scope():
        variable = tf.Variable(0.0)
    checkpoints = Checkpoints(tmp_path, journal, {"variable": [variable]})
    runtime = Runtime(strategy=two_replicas, quiet=True)
    loop = Loop("two", runtime, checkpoints, 4, "loss", {"loss": "loss"})
    batches = tf.data.Dataset.from_tensors((tf.range(4.0), tf.range(4))).repeat()

    def step(numbers, _):
        return {"loss": tf.nn.compute_average_loss(numbers, global_batch_size=4)}

    blocks = loop.run([Phase(step, batches)], 3)
    assert [loss for block in blocks for loss in block.measurements["loss"]] == [1.5] * 3
