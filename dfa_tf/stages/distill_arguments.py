"""Arguments of a distillation: teachers, methods and their weights, and their checks."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA, Method
from dfa_tf.models.network import Network
from dfa_tf.objectives.teachers import build_method
from dfa_tf.objectives.terms import path_factors
from dfa_tf.stages.identity import fingerprint
from dfa_tf.validation import NonNegative, check_value
from dfa_tf.weightings import ProcessWeighting, Weighting

PLAIN = "plain"
Teachers: TypeAlias = Network | Sequence[Network] | None


def as_teachers(teacher: Teachers) -> tuple[Network, ...]:
    """Returns the teachers as a tuple, empty for None."""
    if teacher is None:
        return ()
    return (teacher,) if isinstance(teacher, Network) else tuple(teacher)


def check_different(teachers: Sequence[Network]) -> None:
    """Checks that no two teachers have the same weights.

    Raises:
        UserError: If two teachers are the same. A second copy would add nothing but weight.
    """
    names = [fingerprint(each) for each in teachers]
    for k, name in enumerate(names, start=1):
        if name in names[: k - 1]:
            raise UserError(
                f"teacher: expected different teachers, got {name} as number "
                f"{names.index(name) + 1} and {k}; remove one of them"
            )


def needs_alpha(methods: Sequence[Method]) -> bool:
    """Returns whether any of the methods needs aggregation weights."""
    return any(ALPHA in method.needs for method in methods)


def methods_label(methods: Sequence[Method]) -> str:
    """Returns the methods' names joined by "+", such as "dfa+kd", or "plain" without methods."""
    return "+".join(method.name for method in methods) or PLAIN


def check_methods(
    methods: Sequence[Method],
    weights: Sequence[float] | Weighting | None,
    ce_weight: float | None = None,
) -> None:
    """Checks the methods of a distillation and their weights.

    Raises:
        UserError: If an item is not a method or is listed twice, if the weights are not one
            non-negative number for each method, or if the weighting cannot weigh the methods.
    """
    if not isinstance(methods, list | tuple):
        raise UserError(f"distill.methods: expected a list such as [@kd()], got {methods!r}")
    for method in methods:
        if not isinstance(method, Method):
            raise UserError(
                f"distill.methods: expected methods, as in [@kd()], got {method!r} in the list"
            )
    if len({method.name for method in methods}) < len(methods):
        raise UserError(f"distill.methods: expected each method once, got {methods_label(methods)}")
    check_value("distill.weights", weights, Sequence[NonNegative] | Weighting | None)
    check_value("distill.ce_weight", ce_weight, NonNegative | None)
    if isinstance(weights, Weighting):
        if not methods:
            raise UserError(
                f"distill.weights: expected methods whose losses @{weights.name} weighs, got none; "
                "add methods, or unbind it"
            )
        negative = [method.name for method in methods if method.can_be_negative]
        if negative and not weights.accepts_negative:
            raise UserError(
                f"distill.weights: expected methods whose losses are not negative for "
                f"@{weights.name}(), got {', '.join(negative)}; use other methods, or numbers"
            )
    elif weights is not None and len(weights) != len(methods):
        raise UserError(
            f"distill.weights: expected {len(methods)} numbers, one for each method, got "
            f"{len(weights)}"
        )


def check_weighting(
    weights: Any, teachers: Sequence[Network], student: Network, methods: Sequence[Method]
) -> None:
    """Checks that a weighting can weigh the paths of the methods.

    A process that is not known yet is not checked.

    Args:
        weights: As in `distill`.
        teachers: The teachers.
        student: The student.
        methods: The methods, which have an alpha if they need one.

    Raises:
        UserError: If the process has other paths, no weight reaches the threshold, or a path has no
            loss to learn a weight from.
    """
    is_unknown = isinstance(weights, ProcessWeighting) and not weights.process
    if isinstance(weights, Weighting) and not is_unknown:
        built = [build_method(m, teachers, student, 0, "float32") for m in methods]
        distillations = [each for group in built for each in group]
        weights.check(path_factors(distillations, weights.layerwise))
