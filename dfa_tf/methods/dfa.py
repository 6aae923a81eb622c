"""DFA's stage 2: distillation from aggregated features (Algorithm 1, right; Eqns 3 and 4)."""

import dataclasses
from typing import Literal

from dfa_tf.alpha import Alpha
from dfa_tf.errors import UserError
from dfa_tf.methods.aggregation import aggregate
from dfa_tf.methods.connectors import check_same_groups, group_connectors
from dfa_tf.methods.feature_distillation import clipped_l2, feature_distillation_loss, partial_l2
from dfa_tf.methods.method import ALPHA, Distillation, Method
from dfa_tf.validation import NOT_BINDABLE, NonNegative

DISTANCES = {"partial": partial_l2, "clipped": clipped_l2}


@dataclasses.dataclass(frozen=True)
class DFA(Method):
    """L_student = CE + gamma_fd L_fd (Eqn 4), with the teacher's aggregations as targets.

    L_fd = sum over groups i = 1..G of 2^(i - G) L2(A_i, F_s(S_i)). A_i aggregates the teacher's
    unclipped pre-ReLU features (Eqn 2). S_i is the last feature of the student's group. F_s is a
    1x1 convolution with batch normalization. This is Eqn 3 without F_t. The weights 2^(i - G) are
    not in the paper (see docs/method.md).

    Args:
        alpha: The aggregation weights. `distill` sets them.
        gamma_fd: Weight of L_fd.
        distance: The distance L2: "partial" (`partial_l2`), or "clipped" (`clipped_l2`, of maps
            clipped at -1).
    """

    alpha: Alpha | None = dataclasses.field(default=None, metadata=NOT_BINDABLE)
    gamma_fd: NonNegative = 1e-3
    distance: Literal["partial", "clipped"] = "partial"

    name = "dfa"
    needs = (ALPHA,)

    def check(self, teacher, student):
        """Checks that both networks have the same groups."""
        check_same_groups(teacher, student)

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        if self.alpha is None:
            raise UserError(
                "alpha: expected the weights that DFA needs, got None; run a search first"
            )
        groups = teacher.group_names
        alpha = {group: self.alpha[group] for group in groups}
        connectors = group_connectors(teacher, student, seed, precision)
        transforms = dict(zip(groups, connectors, strict=True))

        def terms(teacher, student, labels):
            targets = {group: aggregate(teacher.features[group], alpha[group]) for group in groups}
            transformed = {
                group: transform(student.last(group), training=True)
                for group, transform in transforms.items()
            }
            fd = feature_distillation_loss(transformed, targets, DISTANCES[self.distance])
            return {"feature_distillation": fd}

        return Distillation(
            terms,
            {"feature_distillation": self.gamma_fd},
            parts={"feature_distillation": groups},
            connectors=connectors,
        )
