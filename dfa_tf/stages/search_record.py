"""The record of a search: the history of alpha, and the gradients that moved it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.bilevel.dfa_search import Supernet
from dfa_tf.methods.aggregation import aggregation_weights
from dfa_tf.training.checkpoints import Journal
from dfa_tf.training.loop import Block


@dataclasses.dataclass
class SearchJournal(Journal):
    """The journal of a search. The keys of the dictionaries are group names.

    Attributes:
        history: `[step, alpha]` at the logged steps.
        group_steps: Number of finished iterations.
        loss_gradient_sums: The gradient `[N]` of the loss with respect to beta, summed over these
            iterations.
        decay_sums: The decay lambda * beta `[N]`, summed likewise.
        alpha_sums: alpha `[N]`, summed likewise.
        validation_loss: Mean of the validation loss at the last log; None before the first.
    """

    history: dict = dataclasses.field(default_factory=dict)
    group_steps: dict = dataclasses.field(default_factory=dict)
    loss_gradient_sums: dict = dataclasses.field(default_factory=dict)
    decay_sums: dict = dataclasses.field(default_factory=dict)
    alpha_sums: dict = dataclasses.field(default_factory=dict)
    validation_loss: float | None = None


class SearchRecord:
    """Records beta during the search. Its state is in the journal, which checkpoints contain.

    The vectors of a block's measurements concern the groups that are searched at the time. Those of
    several groups are concatenated.

    Args:
        net: The supernet.
        journal: The journal of the run.
        loss: Name of the loss that both steps minimise.
        steps_per_group: Iterations of each group's search.
    """

    def __init__(self, net: Supernet, journal: SearchJournal, loss: str, steps_per_group: int):
        self._net = net
        self._journal = journal
        self._loss = loss
        self._steps_per_group = steps_per_group

    def start(self, groups: Sequence[str]) -> None:
        """Records the groups' initial alpha, unless the journal of a resumed run has it."""
        for group in groups:
            self._journal.history.setdefault(group, [[0, self._alpha_now(group)]])

    def add(self, groups: Sequence[str], block: Block) -> None:
        """Records the iterations of a block.

        Args:
            groups: The groups that are searched.
            block: The block.
        """
        journal = self._journal
        sums_by_measurement = {
            "beta_loss_gradient": journal.loss_gradient_sums,
            "beta_decay": journal.decay_sums,
            "alpha": journal.alpha_sums,
        }
        for name, sums in sums_by_measurement.items():
            # Values are added one by one, so that a resumed run has exactly the same sums.
            for group, values in self._by_group(groups, block.measurements[name]).items():
                for value in values:
                    sums[group] = (np.asarray(sums.get(group, 0.0)) + value).tolist()
        steps = len(block.measurements["alpha"])
        for group in groups:
            journal.group_steps[group] = journal.group_steps.get(group, 0) + steps
        if block.means is not None:
            step_of_group = (block.step - 1) % self._steps_per_group + 1
            for group in groups:
                journal.history[group].append([step_of_group, self._alpha_now(group)])
            journal.validation_loss = float(block.means[f"validation/{self._loss}"])

    def scalars(self, groups: Sequence[str], means: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the scalars for TensorBoard: alpha, and the two gradients of beta.

        Args:
            groups: The groups that are searched.
            means: Means of the measurements since the last log.

        Returns:
            `{name: value}`, with three entries for each feature.
        """
        loss_gradients = self._by_group(groups, means["beta_loss_gradient"])
        decays = self._by_group(groups, means["beta_decay"])
        scalars = {}
        for group in groups:
            alpha = self._alpha_now(group)
            for j, name in enumerate(self._net.teacher.group(group).feature_names):
                scalars[f"alpha/{name}"] = alpha[j]
                scalars[f"beta_gradient_of_loss/{name}"] = loss_gradients[group][j]
                scalars[f"beta_gradient_of_decay/{name}"] = decays[group][j]
        return scalars

    def alpha_line(self, group: str) -> str:
        """Returns the group's alpha as one line of text."""
        names = self._net.teacher.group(group).feature_names
        return ", ".join(
            f"{name.removeprefix(f'{group}_')} {weight:.3f}"
            for name, weight in zip(names, self._alpha_now(group), strict=True)
        )

    def alpha(
        self,
        final: str = "last",
        dataset: str = "",
        teacher: str = "",
        student: str = "",
        seed: int = 0,
    ) -> Alpha:
        """Returns the current `Alpha`.

        Args:
            final: "last", or "mean" over the iterations of each group.
            dataset: Name of the data set.
            teacher: Name of the teacher.
            student: Name of the student.
            seed: Seed of the search.
        """
        groups = [self._group_alpha(name, final) for name in self._net.teacher.group_names]
        return Alpha(dataset, teacher, student, seed, self._journal.step, groups)

    def _group_alpha(self, group, final):
        features = self._net.teacher.group(group).feature_names
        if group not in self._net.beta:
            return GroupAlpha(group, features, [0.0], [1.0], [[0, [1.0]]], [0.0], [0.0])
        beta, alpha = self._net.beta[group].numpy().tolist(), self._alpha_now(group)
        steps = self._journal.group_steps.get(group, 0)
        if final == "mean" and steps:
            alpha = self._mean(self._journal.alpha_sums, group)
            beta = np.log(alpha).tolist()
        return GroupAlpha(
            group,
            features,
            beta,
            alpha,
            self._journal.history.get(group, [[0, alpha]]),
            self._mean(self._journal.loss_gradient_sums, group),
            self._mean(self._journal.decay_sums, group),
        )

    def _by_group(self, groups, values):
        """Splits values `[..., sum of N_i]` of several groups. Returns `{group: [..., N_i]}`."""
        counts = [len(self._net.teacher.group(group).features) for group in groups]
        parts = np.split(np.asarray(values), np.cumsum(counts)[:-1], axis=-1)
        return dict(zip(groups, parts, strict=True))

    def _mean(self, sums, group):
        if group not in sums:
            return [0.0] * len(self._net.teacher.group(group).features)
        return (np.asarray(sums[group]) / self._journal.group_steps[group]).tolist()

    def _alpha_now(self, group):
        return aggregation_weights(self._net.beta[group]).numpy().tolist()
