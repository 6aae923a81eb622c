"""The student's objective: cross entropy plus the terms of one or several methods."""

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.methods.losses import cross_entropy
from dfa_tf.methods.method import INPUT_GRADIENT, Distillation, Outputs, Pretraining
from dfa_tf.models.network import Network
from dfa_tf.objectives.terms import (
    constant_weights,
    factors_of,
    measurements,
    named_terms,
    term_names,
    weighted_sum,
)
from dfa_tf.weightings.weighting import PathWeights


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a training run with an objective of its own.

    Attributes:
        last: The last step of the part.
        objective: A function as from `student_objective`.
    """

    last: int
    objective: Callable


def student_objective(
    teacher: Network | Sequence[Network],
    student: Network,
    distillations: Sequence[Distillation],
    weights: Sequence[float] | PathWeights,
    needs: Collection[str] = (),
    ce_weight: float | None = None,
    *,
    class_weights: np.ndarray | None = None,
    targets: Callable | None = None,
    layerwise: bool = False,
    paths: Collection[str] | None = None,
) -> Callable:
    """Returns the objective ce_weight * CE + the weighted sum of the losses of all paths.

    Args:
        teacher: The frozen teacher, or several of them.
        student: The student.
        distillations: The methods, built for these networks.
        weights: A factor for each distillation, or the weights of the paths (`terms.path_factors`).
        needs: The union of the methods' `Method.needs`.
        ce_weight: Weight of the cross entropy; None for the product of the methods' weights.
        class_weights: As in `cross_entropy`. They do not affect the losses of the methods.
        targets: See `Targets.build`; None for the labels. The methods receive the mixed images too.
        layerwise: Whether each part of a term is a path.
        paths: The paths to compute; None for all. A distillation without any of them is left out.

    Returns:
        A function of (images, labels, step, training, teacher_logits), as `training.fit.Problem`
        expects. If logits of the teachers `[B, teachers, classes]` are given, the teachers are not
        run.
    """
    if ce_weight is None:
        ce_weight = math.prod(each.cross_entropy for each in distillations)
    combine = weights if callable(weights) else constant_weights(distillations, weights)
    computed, lambdas = [], {}
    for distillation, names in zip(distillations, term_names(distillations), strict=True):
        factors = factors_of(distillation, names, layerwise)
        if paths is None or set(paths) & set(factors):
            computed.append((distillation, names))
            lambdas |= factors

    def objective(images, labels, step=0, training=True, teacher_logits=None):
        images, expected = targets(images, labels, step) if targets else (images, labels)
        outputs: tuple[Outputs, ...] = ()
        if computed and teacher_logits is not None:
            outputs = outputs_of_logits(teacher_logits)
        elif computed:
            outputs = _teacher_outputs(teacher, images, labels, needs)
        student_outputs = network_outputs(student, images, labels, needs, training)
        ce = cross_entropy(student_outputs.logits, expected, class_weights)
        terms = named_terms(computed, outputs, student_outputs, labels)
        losses = {path: factor * terms[path] for path, factor in lambdas.items()}
        loss, measured = ce_weight * ce, {"cross_entropy": ce} | terms
        if losses:
            combined, path_weights = combine(losses, step)
            loss, measured = loss + combined, measured | path_weights  # DFA, Eqn 4
        return loss, student_outputs.logits, measured

    return objective


def pretraining_objective(
    teacher: Network | Sequence[Network],
    student: Network,
    pretraining: Pretraining,
    needs: Collection[str] = (),
) -> Callable:
    """Returns the objective of a pretraining phase. Arguments are as in `student_objective`."""

    def objective(images, labels, step=0):
        outputs = _teacher_outputs(teacher, images, labels, needs)
        student_outputs = None
        if pretraining.uses_student:
            student_outputs = network_outputs(student, images, labels, needs, training=True)
        teacher_outputs = outputs if pretraining.all_teachers else outputs[0]
        terms = pretraining.terms(teacher_outputs, student_outputs, labels)
        return weighted_sum(terms, pretraining.weights), None, measurements(terms)

    return objective


def _teacher_outputs(teacher, images, labels, needs):
    """Returns a tuple of the `Outputs` of each teacher."""
    teachers = [teacher] if isinstance(teacher, Network) else teacher
    return tuple(frozen_outputs(each, images, labels, needs) for each in teachers)


def outputs_of_logits(logits: tf.Tensor) -> tuple[Outputs, ...]:
    """Returns the `Outputs` of each teacher, which have the logits alone.

    Args:
        logits: The teachers' logits `[B, teachers, classes]`, of any floating-point type.
    """
    each = tf.unstack(tf.cast(logits, tf.float32), axis=1)
    return tuple(Outputs(one, features={}, pooled_map=None) for one in each)


def frozen_outputs(
    teacher: Network, images: tf.Tensor, labels: tf.Tensor, needs: Collection[str] = ()
) -> Outputs:
    """Returns the `Outputs` of the frozen teacher. No gradient flows through them."""
    outputs = network_outputs(teacher, images, labels, needs, training=False)
    parts = (
        outputs.logits,
        dict(outputs.features),
        outputs.pooled_map,
        outputs.input_gradient,
        outputs.stem,
    )
    return Outputs(*tf.nest.map_structure(lambda x: x if x is None else tf.stop_gradient(x), parts))


def network_outputs(
    network: Network,
    images: tf.Tensor,
    labels: tf.Tensor,
    needs: Collection[str] = (),
    training: bool = False,
) -> Outputs:
    """Returns the `Outputs` of a network for images `[B, H, W, C]` and labels `[B]`."""
    if INPUT_GRADIENT not in needs:
        return Outputs(**network.full_outputs(images, training=training))
    images = tf.cast(images, tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        outputs = network.full_outputs(images, training=training)
        true_class_logits = tf.reduce_sum(tf.gather(outputs["logits"], labels, batch_dims=1))
    return Outputs(**outputs, input_gradient=tape.gradient(true_class_logits, images))
