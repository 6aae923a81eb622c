"""The aggregation weights alpha of the teacher's features, and the file alpha.json."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Any, Literal, get_args

import numpy as np

from dfa_tf import files
from dfa_tf.errors import UserError
from dfa_tf.validation import check_value, expected

FORMAT = 1
LAST_WEIGHT = 0.99

InitialBeta = Literal["last", "uniform", "random"]
FixedAlpha = Literal["last", "average", "random"]


@dataclasses.dataclass
class GroupAlpha:
    """The aggregation weights of one group with N features.

    Attributes:
        name: Name of the group.
        features: Names of its features.
        beta: The architecture parameters `[N]`; alpha is their softmax (DFA, Eqn 6).
        alpha: The weights `[N]`, whose sum is 1.
        history: `[step, alpha]` at the logged steps of the group's search.
        mean_loss_gradient: Gradient `[N]` of the loss with respect to beta, averaged over the
            search.
        mean_decay: Gradient `[N]` of the weight decay, lambda * beta (Eqn 7), averaged likewise.
            Comparing the two gradients shows whether the loss or the decay moved alpha.
    """

    name: str
    features: list[str]
    beta: list[float]
    alpha: list[float]
    history: list = dataclasses.field(default_factory=list)
    mean_loss_gradient: list[float] = dataclasses.field(default_factory=list)
    mean_decay: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Alpha:
    """The feature aggregation weights of a teacher.

    Attributes:
        dataset: Name of the data set of the search.
        teacher: Name of the teacher.
        student: Name of the student.
        seed: Seed of the search.
        steps: Iterations of the search over all groups; 0 without a search.
        groups: The weights of each group.
        source: Where the weights come from: "search", the name of a fixed aggregation, or a path.
            It is not part of the file.
    """

    dataset: str
    teacher: str
    student: str
    seed: int
    steps: int
    groups: list[GroupAlpha]
    source: str = dataclasses.field(default="search", compare=False)

    def __getitem__(self, group: str) -> np.ndarray:
        """Returns the weights of the group named `group`, float32 `[N]`."""
        for candidate in self.groups:
            if candidate.name == group:
                return np.asarray(candidate.alpha, np.float32)
        raise KeyError(group)

    @property
    def last_weight(self) -> float:
        """The weight of the last feature, averaged over the groups with several features.

        It is 1 if no group has several features.
        """
        weights = [group.alpha[-1] for group in self.groups if len(group.alpha) > 1]
        return sum(weights) / len(weights) if weights else 1.0

    def without_search(self) -> "Alpha":
        """Returns the weights without the record of the search that found them."""
        groups = [GroupAlpha(g.name, g.features, g.beta, g.alpha) for g in self.groups]
        return dataclasses.replace(self, groups=groups)

    def check_fits(self, teacher: Any) -> None:
        """Checks that alpha has one weight for each feature of `teacher`, a `Network`.

        Raises:
            UserError: If the groups or their numbers of features differ.
        """
        source = "alpha" if self.source == "search" else self.source
        names = [group.name for group in self.groups]
        if names != list(teacher.group_names):
            raise UserError(
                f"{source}: expected the groups of the teacher {teacher.name}, "
                f"{', '.join(teacher.group_names)}, got {', '.join(names)}; search with this teacher"
            )
        for group in self.groups:
            count = len(teacher.group(group.name).features)
            if len(group.alpha) != count:
                raise UserError(
                    f"{source}: expected {count} weights for {group.name}, one for each feature "
                    f"of the teacher {teacher.name}, got {len(group.alpha)}; search with this teacher"
                )

    @property
    def digest(self) -> str:
        """A digest of all fields but `source`."""
        content = dataclasses.asdict(self)
        del content["source"]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def save(self, path: pathlib.Path) -> None:
        """Writes alpha.json."""
        content = dataclasses.asdict(self)
        del content["source"]
        files.write_json(path, {"format": FORMAT, **content})

    @classmethod
    def load(cls, path: str | os.PathLike, source: str = "") -> "Alpha":
        """Reads alpha.json.

        A file written by hand may contain `{"format": 1, "groups": [{"name", "alpha"}, ...]}`
        alone.

        Args:
            path: The file.
            source: The `source` of the result; the path by default.

        Returns:
            The `Alpha`.

        Raises:
            UserError: If the file is missing or malformed.
        """
        path = pathlib.Path(path)
        advice = "give an alpha.json that a search wrote"
        if source == "search":
            advice = "restart it with search --fresh"
        content = files.load_json(path, FORMAT, advice)
        try:
            groups = [_group_alpha(group) for group in content["groups"]]
        except KeyError as error:
            raise UserError(f"{path}: the key {error} is missing; {advice}") from error
        except TypeError as error:
            raise UserError(
                f"{path}: expected the layout of an alpha.json, got another structure; {advice}"
            ) from error
        for group in groups:
            _check_weights(group, path, advice)
        defaults = {"dataset": "", "teacher": "", "student": "", "seed": 0, "steps": 0}
        fields = {name: content.get(name, value) for name, value in defaults.items()}
        for name, value in fields.items():
            if type(value) is not type(defaults[name]):
                kind = expected(type(defaults[name]))
                raise UserError(f"{path}: {name!r}: expected {kind}, got {value!r}; {advice}")
        return cls(**fields, groups=groups, source=source or str(path))


def _group_alpha(content):
    """Returns the group in an entry of alpha.json. Only its name and alpha are required."""
    required = {"name": content["name"], "alpha": content["alpha"]}
    if not isinstance(required["name"], str):
        raise TypeError("the name of a group is not a string")
    names = {field.name for field in dataclasses.fields(GroupAlpha)}
    known = {name: value for name, value in content.items() if name in names}
    return GroupAlpha(**{"features": [], "beta": []} | known | required)


def _check_weights(group, path, advice):
    try:
        alpha = np.asarray(group.alpha, np.float64)
        valid = alpha.ndim == 1 and np.all(alpha >= 0) and abs(alpha.sum() - 1) < 1e-3
        check_value("alpha", group.alpha, list[float])  # for NumPy, booleans are numbers
    except (TypeError, ValueError, OverflowError, UserError):
        valid = False
    if not valid:
        raise UserError(
            f"{path}: expected alpha of {group.name} to be non-negative weights with sum 1; {advice}"
        )
    if not _is_record(group):
        raise UserError(
            f"{path}: expected beta, features and history of {group.name} to match its alpha; {advice}"
        )


def _is_record(group):
    """Returns whether what a group records of its search has the right types and sizes."""
    vectors = [group.beta, group.mean_loss_gradient, group.mean_decay]
    try:
        check_value("features", group.features, list[str])
        check_value("history", group.history, list[list])
        for step, weights in group.history:
            check_value("step", step, float)
            vectors.append(weights)
        for vector in vectors:
            check_value("vector", vector, list[float])
    except (UserError, ValueError):
        return False
    return {len(each) for each in (group.features, *vectors)} <= {0, len(group.alpha)}


def initial_beta(kind: InitialBeta, count: int, seed: int = 0) -> np.ndarray:
    """Returns the initial architecture parameters of a group.

    Args:
        kind: "last": 0 except for the last feature, whose alpha is 0.99 for any number of features
            (a softmax cannot reach the paper's 1, §3.4). "uniform": all 0. "random": draws from
            N(0, 1).
        count: Number of features.
        seed: Seed of the draws.

    Returns:
        Float32 array `[count]`.
    """
    beta = np.zeros(count, np.float32)
    if kind == "last" and count > 1:
        beta[-1] = math.log((count - 1) * LAST_WEIGHT / (1 - LAST_WEIGHT))
    elif kind == "random":
        beta = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    return beta


def permuted(alpha: Alpha, seed: int = 0) -> Alpha:
    """Returns an alpha with the weights of each group in another order.

    Each feature receives the weight of another one, drawn uniformly among such orders. This is the
    control for a search: the same weights, on other features.

    Args:
        alpha: The aggregation weights.
        seed: Seed of the draws.
    """
    draws = np.random.default_rng(seed)
    groups = []
    for group in alpha.groups:
        count = len(group.alpha)
        order = np.arange(count)
        while count > 1 and np.any(order == np.arange(count)):
            order = draws.permutation(count)
        beta = [group.beta[j] for j in order] if group.beta else []
        weights = [group.alpha[j] for j in order]
        groups.append(GroupAlpha(group.name, group.features, beta, weights))
    return dataclasses.replace(alpha, groups=groups, source=f"permuted {alpha.source}")


def fixed(kind: str, teacher: Any, seed: int = 0) -> Alpha:
    """Returns fixed aggregation weights, which need no search (DFA, Table 5).

    Args:
        kind: "last": 1 for the last feature of each group, 0 for the others. "average": equal
            weights. "random": the softmax of one N(0, 1) draw for each feature.
        teacher: The teacher, a `Network`.
        seed: Seed of the draws.

    Raises:
        UserError: If `kind` is unknown.
    """
    if kind not in get_args(FixedAlpha):
        raise UserError(f"alpha: expected 'last', 'average' or 'random', got {kind!r}")
    draws = np.random.default_rng(seed)
    groups = []
    for name in teacher.group_names:
        group = teacher.group(name)
        count = len(group.features)
        if kind == "last":
            alpha = np.eye(count)[-1]
        elif kind == "average":
            alpha = np.full(count, 1 / count)
        else:
            odds = np.exp(draws.standard_normal(count))
            alpha = odds / odds.sum()
        beta = np.log(np.maximum(alpha, 1e-30))
        groups.append(GroupAlpha(name, group.feature_names, beta.tolist(), alpha.tolist()))
    return Alpha("", teacher.name, "", seed, 0, groups, source=kind)
