"""The training recipe: settings that all stages share."""

import dataclasses
from collections.abc import Sequence

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.errors import UserError
from dfa_tf.models.network import Precision
from dfa_tf.training.optimizers import SGD, Adam, Optimizer
from dfa_tf.validation import NOT_BINDABLE, Count, Positive, Settings

MOST_STEPS = 2**31 - 1
FLOAT16 = "mixed_float16"


@dataclasses.dataclass(frozen=True)
class Training(Settings):
    """A training recipe. The defaults are DFA's for wide ResNets on CIFAR-100 (§4.1).

    Args:
        epochs: Passes over the training examples. Fractions are allowed.
        batch_size: Examples in a step, over all replicas.
        optimizer: Settings of the optimizer.
        augmentation: Augmentation of the training images.
        precision: "float32", "mixed_bfloat16", or "mixed_float16" for GPUs without bfloat16.
            Variables, logits and losses are float32 in each.
        seed: Seed of batches and initial weights.
    """

    epochs: Positive = 200
    batch_size: Count = 128
    optimizer: SGD | Adam = SGD()
    augmentation: Augmentation = dataclasses.field(default=Augmentation(), metadata=NOT_BINDABLE)
    precision: Precision = "float32"
    seed: int = dataclasses.field(default=0, metadata=NOT_BINDABLE)

    name = "training"

    @property
    def loss_scaling(self) -> bool:
        """Whether the gradients need a loss scale."""
        return self.precision == FLOAT16

    def build_optimizer(
        self,
        variables: Sequence,
        examples: int,
        settings: SGD | Adam | None = None,
        factor: float = 1.0,
    ) -> Optimizer:
        """Returns the optimizer of a run, with a loss scale if the precision needs one.

        Args:
            variables: The variables to train.
            examples: Number of training examples.
            settings: Settings of the optimizer; by default those of the recipe.
            factor: Factor of the learning rate.
        """
        return (settings or self.optimizer).build(
            variables,
            self.steps_per_epoch(examples),
            self.steps(examples),
            factor,
            self.loss_scaling,
        )

    def steps(self, examples: int) -> int:
        """Returns the number of steps of a run on `examples` training examples.

        Steps are full batches, and remainders carry over to the next epoch. For instance, 40 epochs
        of 35,000 examples in batches of 128 are 10,937 steps.

        Raises:
            UserError: If the epochs contain less than one batch, or too many for 32 bits.
        """
        steps = int(self.epochs * examples / self.batch_size + 1e-9)
        if steps < 1:
            raise UserError(
                f"epochs: expected at least one batch of {self.batch_size}, got {self.epochs} epochs "
                f"of {examples} examples; increase epochs or reduce batch_size"
            )
        if steps > MOST_STEPS:
            raise UserError(
                f"epochs: expected at most {MOST_STEPS:,} steps, got {steps:.3g} from {self.epochs} "
                f"epochs of {examples} examples; reduce epochs"
            )
        return steps

    def steps_per_epoch(self, examples: int) -> float:
        """Returns the number of steps in an epoch of `examples` examples, not rounded."""
        return examples / self.batch_size
