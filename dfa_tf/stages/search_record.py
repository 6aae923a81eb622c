"""What the search writes down about beta as it goes, and the alpha that it ends in."""

import numpy as np

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.methods import bridge
from dfa_tf.training.checkpoints import Journal


class SearchRecord:
    """Follows beta through the groups' searches; all it knows is in its journal.

    supernet: whose beta. loss: the name of what is lowered. decay: lambda of Eqn 7. steps_per_group: of the search.
    """

    def __init__(self, supernet, loss, decay, steps_per_group):
        self._supernet = supernet
        self._loss = loss
        self._decay = decay
        self._steps_per_group = steps_per_group
        self.journal = Journal(history={}, sums={}, validation={})

    def begin(self, group):
        """Notes where the group's alpha starts, unless that is done already."""
        self.journal["history"].setdefault(group, [[0, self._alpha_now(group)]])

    def step(self, group, measured):
        """Adds up one iteration. measured: what `beta_step` measured, as arrays."""
        sums = self.journal["sums"].setdefault(group, {"steps": 0})
        beta = measured["beta"].astype(np.float64)
        terms = {
            "loss_gradient": measured["beta_loss_gradient"],
            "decay": self._decay * beta,
            "alpha": _softmax(beta),
        }
        sums["steps"] += 1
        for name, term in terms.items():
            # One after the other, so that an interrupted run comes to the same sum.
            sums[name] = (np.asarray(sums.get(name, 0.0)) + term).tolist()

    def log(self, group, step, means):
        """Adds to the group's history. Returns {name: number} to show in TensorBoard.

        step: of the whole search. means: of what the steps since the last call measured.
        """
        alpha = self._alpha_now(group)
        history = self.journal["history"][group]
        history.append([(step - 1) % self._steps_per_group + 1, alpha])
        self.journal["validation"] = {"loss": float(means[f"validation/{self._loss}"])}
        decay = self._decay * means["beta"]
        shown = {}
        for j, name in enumerate(self._supernet.teacher.group(group).feature_names):
            shown[f"alpha/{name}"] = alpha[j]
            shown[f"beta_gradient_of_loss/{name}"] = means["beta_loss_gradient"][j]
            shown[f"beta_gradient_of_decay/{name}"] = decay[j]
        return shown

    def told(self, group):
        """The group's alpha as a line."""
        names = self._supernet.teacher.group(group).feature_names
        return ", ".join(
            f"{name.removeprefix(f'{group}_')} {weight:.3f}"
            for name, weight in zip(names, self._alpha_now(group), strict=True)
        )

    def alpha(self, final="last", dataset="", teacher="", student="", seed=0):
        """The Alpha so far. final: "last" or "mean" over a group's iterations."""
        groups = []
        for name in self._supernet.teacher.group_names:
            features = self._supernet.teacher.group(name).feature_names
            if name not in self._supernet.beta:
                groups.append(GroupAlpha(name, features, [0.0], [1.0], [[0, [1.0]]], [0.0], [0.0]))
                continue
            means = self._means(name)
            beta, alpha = self._supernet.beta[name].numpy().tolist(), self._alpha_now(name)
            if final == "mean":
                alpha = means["alpha"]
                beta = np.log(alpha).tolist()
            groups.append(
                GroupAlpha(
                    name,
                    features,
                    beta,
                    alpha,
                    self.journal["history"].get(name, [[0, alpha]]),
                    means["loss_gradient"],
                    means["decay"],
                )
            )
        return Alpha(dataset, teacher, student, seed, self.journal["step"], groups)

    def _means(self, group):
        sums = self.journal["sums"].get(group)
        if not sums:
            zeros = [0.0] * len(self._supernet.teacher.group(group).features)
            return {"loss_gradient": zeros, "decay": zeros, "alpha": self._alpha_now(group)}
        names = ("loss_gradient", "decay", "alpha")
        return {name: (np.asarray(sums[name]) / sums["steps"]).tolist() for name in names}

    def _alpha_now(self, group):
        return bridge.weights(self._supernet.beta[group]).numpy().tolist()


def _softmax(beta):
    odds = np.exp(beta - beta.max())
    return odds / odds.sum()
