"""The distillation loss of stage 2: DFA, Eqns 3 and 4, in the overhaul's form.

Table 5's "Last" equals Table 2's "Margin" [Heo et al., ICCV 2019], so the distance L2 is that
method's partial L2, with a margin of -1.
"""

import tensorflow as tf

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
    target = tf.cast(target, student.dtype)
    target = tf.stop_gradient(tf.maximum(target, tf.cast(margin, target.dtype)))

    @tf.custom_gradient
    def distance(student):
        difference = student - target
        counted = tf.where(target > 0, difference, tf.nn.relu(difference))

        def gradient(upstream):
            # One product in the maps' dtype, where that of the float32 square takes four passes.
            return _per_example(2.0 * upstream, counted.dtype) * counted

        return tf.reduce_sum(tf.square(tf.cast(counted, tf.float32)), [1, 2, 3]), gradient

    return distance(student)


def clipped_l2(student, target, margin=MARGIN):
    """Plain squared distance of the two maps, both clipped at the margin. As `partial_l2`."""
    floor = tf.cast(margin, student.dtype)
    difference = tf.maximum(student, floor) - tf.maximum(tf.cast(target, student.dtype), floor)
    return tf.reduce_sum(tf.square(tf.cast(difference, tf.float32)), [1, 2, 3])


def _per_example(values, dtype):
    """[B] as [B, 1, 1, 1] of `dtype`."""
    return tf.cast(values, dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]


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


def student_loss(cross_entropy, feature_distillation, gamma_fd=1e-3):
    """L_student (Eqn 4); both arguments of one shape, which is returned."""
    return cross_entropy + gamma_fd * feature_distillation
