"""Terms of several methods: their sums, their parts, and the paths that a weighting weighs."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Outputs, Term
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


def path_factors(
    distillations: Sequence[Distillation], layerwise: bool = False
) -> dict[str, float]:
    """Returns the constant weight lambda_k of each path, `{path: lambda_k}`.

    The paths of several methods are their terms, or the parts of terms that have parts.

    Args:
        distillations: The methods.
        layerwise: Whether each part is a path.
    """
    return {
        path: factor
        for distillation, names in zip(distillations, term_names(distillations), strict=True)
        for path, factor in factors_of(distillation, names, layerwise).items()
    }


def factors_of(
    distillation: Distillation, names: Mapping[str, str], layerwise: bool
) -> dict[str, float]:
    """Returns the `path_factors` of one method, whose terms have the unique names `names`."""
    factors = {}
    for term, name in names.items():
        parts = distillation.parts.get(term, ()) if layerwise else ()
        paths = [f"{name}/{part}" for part in parts] or [name]
        factors |= dict.fromkeys(paths, distillation.weights[term])
    return factors


def named_terms(
    distillations: Sequence[tuple[Distillation, Mapping[str, str]]],
    teachers: Sequence[Outputs],
    student: Outputs,
    labels: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Computes the terms of several methods, and their parts.

    Args:
        distillations: Each method with the unique names of its terms, as from `term_names`.
        teachers: The `Outputs` of each teacher.
        student: The `Outputs` of the student.
        labels: Integer tensor `[B]`.

    Returns:
        `{name: [B], "name/part": [B]}`, without the weights of the terms.

    Raises:
        ValueError: As in `check_names`.
    """
    values: dict[str, tf.Tensor] = {}
    for distillation, names in distillations:
        outputs = tuple(teachers) if distillation.all_teachers else teachers[0]
        terms = distillation.terms(outputs, student, labels)
        check_names(terms, distillation.weights)
        values |= measurements({names[name]: term for name, term in terms.items()})
    return values


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
