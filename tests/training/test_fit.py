"""Numbers of steps, which are rounded: the repetition of batches, and the ends of epochs."""

import pytest

from dfa_tf.training.fit import epoch_ends
from dfa_tf.training.logit_cache import period_of


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
