"""alpha: how much each feature of each teacher group counts, searched or set, and its file."""

import dataclasses
import json
import math
import pathlib

import numpy as np

from dfa_tf import files
from dfa_tf.errors import UserError

FORMAT = 1
LAST_WEIGHT = 0.99


@dataclasses.dataclass
class GroupAlpha:
    """alpha of one group.

    name: the group. features: names of its N features. beta, alpha: [N] each, Eqn 6 between them.
    history: [[step, alpha], ...] over the group's own search steps.
    mean_loss_gradient: [N], of the bridge loss for beta, averaged over the search.
    mean_decay: [N], lambda * beta, what the regularization adds to it (Eqn 7). The two together
        say what moved alpha.
    """

    name: str
    features: list
    beta: list
    alpha: list
    history: list = dataclasses.field(default_factory=list)
    mean_loss_gradient: list = dataclasses.field(default_factory=list)
    mean_decay: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Alpha:
    """The aggregation weights of a whole teacher, and where they come from."""

    dataset: str
    teacher: str
    student: str
    seed: int
    steps: int
    groups: list

    def __getitem__(self, group):
        """alpha of the group named `group`: float32 [N]."""
        for each in self.groups:
            if each.name == group:
                return np.asarray(each.alpha, np.float32)
        raise KeyError(group)

    def check_fits(self, teacher, source="alpha"):
        """Raises UserError unless there is one weight for each feature of `teacher`."""
        names = [group.name for group in self.groups]
        if names != list(teacher.group_names):
            raise UserError(
                f"{source} has the groups {', '.join(names)}, the teacher {teacher.name} has {', '.join(teacher.group_names)}: search with this teacher"
            )
        for group in self.groups:
            expected = len(teacher.group(group.name).features)
            if len(group.alpha) != expected:
                raise UserError(
                    f"{source} has {len(group.alpha)} weights for {group.name}, where the teacher {teacher.name} has {expected} features: search with this teacher"
                )

    def save(self, path):
        """Writes alpha.json."""
        files.write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path):
        """Reads alpha.json. Raises UserError where it is missing or malformed."""
        path = pathlib.Path(path)
        mend = "give an alpha.json that a search wrote"
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {mend}") from error
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}): {mend}") from error
        try:
            if content["format"] != FORMAT:
                raise UserError(f"{path} has format {content['format']}, not {FORMAT}: {mend}")
            groups = [
                GroupAlpha(**{f.name: group[f.name] for f in dataclasses.fields(GroupAlpha)})
                for group in content["groups"]
            ]
            fields = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        except KeyError as error:
            raise UserError(f"{path} lacks {error}: {mend}") from error
        except TypeError as error:
            raise UserError(f"{path} is not laid out as an alpha.json: {mend}") from error
        for group in groups:
            _check_weights(group, path, mend)
        return cls(**fields | {"groups": groups})


def _check_weights(group, path, mend):
    try:
        alpha = np.asarray(group.alpha, np.float64)
        valid = alpha.ndim == 1 and np.all(alpha >= 0) and abs(alpha.sum() - 1) < 1e-3
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(
            f"the alpha of {group.name} in {path} is no list of weights of sum 1: {mend}"
        )


def initial_beta(kind, count, seed=0):
    """Architecture parameters to start a group's search from: [count] float32.

    kind: "last": beta 0 but for the last, so that alpha_last = 0.99 whatever the count (under
    softmax the paper's 1 is out of reach, §3.4); "uniform": all 0; "random": N(0, 1) draws that
    follow from `seed`. Raises UserError for another kind.
    """
    beta = np.zeros(count, np.float32)
    if kind == "last" and count > 1:
        beta[-1] = math.log((count - 1) * LAST_WEIGHT / (1 - LAST_WEIGHT))
    elif kind == "random":
        beta = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    elif kind not in ("last", "uniform"):
        raise UserError(f"beta starts from 'last', 'uniform' or 'random', not {kind!r}")
    return beta


def fixed(kind, teacher, seed=0):
    """An alpha that needs no search (Table 5): "last", "average" or "random".

    "last" is one-hot, as in the methods it stands for. "random" is the softmax of N(0, 1) draws,
    one for each feature, that follow from `seed`. Raises UserError for another kind.
    """
    draws = np.random.default_rng(seed)
    groups = []
    for name in teacher.group_names:
        group = teacher.group(name)
        count = len(group.features)
        if kind == "last":
            alpha = np.eye(count)[-1]
        elif kind == "average":
            alpha = np.full(count, 1 / count)
        elif kind == "random":
            odds = np.exp(draws.standard_normal(count))
            alpha = odds / odds.sum()
        else:
            raise UserError(
                f"distill.aggregation is 'search', 'last', 'average', 'random', 'none', an alpha.json or the gin file of another search, not {kind!r}"
            )
        beta = np.log(np.maximum(alpha, 1e-30))
        groups.append(GroupAlpha(name, group.feature_names, beta.tolist(), alpha.tolist()))
    return Alpha("", teacher.name, "", seed, 0, groups)
