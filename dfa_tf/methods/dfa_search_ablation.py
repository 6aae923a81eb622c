"""The search with the student's own loss, which the paper argues against (DFA, §3.2, Eqn 9)."""

import dataclasses

from dfa_tf.methods.feature_distillation import clipped_l2, group_weight
from dfa_tf.methods.losses import cross_entropy, is_correct


@dataclasses.dataclass(frozen=True)
class StudentLoss:
    """The student's loss of one group: CE + gamma_fd L_fd (Eqn 4).

    Only L_fd depends on beta (Eqn 9), so the search moves A_i towards what the student has already
    learned. The beta of other groups is constant, so L_fd consists of the term of group i alone,
    with its weight from `group_weight`. The distance is `clipped_l2`.

    Args:
        gamma_fd: Weight of L_fd.
    """

    gamma_fd: float = 1e-3

    name = "student"
    progress_metrics = {"student loss": "student", "accuracy": "accuracy"}  # noqa: RUF012

    def __call__(self, net, group, images, labels, aggregation):
        """Implements `dfa_search.SearchLoss`."""
        outputs = net.student(images, training=True)
        feature = net.student_feature(outputs["features"][group])
        transformed = net.st_connectors[group](feature, training=True)
        groups = net.student.group_names
        weight = group_weight(groups.index(group) + 1, len(groups))
        fd = weight * clipped_l2(transformed, aggregation)
        ce = cross_entropy(outputs["logits"], labels)
        loss = ce + self.gamma_fd * fd
        accuracy = is_correct(outputs["logits"], labels)
        return loss, {"student": loss, "fd": fd, "ce": ce, "accuracy": accuracy}
