"""What a distillation method is: the one interface of all files in this folder.

A method is a frozen dataclass with the settings of its paper and

    name    how files, logs and tables call it
    needs   what it takes beyond logits and features, of NEEDS
    build(teacher, student, seed, precision) -> Distillation

docs/adding-a-method.md shows a whole one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dfa_tf.errors import UserError

INPUT_GRADIENT, ALPHA = "input_gradient", "alpha"
NEEDS = (INPUT_GRADIENT, ALPHA)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one network makes of a replica's part of a batch.

    logits: [B, classes] float32. features: {group: [T_1, ..., T_N]}, the pre-ReLU maps
    [B, H, W, C] after each block. input_gradient: [B, H, W, C] float32, of the true class' logit
    for the image, where a method needs it. What a method does not read is not computed.
    """

    logits: tf.Tensor
    features: Mapping[str, Sequence[tf.Tensor]]
    input_gradient: tf.Tensor | None = None

    def last(self, group):
        """The group's last feature, before its ReLU: [B, H, W, C]."""
        return self.features[group][-1]

    def activation(self, group):
        """The group's last feature, after its ReLU: [B, H, W, C]."""
        return tf.nn.relu(self.last(group))

    @property
    def embedding(self):
        """What the classifier takes: the last group's activation, averaged: [B, C] float32."""
        last = self.activation(list(self.features)[-1])
        return tf.reduce_mean(tf.cast(last, tf.float32), [1, 2])


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A phase of its own before the student is trained with cross entropy.

    terms, weights: as of `Distillation`; there is no cross entropy.
    variables: what it trains. epochs: how long, by the optimizer of the stage, begun anew.
    uses_student: whether `terms` reads the student; else it is given None.
    """

    terms: Callable
    weights: Mapping[str, float]
    variables: Sequence
    epochs: float
    uses_student: bool = True


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A method, made for one teacher and one student. Its loss is the weighted sum of its terms.

    terms(teacher, student, labels): {name: [B] float32} of two `Outputs` and labels [B]; each is
        logged under its name, as it is without its weight.
    weights: {name: factor of that term}.
    cross_entropy: factor of the cross entropy with the labels that stands beside it.
    connectors: Keras models that are trained with the student and are no part of it.
    helpers: Keras models that only the pretraining trains.
    """

    terms: Callable
    weights: Mapping[str, float]
    cross_entropy: float = 1.0
    connectors: Sequence = ()
    helpers: Sequence = ()
    pretraining: Pretraining | None = None


def check_positive(method, *fields):
    """Raises UserError unless these settings of a method lie above 0."""
    for field in fields:
        value = getattr(method, field)
        if not isinstance(value, int | float) or not value > 0:
            raise UserError(f"{method.name}.{field} is a number above 0, not {value!r}")


def group_pairs(teacher, student):
    """[(group of the teacher, group of the student)] in order: the last ones of both correspond,
    those before them, and so on back to the first group of the one that has fewer."""
    count = min(len(teacher.group_names), len(student.group_names))
    return list(zip(teacher.group_names[-count:], student.group_names[-count:], strict=True))


def matched(*maps):
    """The maps [B, H, W, C], each averaged over areas down to the smallest height and width."""
    height, width = (min(m.shape[axis] for m in maps) for axis in (1, 2))
    return [area_averages(m, height, width) for m in maps]


def area_averages(x, height, width):
    """x [B, H, W, C] averaged over equal areas, to [B, height, width, C]; sizes shrink or stay."""
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            x = tf.tensordot(x, tf.constant(_areas(x.shape[axis], size), x.dtype), [[axis], [0]])
            x = tf.transpose(x, [0, 3, 1, 2] if axis == 1 else [0, 1, 3, 2])
    return x


def _areas(before, after):
    """[before, after]: which share of each old cell lies in each new one; columns sum to 1."""
    edge = before / after
    return [
        [max(0.0, min(i + 1, (j + 1) * edge) - max(i, j * edge)) / edge for j in range(after)]
        for i in range(before)
    ]


def flat(x):
    """[B, ...] as float32 [B, elements]."""
    return tf.reshape(tf.cast(x, tf.float32), [-1, math.prod(x.shape[1:])])


TINY = 1e-12


def unit(x, axis=-1):
    """x / |x| along the axis; 0, with a finite gradient, where x is 0."""
    return tf.math.l2_normalize(x, axis, TINY)


def norm(x):
    """|x| over the last axis; its gradient is 0, not infinite, where x is 0."""
    squares = tf.reduce_sum(tf.square(x), -1)
    some = squares > TINY
    return tf.where(some, tf.sqrt(tf.where(some, squares, 1.0)), 0.0)


def gathered(x):
    """x [B / replicas, ...] of all replicas, in their order: [B, ...], the global batch.

    With it a method that compares examples sees the same batch, and has the same loss and the same
    gradients, on any number of replicas. Gradients flow back to the replicas the rows are of.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_gather(x, axis=0)


def own_rows(x):
    """Where this replica's rows begin among the `gathered` ones: a scalar."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.constant(0)
    return tf.cast(context.replica_id_in_sync_group, tf.int32) * tf.shape(x)[0]
