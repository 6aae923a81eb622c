"""Settings of devices, logging and saving."""

import dataclasses

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.validation import NOT_BINDABLE, Count, NonNegative, Settings

SHORTEST = 0.001  # epochs between evaluations


@dataclasses.dataclass(frozen=True)
class Runtime(Settings):
    """Settings that do not affect the result of a run, with the exception of `evaluate_every`.

    Args:
        strategy: A `tf.distribute` strategy; None for the one in scope.
        log_every: Steps between entries in TensorBoard and in alpha's history.
        evaluate_every: Epochs between evaluations, at least 0.001; 0 to evaluate at the end alone.
            With keep="best", the network is one of those that are evaluated.
        checkpoint_seconds: Seconds between checkpoints.
        fresh: Whether to empty the stage's folder and start from scratch.
        quiet: Whether to print nothing.
        views_folder: Folder for the logits of `distill.teacher_views`, which several runs may share;
            None for WORKDIR/teacher_views.
    """

    strategy: tf.distribute.Strategy | None = dataclasses.field(default=None, metadata=NOT_BINDABLE)
    log_every: Count = 50
    evaluate_every: NonNegative = 1.0
    checkpoint_seconds: NonNegative = 120.0
    fresh: bool = dataclasses.field(default=False, metadata=NOT_BINDABLE)
    quiet: bool = dataclasses.field(default=False, metadata=NOT_BINDABLE)
    views_folder: str | None = None

    name = "runtime"

    def __post_init__(self):
        super().__post_init__()
        if 0 < self.evaluate_every < SHORTEST:
            raise UserError(
                f"runtime.evaluate_every: expected 0, or a number of epochs of at least {SHORTEST}, "
                f"got {self.evaluate_every}"
            )

    @property
    def devices(self) -> tf.distribute.Strategy:
        """The strategy of the run."""
        return self.strategy or tf.distribute.get_strategy()
