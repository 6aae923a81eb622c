"""DFA's feature distillation loss (Eqn 3), with the partial L2 of the overhaul as distance.

Table 5's "Last" equals Table 2's "Margin" (Heo et al., ICCV 2019) in two of three pairs, so the
distance L2 is that method's partial L2, with a margin of -1.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.kernels import FLOOR, accelerated


@accelerated(kernels.partial_l2)
def partial_l2(student: tf.Tensor, target: tf.Tensor, margin: float = FLOOR) -> tf.Tensor:
    """Returns the squared distance to the target where it matters, one term of Eqn 3.

    With s and t the elements of student and target and m the margin, it is the sum of

        (s - m)^2  if t <= m and s > m
        (s - t)^2  if m < t <= 0 and s > t, or t > 0
        0          otherwise: both are negative, and the student is lower already

    which is (s - t')^2 where s > t' or t' > 0, for t' = max(t, m).

    Args:
        student: Tensor `[B, H, W, C]`, the output of the student transform F_s.
        target: Tensor `[B, H, W, C]`, the aggregation of unclipped pre-ReLU maps. It receives no
            gradient.
        margin: m, negative.

    Returns:
        Float32 tensor `[B]`.
    """
    s = tf.cast(student, tf.float32)
    t = tf.maximum(tf.cast(tf.stop_gradient(target), tf.float32), margin)
    squares = tf.where((s > t) | (t > 0), tf.square(s - t), 0.0)
    return tf.reduce_sum(squares, [1, 2, 3])


def clipped_l2(student: tf.Tensor, target: tf.Tensor, margin: float = FLOOR) -> tf.Tensor:
    """Returns the squared distance of two maps clipped at the margin. See `partial_l2`."""
    floor = tf.cast(margin, student.dtype)
    difference = tf.maximum(student, floor) - tf.maximum(tf.cast(target, student.dtype), floor)
    return tf.reduce_sum(tf.square(tf.cast(difference, tf.float32)), [1, 2, 3])


def group_weight(group: int, groups: int) -> float:
    """Returns the weight of group 1..groups: half of the next group's; the last has 1."""
    return 0.5 ** (groups - group)


def feature_distillation_loss(
    students: Sequence[tf.Tensor],
    targets: Sequence[tf.Tensor],
    distance: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = partial_l2,
) -> tf.Tensor:
    """Returns L_fd for each example: Eqn 3, with group i of G weighted by 2^(i - G).

    Args:
        students: For each group, the transformed student feature `[B, H, W, C]`.
        targets: For each group, the aggregation `[B, H, W, C]`.
        distance: The distance L2.

    Returns:
        Float32 tensor `[B]`.
    """
    groups = len(targets)
    return tf.add_n(
        [
            group_weight(group, groups) * distance(student, target)
            for group, (student, target) in enumerate(zip(students, targets, strict=True), start=1)
        ]
    )
