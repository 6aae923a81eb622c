"""The network of the best evaluation on validation examples, kept instead of the last one."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.validation import check_value

Keep = Literal["last", "best"]
LAST, BEST = get_args(Keep)


class BestNetwork:
    """The network with the highest validation accuracy so far, the first one on ties.

    Checkpoints must contain its variables, so that a resumed run keeps the same network.

    Args:
        template: The network that is trained. It is copied.
        test: Test examples, which measure the kept network once; None for no measurement.
    """

    def __init__(self, template: Network, test: Any):
        self._evaluator = Evaluator(template, test)
        self.network = self._evaluator.network(template)

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of the kept network."""
        return [variable.value for variable in self.network.variables]

    def update(self, curve: Sequence, network: Network) -> None:
        """Keeps a network if its evaluation is the best one.

        Args:
            curve: `[step, accuracy, loss]` of each evaluation so far. The last one is the network's.
            network: The evaluated float32 network.
        """
        if best_evaluation(curve) is curve[-1]:
            self._evaluator.network(network)

    def test_result(self) -> dict[str, float] | None:
        """Returns the metrics of the kept network on the test examples; None without examples."""
        tally = self._evaluator(self.network)
        return tally.metrics() if tally else None


def best_evaluation(curve: Sequence) -> Sequence:
    """Returns the `[step, accuracy, loss]` with the highest accuracy, the first one on ties."""
    return max(curve, key=lambda evaluation: evaluation[1])


def check_keep(name: str, keep: Keep, validation: Any) -> None:
    """Checks that a run has validation examples if and only if they choose the network to keep.

    Args:
        name: The setting, for error messages: "distill.keep".
        keep: "last" or "best".
        validation: The validation examples, or None.

    Raises:
        UserError: If `keep` has another value, or does not match the examples.
    """
    check_value(name, keep, Keep)
    if keep == BEST and validation is None:
        raise UserError(
            f"{name}: expected validation examples for 'best', got none; pass validation=, such as "
            "a part of the training examples"
        )
    if keep == LAST and validation is not None:
        raise UserError(
            f"{name}: expected 'best' for a run with validation examples, got 'last'; set it, or "
            "remove the examples"
        )
