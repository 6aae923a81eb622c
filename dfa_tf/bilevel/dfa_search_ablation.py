"""The search with the student's own loss, which the paper argues against (DFA, §3.2, Eqn 9)."""

from collections.abc import Mapping

import tensorflow as tf

from dfa_tf.bilevel.dfa_search import Supernet
from dfa_tf.methods.feature_distillation import clipped_l2, group_weight
from dfa_tf.methods.losses import cross_entropy, is_correct


def student_loss(
    net: Supernet, images: tf.Tensor, labels: tf.Tensor, aggregations: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the student's loss of one group: CE + gamma_fd L_fd (Eqn 4).

    Only L_fd depends on beta (Eqn 9), so the search moves A_i towards what the student has already
    learned. The beta of other groups is constant, so L_fd consists of the term of group i alone,
    with its weight from `group_weight`. The distance is `clipped_l2`.

    Args:
        net: The supernet.
        images: Tensor `[B, H, W, C]`.
        labels: Integer tensor `[B]`.
        aggregations: A_i `[B, h, w, c]` of the searched group, `{name: A_i}`.

    Returns:
        The loss of each example, `[B]`, and measurements `{name: [B]}`.
    """
    ((group, A),) = aggregations.items()
    outputs = net.student(images, training=True)
    S = net.student_feature(outputs["features"][group])
    groups = net.student.group_names
    weight = group_weight(groups.index(group) + 1, len(groups))
    fd = weight * clipped_l2(net.st_connectors[group](S, training=True), A)
    ce = cross_entropy(outputs["logits"], labels)
    loss = ce + net.options.gamma_fd * fd
    accuracy = is_correct(outputs["logits"], labels)
    return loss, {"student": loss, "fd": fd, "ce": ce, "accuracy": accuracy}
