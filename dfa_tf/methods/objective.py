"""The loss of a student: cross entropy, and what one or several distillation methods add."""

import math

import tensorflow as tf

from dfa_tf.methods.losses import cross_entropy
from dfa_tf.methods.method import INPUT_GRADIENT, Outputs

RESERVED = {"loss", "accuracy", "cross_entropy"}


def student_objective(teacher, student, distillations, factors, needs, ce_weight=None):
    """CE times its weight, plus the sum of factor * weight * term over all methods' terms.

    teacher, student: Networks. distillations: what the methods were built to. factors: one for
    each. needs: of all methods together.
    ce_weight: of the cross entropy; None for the product of what the methods ask for.
    Returns the objective (images, labels) -> (loss [B], logits [B, classes], {name: [B]}).
    """
    if ce_weight is None:
        ce_weight = math.prod(each.cross_entropy for each in distillations)

    def objective(images, labels):
        taught = teacher_outputs(teacher, images, labels, needs)
        learnt = outputs(student, images, labels, needs, training=True)
        ce = cross_entropy(learnt.logits, labels)
        loss, measured = ce_weight * ce, {"cross_entropy": ce}
        for place, (distillation, factor) in enumerate(zip(distillations, factors, strict=True), 1):
            terms = distillation.terms(taught, learnt, labels)
            loss += factor * weighted_sum(terms, distillation.weights)
            # Two methods may have terms of one name, FitNets and KD say.
            measured |= {f"{n}_{place}" if n in measured else n: term for n, term in terms.items()}
        return loss, learnt.logits, measured

    return objective


def pretraining_objective(teacher, student, pretraining, needs):
    """The objective of a method's pretraining, as of `student_objective`; its logits are None."""

    def objective(images, labels):
        taught = teacher_outputs(teacher, images, labels, needs)
        uses = pretraining.uses_student
        learnt = outputs(student, images, labels, needs, training=True) if uses else None
        terms = pretraining.terms(taught, learnt, labels)
        return weighted_sum(terms, pretraining.weights), None, terms

    return objective


def weighted_sum(terms, weights):
    """Sum of weight * term, [B], or 0 without terms.

    Raises ValueError unless both have the same names, none of which the loop takes itself.
    """
    if RESERVED & set(terms):
        raise ValueError(f"a method's terms are not called {', '.join(RESERVED & set(terms))}")
    if set(terms) != set(weights):
        raise ValueError(f"the terms are {set(terms)}, the weights of {set(weights)}")
    return sum(weights[name] * term for name, term in terms.items())


def teacher_outputs(teacher, images, labels, needs=()):
    """What the frozen teacher makes of images: `Outputs` that no gradient flows through."""
    seen = outputs(teacher, images, labels, needs, training=False)
    parts = (seen.logits, dict(seen.features), seen.input_gradient)
    return Outputs(*tf.nest.map_structure(lambda x: x if x is None else tf.stop_gradient(x), parts))


def outputs(network, images, labels, needs=(), training=False):
    """`Outputs` of a network. images: [B, H, W, C], 0..255. labels: [B]. needs: of NEEDS."""
    if INPUT_GRADIENT not in needs:
        made = network(images, training=training)
        return Outputs(made["logits"], made["features"])
    images = tf.cast(images, tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        made = network(images, training=training)
        of_true_class = tf.reduce_sum(tf.gather(made["logits"], labels, batch_dims=1))
    gradient = tape.gradient(of_true_class, images)
    return Outputs(made["logits"], made["features"], gradient)
