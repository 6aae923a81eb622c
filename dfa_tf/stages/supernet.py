"""What the aggregation search trains, and its two alternating steps (DFA, Algorithm 1; Fig 3)."""

import keras
import tensorflow as tf

from dfa_tf.alpha import initial_beta
from dfa_tf.methods import bridge
from dfa_tf.methods.connectors import connector
from dfa_tf.seeds import derived_seed
from dfa_tf.training.devices import global_mean


class Supernet:
    """The frozen teacher and the student, joined in both directions at each group.

    teacher, student: Networks, whose variables were made in the strategy's scope, as this must
        be. initial: beta's start (see `initial_beta`). normalize: batch normalization in the
        connectors. clip: keep values no smaller than -1 of T and S (§3.4). entry: where the TS
        path enters the student (see `Network.tail`).
    beta: {group: [N] variable}, for groups of more than one feature.
    st_connectors, ts_connectors: {group: model}, from the student's last feature to the teacher's
        channels, and from the teacher's aggregation to the student's.
    """

    def __init__(self, teacher, student, *, initial, normalize, clip, entry, precision, seed):
        self.teacher, self.student = teacher, student
        self._clip = clip
        self.entry = entry
        self.st_connectors, self.ts_connectors, self.beta = {}, {}, {}
        for name in teacher.group_names:
            of_teacher, of_student = teacher.group(name), student.group(name)
            if len(of_teacher.features) == 1:
                continue
            seeds = [derived_seed(seed, f"search/{name}/{what}") for what in ("st", "ts", "beta")]
            self.st_connectors[name] = connector(
                of_student.feature_shape,
                of_teacher.feature_shape[-1],
                f"{name}_st",
                normalize,
                seeds[0],
                precision,
            )
            self.ts_connectors[name] = connector(
                of_teacher.feature_shape,
                of_student.feature_shape[-1],
                f"{name}_ts",
                normalize,
                seeds[1],
                precision,
            )
            start = initial_beta(initial, len(of_teacher.features), seeds[2])
            self.beta[name] = tf.Variable(start, name=f"{name}_beta")
            student.prepare_tail(name, entry)

    @property
    def models(self):
        """All that has weights w: the student and the connectors."""
        return [self.student, *self.st_connectors.values(), *self.ts_connectors.values()]

    def weights(self, group):
        """The part of w that group's bridge loss depends on: the student, and two connectors."""
        models = [self.student, self.st_connectors[group], self.ts_connectors[group]]
        return [variable for model in models for variable in model.trainable_variables]

    def teacher_features(self, group, images):
        """T_i^1..T_i^N; the teacher runs in inference mode, and only up to the group."""
        return self.teacher.features(group, images, training=False)

    def aggregate(self, group, features):
        """A_i of the features, clipped, with the weights that beta[i] gives."""
        return bridge.aggregate(features, bridge.weights(self.beta[group]), self._clip)

    def paths(self, group, images, labels, aggregation):
        """Both paths of Fig 3 from one aggregation A_i.

        Returns (L_ST [B], L_TS [B], logits of the TS path [B, classes]).
        """
        student_feature = self.student.features(group, images, training=True)[-1]
        if self._clip:
            student_feature = bridge.clip(student_feature)
        st = bridge.st_loss(self.st_connectors[group](student_feature, training=True), aggregation)
        entering = self.ts_connectors[group](aggregation, training=True)
        logits = self.student.tail(group, entering, training=True, entry=self.entry)
        return st, bridge.ts_loss(logits, labels), logits

    def student_pass(self, group, images):
        """(F_s(S_i) of the ST connector, logits) of the whole student: what L_student is made of."""
        outputs = self.student(images, training=True)
        feature = outputs["features"][group][-1]
        if self._clip:
            feature = bridge.clip(feature)
        return self.st_connectors[group](feature, training=True), outputs["logits"]


def beta_step(supernet, group, loss, optimizer, batch_size):
    """The step that lowers L_val over beta[i] alone (Eqn 7).

    loss: see search_loss.py. optimizer: of [beta[i]]. Returns the replica's step of
    (images, labels), which gives {name: this replica's share of what it measured}.
    """
    beta = supernet.beta[group]

    def step(images, labels):
        features = supernet.teacher_features(group, images)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(beta)
            # Batch statistics are used, as DARTS does, but not recorded: nothing but beta moves.
            with keras.StatelessScope():
                aggregation = supernet.aggregate(group, features)
                lowered, parts = loss(supernet, group, images, labels, aggregation)
            share = global_mean(lowered, batch_size)
        gradient = tape.gradient(share, beta)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        measured = _measured("validation", parts, batch_size) | {
            "beta": tf.identity(beta) / replicas,
            "beta_loss_gradient": gradient,
        }
        optimizer.apply([gradient])
        return measured

    return step


def w_step(supernet, group, loss, optimizer, batch_size):
    """The step that lowers L_train over w alone (Eqn 8). Arguments and result as `beta_step`."""
    weights = [variable.value for variable in supernet.weights(group)]

    def step(images, labels):
        features = supernet.teacher_features(group, images)
        aggregation = supernet.aggregate(group, features)
        with tf.GradientTape() as tape:  # A_i, made outside, is a constant here
            lowered, parts = loss(supernet, group, images, labels, aggregation)
            share = global_mean(lowered, batch_size)
        # L_student has no use for the TS connector.
        gradients = tape.gradient(share, weights, unconnected_gradients="zero")
        optimizer.apply(gradients)
        return _measured("train", parts, batch_size)

    return step


def _measured(split, parts, batch_size):
    return {f"{split}/{name}": global_mean(part, batch_size) for name, part in parts.items()}
