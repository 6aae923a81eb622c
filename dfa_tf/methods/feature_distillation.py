"""The distillation loss of stage 2: DFA, Eqns 3 and 4, in the overhaul's form.

Table 5's "Last" equals Table 2's "Margin" [Heo et al., ICCV 2019], so the distance L2 is that
method's partial L2, with a margin of -1.
"""

import tensorflow as tf

from dfa_tf.fused import fused, slice_sums

MARGIN = -1.0


def partial_l2(student, target, margin=MARGIN):
    """Squared distance to the target where it matters, one term of Eqn 3.

    student: [B, H, W, C], after its connector. target: [B, H, W, C], the aggregation of unclipped
    pre-ReLU maps. margin: m, negative. Returns [B] float32: the sum over elements of
        (s - m)^2  where t <= m and s > m
        (s - t)^2  where m < t <= 0 and s > t, or t > 0
        0          elsewhere: both are negative and the student is below already.
    With t' = max(t, m) that is (s - t')^2 where s > t' or t' > 0. No gradient reaches the target.
    """

    @tf.custom_gradient
    def distance(student, target):
        def gradient(upstream):
            return _partial_gradient(2.0 * upstream, student, target, margin), None

        return tf.reduce_sum(_partial_squares(student, target, margin), 1), gradient

    return distance(student, tf.cast(target, student.dtype))


def _counted(student, target, margin):
    """s - t' where it counts, 0 elsewhere; float32."""
    target = tf.maximum(tf.cast(target, tf.float32), margin)
    difference = tf.cast(student, tf.float32) - target
    return tf.where(target > 0, difference, tf.nn.relu(difference))


@fused
def _partial_squares(student, target, margin):
    return slice_sums(lambda s, t: tf.square(_counted(s, t, margin)), student, target)


@fused
def _partial_gradient(factors, student, target, margin):
    factors = tf.reshape(factors, [-1, 1, 1, 1])
    return tf.cast(factors * _counted(student, target, margin), student.dtype)


def clipped_l2(student, target, margin=MARGIN):
    """Plain squared distance of the two maps, both clipped at the margin. As `partial_l2`."""
    floor = tf.cast(margin, student.dtype)
    difference = tf.maximum(student, floor) - tf.maximum(tf.cast(target, student.dtype), floor)
    return tf.reduce_sum(tf.square(tf.cast(difference, tf.float32)), [1, 2, 3])


DISTANCES = {"partial": partial_l2, "clipped": clipped_l2}


def group_weight(group, groups):
    """How much group 1..groups counts: 1/2 for each group after it, so the last counts 1."""
    return 0.5 ** (groups - group)


def feature_distillation_loss(students, targets, distance=partial_l2):
    """L_fd (Eqn 3), per example.

    students, targets: one map [B, H, W, C] for each group, in order. Returns [B] float32.
    """
    groups = len(targets)
    return tf.add_n(
        [
            group_weight(group, groups) * distance(student, target)
            for group, (student, target) in enumerate(zip(students, targets, strict=True), start=1)
        ]
    )
