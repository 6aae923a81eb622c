"""DFA's stage 2: distillation from aggregated features (Eqns 3 and 4, Algorithm 1, right)."""

import dataclasses

from dfa_tf.alpha import Alpha
from dfa_tf.errors import UserError
from dfa_tf.methods.bridge import aggregate
from dfa_tf.methods.connectors import group_connectors
from dfa_tf.methods.feature_distillation import DISTANCES, feature_distillation_loss
from dfa_tf.methods.method import ALPHA, Distillation


@dataclasses.dataclass(frozen=True)
class DFA:
    """CE + gamma_fd L_fd (Eqn 4), from A_i of the teacher's unclipped pre-ReLU features.

    alpha: an `Alpha`, searched or set. gamma_fd: weight of L_fd. distance: "partial" (the
    overhaul's partial L2) or "clipped" (L2 of maps clipped at -1).
    """

    alpha: Alpha | None = None
    gamma_fd: float = 1e-3
    distance: str = "partial"

    name = "dfa"
    needs = (ALPHA,)

    def __post_init__(self):
        if self.distance not in DISTANCES:
            raise UserError(f"dfa.distance is {' or '.join(DISTANCES)}, not {self.distance!r}")

    def build(self, teacher, student, seed, precision):
        groups = teacher.group_names
        weights = {name: self.alpha[name] for name in groups}
        connectors = group_connectors(teacher, student, seed, precision)

        def terms(teacher, student, labels):
            targets = [aggregate(teacher.features[name], weights[name]) for name in groups]
            transformed = [
                transform(student.last(name), training=True)
                for transform, name in zip(connectors, groups, strict=True)
            ]
            fd = feature_distillation_loss(transformed, targets, DISTANCES[self.distance])
            return {"feature_distillation": fd}

        return Distillation(terms, {"feature_distillation": self.gamma_fd}, connectors=connectors)
