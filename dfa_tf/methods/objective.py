"""The student's objective: cross entropy plus the terms of one or several methods."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import tensorflow as tf

from dfa_tf.methods.losses import cross_entropy
from dfa_tf.methods.method import INPUT_GRADIENT, Distillation, Outputs, Pretraining, Term
from dfa_tf.models.network import Network

RESERVED = {"loss", "accuracy", "cross_entropy"}


def student_objective(
    teacher: Network,
    student: Network,
    distillations: Sequence[Distillation],
    weights: Sequence[float],
    needs: Collection[str] = (),
    ce_weight: float | None = None,
) -> Callable:
    """Returns the objective ce_weight * CE + sum over methods of weight * weighted sum of terms.

    Args:
        teacher: The frozen teacher.
        student: The student.
        distillations: The methods, built for both networks.
        weights: A factor for each method.
        needs: The union of the methods' `Method.needs`.
        ce_weight: Weight of the cross entropy; None for the product of the methods' weights.

    Returns:
        A function of (images, labels), as `training.fit.Problem` expects.
    """
    if ce_weight is None:
        ce_weight = math.prod(each.cross_entropy for each in distillations)

    def objective(images, labels):
        teacher_outputs = frozen_outputs(teacher, images, labels, needs)
        student_outputs = network_outputs(student, images, labels, needs, training=True)
        ce = cross_entropy(student_outputs.logits, labels)
        loss, measurements = ce_weight * ce, {"cross_entropy": ce}
        for k, (distillation, weight) in enumerate(zip(distillations, weights, strict=True), 1):
            terms = distillation.terms(teacher_outputs, student_outputs, labels)
            loss += weight * weighted_sum(terms, distillation.weights)  # DFA, Eqn 4
            # Two methods, such as FitNets and KD, may have terms of the same name.
            for name, term in _measurements(terms).items():
                measurements[f"{name}_{k}" if name in measurements else name] = term
        return loss, student_outputs.logits, measurements

    return objective


def pretraining_objective(
    teacher: Network, student: Network, pretraining: Pretraining, needs: Collection[str] = ()
) -> Callable:
    """Returns the objective of a pretraining phase. Arguments are as in `student_objective`."""

    def objective(images, labels):
        teacher_outputs = frozen_outputs(teacher, images, labels, needs)
        student_outputs = None
        if pretraining.uses_student:
            student_outputs = network_outputs(student, images, labels, needs, training=True)
        terms = pretraining.terms(teacher_outputs, student_outputs, labels)
        return weighted_sum(terms, pretraining.weights), None, _measurements(terms)

    return objective


def weighted_sum(terms: Mapping[str, Term], weights: Mapping[str, float]) -> tf.Tensor | int:
    """Returns the sum of weight * term, `[B]`, or 0 if there are no terms.

    The value of a term with parts is the sum of its parts.

    Args:
        terms: The terms by name.
        weights: The weight of each term.

    Raises:
        ValueError: If terms and weights have different names, or a name is reserved for a
            measurement of the objective itself.
    """
    if RESERVED & set(terms):
        raise ValueError(f"terms: the names {', '.join(RESERVED & set(terms))} are reserved")
    if set(terms) != set(weights):
        raise ValueError(f"weights: expected the names {set(terms)}, got {set(weights)}")
    return sum(weights[name] * _total(term) for name, term in terms.items())


def _total(term: Term) -> tf.Tensor:
    return tf.add_n(list(term.values())) if isinstance(term, Mapping) else term


def _measurements(terms: Mapping[str, Term]) -> dict[str, tf.Tensor]:
    """Returns each term by its name, and each part of a term by "term/part"."""
    measurements = {name: _total(term) for name, term in terms.items()}
    for name, term in terms.items():
        if isinstance(term, Mapping):
            measurements |= {f"{name}/{part}": value for part, value in term.items()}
    return measurements


def frozen_outputs(
    teacher: Network, images: tf.Tensor, labels: tf.Tensor, needs: Collection[str] = ()
) -> Outputs:
    """Returns the `Outputs` of the frozen teacher. No gradient flows through them."""
    outputs = network_outputs(teacher, images, labels, needs, training=False)
    parts = (outputs.logits, dict(outputs.features), outputs.pooled_map, outputs.input_gradient)
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
