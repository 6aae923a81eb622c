"""Terms of several methods: their sums, their parts, and the paths that a weighting weighs."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Term
from dfa_tf.weightings.weighting import ConstantWeights

RESERVED = {"loss", "accuracy", "cross_entropy"}


def total(term: Term) -> tf.Tensor:
    """Returns the value of a term, `[B]`: the sum of its parts if it has parts."""
    return tf.add_n(list(term.values())) if isinstance(term, Mapping) else term


def measurements(terms: Mapping[str, Term]) -> dict[str, tf.Tensor]:
    """Returns each term by its name, and each part of a term by "term/part"."""
    measured = {name: total(term) for name, term in terms.items()}
    for name, term in terms.items():
        if isinstance(term, Mapping):
            measured |= {f"{name}/{part}": value for part, value in term.items()}
    return measured


def weighted_sum(terms: Mapping[str, Term], weights: Mapping[str, float]) -> tf.Tensor | int:
    """Returns the sum of weight * term, `[B]`, or 0 if there are no terms.

    Args:
        terms: The terms by name.
        weights: The weight of each term.

    Raises:
        ValueError: As in `check_names`.
    """
    check_names(terms, weights)
    return sum(weights[name] * total(term) for name, term in terms.items())


def check_names(terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
    """Checks the names of a method's terms.

    Raises:
        ValueError: If terms and weights have different names, or a name is reserved for a
            measurement of the objective itself.
    """
    if RESERVED & set(terms):
        raise ValueError(f"terms: the names {', '.join(RESERVED & set(terms))} are reserved")
    if set(terms) != set(weights):
        raise ValueError(f"weights: expected the names {set(terms)}, got {set(weights)}")


def term_names(distillations: Sequence[Distillation]) -> list[dict[str, str]]:
    """Returns a unique name for each term of each method.

    Two methods, such as FitNets and KD, may have terms of the same name. The term of the later one,
    the k-th distillation, is then called "<term>_k".
    """
    used: set[str] = set()
    names = []
    for k, distillation in enumerate(distillations, start=1):
        unique = {term: f"{term}_{k}" if term in used else term for term in distillation.weights}
        used |= set(unique.values())
        names.append(unique)
    return names


def path_names(distillations: Sequence[Distillation], layerwise: bool = False) -> list[str]:
    """Returns the paths of several methods: their terms, or the parts of terms that have parts.

    Args:
        distillations: The methods.
        layerwise: Whether each part is a path.
    """
    return [
        path
        for distillation, names in zip(distillations, term_names(distillations), strict=True)
        for path in paths_of(distillation, names, layerwise)
    ]


def paths_of(distillation: Distillation, names: Mapping[str, str], layerwise: bool) -> list[str]:
    """Returns the paths of one method, whose terms have the unique names `names`."""
    paths = []
    for term, name in names.items():
        parts = distillation.parts.get(term, ()) if layerwise else ()
        paths += [f"{name}/{part}" for part in parts] or [name]
    return paths


def constant_weights(
    distillations: Sequence[Distillation], factors: Sequence[float]
) -> ConstantWeights:
    """Returns the weights that multiply all terms of a method by its factor."""
    names = term_names(distillations)
    return ConstantWeights(
        {
            path: factor
            for factor, unique in zip(factors, names, strict=True)
            for path in unique.values()
        }
    )
