"""Fine-tuning: the head is trained first and faster than the pretrained layers below it."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.training.optimizers import Optimizer, scaled_gradients
from dfa_tf.validation import NonNegative, Positive, Settings


@dataclasses.dataclass(frozen=True)
class FineTuning(Settings):
    """How the layers of a pretrained network are trained.

    The head is the classifier, together with the connectors of a distillation. The backbone is the
    rest of the network.

    Args:
        head_epochs: Epochs at the start in which the backbone is frozen: its weights do not change,
            and its batch normalization uses the moving statistics.
        backbone_rate: Factor of the backbone's learning rate.
    """

    head_epochs: NonNegative = 0.0
    backbone_rate: Positive = 1.0

    name = "fine_tuning"

    @property
    def is_plain(self) -> bool:
        """Whether all layers are trained with the same settings."""
        return not self.head_epochs and self.backbone_rate == 1

    def head_steps(self, steps_per_epoch: float, steps: int) -> int:
        """Returns the number of steps in which the backbone is frozen."""
        return min(round(self.head_epochs * steps_per_epoch), steps)

    def check(self, stage: str, network: Network, epochs: float) -> None:
        """Checks that a network can be trained this way for `epochs` epochs.

        Args:
            stage: Name of the stage, for the error message.
            network: The network.
            epochs: Length of the training.

        Raises:
            UserError: If the network does not have a classifier, or is frozen for all epochs.
        """
        if not self.is_plain and network.classifier is None:
            raise UserError(
                f"{stage}.head_epochs and {stage}.backbone_rate: expected a network with a dense "
                f"classifier on the pooled map, got {network.name}; bind keras_file.head='new'"
            )
        if self.head_epochs >= epochs:
            raise UserError(
                f"{stage}.head_epochs: expected less than the {epochs:g} epochs of the run, got "
                f"{self.head_epochs:g}"
            )


def split_variables(network: Network, variables: Sequence) -> tuple[list, list]:
    """Returns the variables of the head and those of the backbone.

    Args:
        network: The network.
        variables: Its trainable variables and those of connectors.
    """
    head = {id(variable) for variable in network.classifier.trainable_variables}
    own = {id(variable) for variable in network.trainable_variables}
    backbone = [v for v in variables if id(v) in own - head]
    return [v for v in variables if id(v) not in own - head], backbone


class HeadAndBackbone:
    """Two optimizers that take their steps together, with the interface of one.

    With loss scaling, an overflow in one part leaves only the variables of that part unchanged.

    Args:
        head: The optimizer of the head.
        backbone: The optimizer of the backbone.
        is_frozen: Whether only the head is updated. The backbone's schedule continues.
    """

    def __init__(self, head: Optimizer, backbone: Optimizer, is_frozen: bool = False):
        self._head, self._backbone, self._is_frozen = head, backbone, is_frozen
        self.variables = [*head.variables, *([] if is_frozen else backbone.variables)]

    @property
    def frozen(self) -> "HeadAndBackbone":
        """The same optimizers, in the steps in which the backbone does not change."""
        return HeadAndBackbone(self._head, self._backbone, is_frozen=True)

    @property
    def state(self) -> list[tf.Variable]:
        """The optimizers' own variables."""
        return self._head.state + self._backbone.state

    @property
    def step(self) -> tf.Tensor:
        """The number of finished steps, a scalar."""
        return self._head.step

    @property
    def learning_rate(self) -> float:
        """The head's learning rate in the next step."""
        return self._head.learning_rate

    def gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        """Returns the gradients of a loss, see `Optimizer.gradients`."""
        return scaled_gradients(tape, loss, self.variables, self.loss_scale)

    @property
    def loss_scale(self) -> tf.Tensor | None:
        """The smaller of both loss scales, so that neither part overflows forever."""
        scale = self._head.loss_scale
        if scale is None or self._is_frozen:
            return scale
        return tf.minimum(scale, self._backbone.loss_scale)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the variables, see `Optimizer.apply`."""
        count = len(self._head.variables)
        self._head.apply(gradients[:count])
        if self._is_frozen:
            self._backbone.skip()
        else:
            self._backbone.apply(gradients[count:])
