"""The loop: what it computes does not depend on its blocks, and what it was told is not lost."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import Interrupted
from dfa_tf.training import loop as loops
from dfa_tf.training.checkpoints import Checkpoints, Journal
from dfa_tf.training.loop import Diverged, Loop, Phase, Runtime
from dfa_tf.training.summaries import Summaries


class _Counting:
    """A stage whose only variable adds up its batches: 1, 2, 3, ..."""

    def __init__(self, folder, runtime=None, bad_at=None):
        self.total = tf.Variable(0.0)
        self.journal = Journal()
        self.checkpoints = Checkpoints(folder, self.journal, {"total": [self.total]})
        self.checkpoints.restore()
        self._bad_at = bad_at
        runtime = runtime or Runtime(quiet=True, log_every=5)
        self.loop = Loop("counting", runtime, self.checkpoints, Summaries(None), 1, "loss")

    def run(self, last, **more):
        first = self.journal["step"]
        batches = tf.data.Dataset.counter(first + 1).map(lambda k: (tf.cast(k, tf.float32), k))

        def step(number, _):
            self.total.assign_add(number)
            loss = 1.0 / number
            if self._bad_at:
                loss = tf.where(number == self._bad_at, np.nan, loss)
            return {"loss": loss, "number": tf.stack([number, -number])}

        self.loop.run([Phase(step, batches)], last, {"loss": "loss"}, **more)


def test_steps_are_run_in_order_to_the_last(tmp_path):
    stage, seen = _Counting(tmp_path), []
    stage.run(23, on_step=lambda measured: seen.append(measured["number"].tolist()))
    assert seen == [[float(k), -float(k)] for k in range(1, 24)]
    assert float(stage.total) == 23 * 24 / 2
    assert stage.journal["step"] == 23


def test_means_are_over_the_steps_since_the_last_log(tmp_path):
    stage, means = _Counting(tmp_path), {}
    stage.run(12, on_log=lambda step, mean: means.update({step: mean["number"].tolist()}))
    assert means == {5: [3.0, -3.0], 10: [8.0, -8.0], 12: [11.5, -11.5]}


def test_logs_are_counted_from_the_origin(tmp_path):
    stage, steps = _Counting(tmp_path), []
    stage.run(12, origin=2, on_log=lambda step, mean: steps.append(step))
    assert steps == [2, 7, 12]


def test_pauses_come_at_their_steps(tmp_path):
    stage, steps = _Counting(tmp_path), []
    stage.run(12, pauses=[4, 9, 12], on_pause=lambda step: steps.append(step))
    assert steps == [4, 9, 12]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_next_run_goes_on(tmp_path, signum):
    stage = _Counting(tmp_path)

    def stop_at_7(measured):
        if measured["number"][0] == 7:
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted, match="stopped and saved at step") as caught:
        stage.run(1000, on_step=stop_at_7)
    assert caught.value.signum == signum
    stopped_at = stage.journal["step"]
    assert 7 <= stopped_at < 1000

    again, means = _Counting(tmp_path), {}
    assert again.journal["step"] == stopped_at
    again.run(1000, on_log=lambda step, mean: means.update({step: mean["number"][0]}))
    assert float(again.total) == 1000 * 1001 / 2
    window = stopped_at - stopped_at % 5
    assert means[window + 5] == window + 3  # a mean over steps before the stop and after


def test_signal_in_the_last_block_is_not_swallowed(tmp_path):
    stage = _Counting(tmp_path)
    with pytest.raises(Interrupted):
        stage.run(9, on_pause=lambda step: os.kill(os.getpid(), signal.SIGTERM), pauses=[9])
    assert _Counting(tmp_path).journal["step"] == 9


def test_signals_have_their_usual_effect_after_the_loop(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    _Counting(tmp_path).run(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    stage = _Counting(tmp_path, bad_at=13)
    stage.run(6)
    with pytest.raises(Diverged, match="loss is nan at step 13"):
        stage.run(100)
    again = _Counting(tmp_path)
    assert again.journal["step"] == 6
    assert float(again.total) == 6 * 7 / 2


def test_weight_that_is_no_number_is_not_saved(tmp_path):
    """The loss is measured before the update: at the last step it says nothing of the weights."""
    stage = _Counting(tmp_path)
    stage.run(6)
    with pytest.raises(Diverged, match="a weight is NaN or infinite at step 9"):
        stage.run(9, pauses=[9], on_pause=lambda step: stage.total.assign(np.inf) and None)
    again = _Counting(tmp_path)
    assert again.journal["step"] == 6
    assert float(again.total) == 6 * 7 / 2


def test_checkpoints_are_written_at_the_interval(tmp_path, monkeypatch):
    stage, saved = _Counting(tmp_path, Runtime(quiet=True, checkpoint_seconds=0.0)), []
    monkeypatch.setattr(stage.checkpoints, "save", lambda: saved.append(stage.journal["step"]))
    stage.run(20)
    assert len(saved) >= 3
    assert saved == sorted(saved)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [1] * 8), (1e9, [1, 1, 2, 4])])
def test_blocks_grow_until_they_take_their_time(tmp_path, monkeypatch, seconds, expected):
    """Never so long that a signal waits, whatever log_every says. The first one is for tracing."""
    lengths = []
    call = loops.Block.__call__

    def noted(self, steps):
        lengths.append(steps)
        return call(self, steps)

    monkeypatch.setattr(loops.Block, "__call__", noted)
    monkeypatch.setattr(loops, "SECONDS_PER_BLOCK", seconds)
    _Counting(tmp_path, Runtime(quiet=True, log_every=10**6)).run(8)
    assert lengths == expected


def test_nothing_is_measured_twice_over_replicas(two_replicas, tmp_path):
    """The shares of two replicas are summed up, to the mean over the global batch."""
    journal = Journal()
    with two_replicas.scope():
        variable = tf.Variable(0.0)
    checkpoints = Checkpoints(tmp_path, journal, {"variable": [variable]})
    runtime = Runtime(strategy=two_replicas, quiet=True)
    loop = Loop("two", runtime, checkpoints, Summaries(None), 4, "loss")
    batches = tf.data.Dataset.from_tensors((tf.range(4.0), tf.range(4))).repeat()

    def step(numbers, _):
        return {"loss": tf.nn.compute_average_loss(numbers, global_batch_size=4)}

    seen = []
    loop.run([Phase(step, batches)], 3, {"loss": "loss"}, on_step=lambda m: seen.append(m["loss"]))
    assert seen == [1.5] * 3
