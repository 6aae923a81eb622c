"""The evaluations of a run: what they record, and which network the run returns."""

import functools
from typing import Any

import numpy as np

from dfa_tf import figures
from dfa_tf.models.network import Network
from dfa_tf.training.checkpoints import Journal
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.keep_best import BestNetwork, best_evaluation
from dfa_tf.training.loop import Diverged
from dfa_tf.training.summaries import Summaries


class RunEvaluations:
    """Evaluates a network during its training.

    Args:
        label: Name of the run, for messages.
        network: The network.
        test: Test examples; None for none.
        validation: Validation examples. The network that is best on them is returned, and only this
            network is evaluated on the test examples. None to evaluate on the test examples during
            the run and to return the last network.
    """

    def __init__(self, label: str, network: Network, test: Any, validation: Any = None):
        self._label, self._network = label, network
        self._evaluated_on, examples, self._best = "test", test, None
        if validation is not None:
            self._evaluated_on, examples = "validation", validation
            self._best = BestNetwork(network, test)
        self._evaluator = Evaluator(network, examples)

    @property
    def state(self) -> dict[str, list]:
        """The variables that checkpoints must contain, by name."""
        return {"kept": self._best.variables} if self._best else {}

    def record(self, journal: Journal, summaries: Summaries, step: int, is_last: bool) -> str:
        """Evaluates the network, and records the result.

        Args:
            journal: The records of the run.
            summaries: TensorBoard's events.
            step: Number of finished steps.
            is_last: Whether the run ends here. The confusion matrix is then drawn.

        Returns:
            Accuracy and loss as text; empty without examples.

        Raises:
            Diverged: If the loss is not a number.
        """
        tally = self._evaluator(self._network)
        if tally is None:
            return ""
        metrics, examples = tally.metrics(), self._evaluated_on
        self._check_finite(metrics, examples, step)
        journal.curve.append([step, metrics["accuracy"], metrics["loss"]])
        journal.last = metrics
        if self._best:
            self._best.update(journal.curve, self._evaluator.network(self._network))
        summaries.scalars({f"{examples}/{name}": value for name, value in metrics.items()}, step)
        if is_last:
            draw = functools.partial(figures.confusion_matrix, tally.confusion)
            summaries.figure(f"{examples}/confusion", draw, step)
        return (
            f"{examples} accuracy {metrics['accuracy']:.4f}, {examples} loss {metrics['loss']:.4f}"
        )

    def returned(self, journal: Journal) -> tuple[Network, dict[str, Any]]:
        """Returns the network that the run returns, and its entries of `TrainingResult`.

        Args:
            journal: The records of the finished run.

        Raises:
            Diverged: If the test loss of the kept network is not a number.
        """
        best = best_evaluation(journal.curve) if journal.curve else None
        entries = {
            "evaluated_on": self._evaluated_on,
            "best": {"accuracy": best[1], "step": best[0]} if best else None,
        }
        if self._best is None:
            network = self._evaluator.network(self._network)
            return network, entries | {"last": journal.last or None, "kept_step": journal.step}
        last, kept_step = self._best.test_result(), best[0]
        if last:
            self._check_finite(last, "test", kept_step)
        return self._best.network, entries | {"last": last, "kept_step": kept_step}

    def _check_finite(self, metrics, examples, step):
        """Raises Diverged if the loss is not a number, although the training loss is one."""
        if not np.isfinite(metrics["loss"]):
            raise Diverged(
                f"{self._label}: the {examples} loss is {metrics['loss']} at step {step}; try a lower "
                "learning rate"
            )
