"""DFA's feature distillation loss (Eqn 3), with a partial L2 distance.

The distance L2 is the partial L2 of Heo et al. ("A comprehensive overhaul of feature distillation",
ICCV 2019) with a margin of -1. The reason is that DFA's "Last" (Table 5) equals that method,
"Margin" (Table 2), for two of three pairs of networks.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.kernels import FLOOR, accelerated


@accelerated(kernels.partial_l2)
def partial_l2(student: tf.Tensor, target: tf.Tensor, margin: float = FLOOR) -> tf.Tensor:
    """Returns the partial L2 distance between two maps, the distance in one term of Eqn 3.

    With s and t the elements of student and target and m the margin, it is the sum of

        (s - m)^2  if t <= m and s > m
        (s - t)^2  if m < t <= 0 and s > t, or t > 0
        0          otherwise: a target that is not positive, and a student at or below max(t, m)

    Equivalently, it is the sum of (s - t')^2 where s > t' or t' > 0, with t' = max(t, m).

    Args:
        student: Tensor `[B, H, W, C]`, the output of the student transform F_s.
        target: Tensor `[B, H, W, C]`, the aggregation of unclipped pre-ReLU maps. It receives no
            gradient.
        margin: The margin m, a negative number.

    Returns:
        Float32 tensor `[B]`.
    """
    s = tf.cast(student, tf.float32)
    t = tf.maximum(tf.cast(tf.stop_gradient(target), tf.float32), margin)
    squares = tf.where((s > t) | (t > 0), tf.square(s - t), 0.0)
    return tf.reduce_sum(squares, [1, 2, 3])


def clipped_l2(student: tf.Tensor, target: tf.Tensor, margin: float = FLOOR) -> tf.Tensor:
    """Returns the squared distance between two maps after clipping both at `margin`.

    Args:
        student: Tensor `[B, H, W, C]`.
        target: Tensor `[B, H, W, C]`.
        margin: The lowest value that clipping preserves.

    Returns:
        Float32 tensor `[B]`.
    """
    floor = tf.cast(margin, student.dtype)
    difference = tf.maximum(student, floor) - tf.maximum(tf.cast(target, student.dtype), floor)
    return tf.reduce_sum(tf.square(tf.cast(difference, tf.float32)), [1, 2, 3])


def group_weight(group: int, groups: int) -> float:
    """Returns the weight of a group: 1 for the last, half the next group's weight for others.

    Args:
        group: Number of the group, from 1 to `groups`.
        groups: Number of groups.
    """
    return 0.5 ** (groups - group)


def feature_distillation_loss(
    students: Mapping[str, tf.Tensor],
    targets: Mapping[str, tf.Tensor],
    distance: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = partial_l2,
) -> dict[str, tf.Tensor]:
    """Returns the groups' parts of L_fd for each example: Eqn 3, group i of G times 2^(i - G).

    Args:
        students: For each group, the transformed student feature `[B, H, W, C]`.
        targets: For each group, the aggregation `[B, H, W, C]`.
        distance: The distance L2, a function of a student and a target that returns `[B]`.

    Returns:
        A float32 tensor `[B]` for each group. Their sum is L_fd.
    """
    return {
        name: group_weight(group, len(targets)) * distance(students[name], target)
        for group, (name, target) in enumerate(targets.items(), start=1)
    }
