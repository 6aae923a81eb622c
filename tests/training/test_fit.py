"""Numbers of steps, which are rounded: the repetition of batches, and epochs."""

import dataclasses

import pytest
import tensorflow as tf

from dfa_tf.methods.losses import plain_objective
from dfa_tf.training.fit import Problem, epoch_ends, fit
from dfa_tf.training.logit_cache import period_of
from dfa_tf.training.loop import Loop
from tests.conftest import small_network
from tests.stages.conftest import Run


@pytest.mark.parametrize(
    ("views", "examples", "batch_size", "steps", "period"),
    [
        (4, 50_000, 128, 78_125, 1562),  # of 1562.5
        (10, 907, 64, 200, 141),  # of 141.7
        (2, 120, 12, 21, 20),
        (2, 120, 12, 20, 0),  # the run ends before a batch repeats
        (3, 120, 12, 30, 0),
        (0, 120, 12, 30, 0),
    ],
)
def test_batches_repeat_after_the_full_batches_of_all_views(
    views, examples, batch_size, steps, period
):
    assert period_of(views, examples, batch_size, steps) == period


@pytest.mark.parametrize(
    ("steps_per_epoch", "steps", "ends"),
    [
        (7.4, 30, [7, 15, 22, 30]),
        (10, 30, [10, 20, 30]),
        (10, 26, [10, 20, 26]),
        (10, 24, [10, 24]),  # less than half an epoch belongs to the one before
        (10, 3, [3]),
    ],
)
def test_epochs_end_at_the_nearest_step(steps_per_epoch, steps, ends):
    assert epoch_ends(steps_per_epoch, steps) == ends


def _fit_that_measures_steps(folder, epochs):
    """Trains with a measurement that is the number of finished steps, ten in an epoch."""
    run = Run(folder)
    network = small_network(depth=10, seed=3)
    plain = plain_objective(network)

    def objective(images, labels, step, training=True):
        loss, logits, _ = plain(images, labels, step, training)
        return loss, logits, {"steps": tf.fill(tf.shape(labels), tf.cast(step, tf.float32))}

    training = dataclasses.replace(run.training, epochs=epochs)
    runtime = dataclasses.replace(run.runtime, checkpoint_seconds=0.0)
    return fit(
        Problem(network, objective), run.everything, None, training,
        label="test", folder=folder, runtime=runtime,
    )[1]  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "mean"),
    [
        (3, 24.5),  # steps 20 to 29
        (2.4, 16.5),  # steps 10 to 23: less than half an epoch belongs to the one before
        (0.5, 2.0),  # steps 0 to 4
    ],
)
def test_result_has_the_means_of_the_last_epoch(tmp_path, epochs, mean):
    result = _fit_that_measures_steps(tmp_path, epochs)
    assert set(result.train) == {"loss", "accuracy", "steps"}
    assert result.train["steps"] == pytest.approx(mean)


def test_means_of_the_last_epoch_are_those_of_a_straight_run(tmp_path, monkeypatch):
    straight = _fit_that_measures_steps(tmp_path / "straight", 3)
    record = Loop._record

    def record_until_step_24(self, measurements):
        if self.journal.step >= 24:
            raise KeyboardInterrupt
        record(self, measurements)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_record", record_until_step_24)
        with pytest.raises(KeyboardInterrupt):
            _fit_that_measures_steps(tmp_path / "stopped", 3)
    assert _fit_that_measures_steps(tmp_path / "stopped", 3).train == straight.train
