"""Methods with several teachers: built for each teacher, with the mean of the losses."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA, TEACHERS, Distillation, Method, Pretraining, Term
from dfa_tf.models.network import Network
from dfa_tf.objectives.terms import total
from dfa_tf.seeds import derived_seed


def check_method(method: Method, teachers: Sequence[Network], student: Network) -> None:
    """Checks that a method can distil these teachers into this student.

    Raises:
        UserError: If the method does not support the networks.
    """
    if TEACHERS in method.needs:
        method.check(tuple(teachers), student)
        return
    if ALPHA in method.needs and len(teachers) > 1:
        raise UserError(
            f"{method.name}: expected one teacher, whose features alpha weighs, got {len(teachers)}; "
            "use another method, or bind train_teacher.count = 1"
        )
    for teacher in teachers:
        method.check(teacher, student)
    layouts = {(teacher.group_names, teacher.stem_shape is None) for teacher in teachers}
    if len(layouts) > 1:
        _check_terms(method, teachers, student)


def build_method(
    method: Method, teachers: Sequence[Network], student: Network, seed: int, precision: str
) -> list[Distillation]:
    """Builds a method for one or several teachers. Arguments are as in `Method.build`."""
    if TEACHERS in method.needs:
        built = _listed(method.build(tuple(teachers), student, seed, precision))
        return [_of_all_teachers(each) for each in built]
    if len(teachers) == 1:
        return _listed(method.build(teachers[0], student, seed, precision))
    per_teacher = [
        _listed(method.build(teacher, student, derived_seed(seed, f"teacher {k}"), precision))
        for k, teacher in enumerate(teachers, start=1)
    ]
    return [_mean(each) for each in zip(*per_teacher, strict=True)]


def _of_all_teachers(distillation):
    """Returns the distillation whose terms receive the outputs of all teachers."""
    phase = distillation.pretraining
    phase = dataclasses.replace(phase, all_teachers=True) if phase else None
    return dataclasses.replace(distillation, all_teachers=True, pretraining=phase)


def _check_terms(method, teachers, student):
    """Checks that the method has the same terms with each teacher, so that they have a mean."""
    names = [
        [
            name
            for each in _listed(method.build(teacher, student, 0, "float32"))
            for name in each.weights
        ]
        for teacher in teachers
    ]
    for number, (teacher, found) in enumerate(zip(teachers, names, strict=True), start=1):
        if found != names[0]:
            raise UserError(
                f"{method.name}: expected teachers with which it has the same terms, got "
                f"{', '.join(names[0])} with {teachers[0].name}, and {', '.join(found)} with teacher "
                f"{number}, {teacher.name}; use teachers with the same groups and stems"
            )


def _listed(built):
    return [built] if isinstance(built, Distillation) else list(built)


def _mean(distillations: Sequence[Distillation]) -> Distillation:
    """Returns the distillation whose terms are the means over one distillation per teacher.

    Parts are named after the groups of the first teacher. Teachers with other groups have no parts.
    """
    first = distillations[0]
    pretraining = None
    if first.pretraining:
        phases = [each.pretraining for each in distillations if each.pretraining]
        variables = {id(v): v for phase in phases for v in phase.variables}
        pretraining = Pretraining(
            _mean_terms([phase.terms for phase in phases]),
            first.pretraining.weights,
            list(variables.values()),
            first.pretraining.epochs,
            first.pretraining.uses_student,
            all_teachers=True,
        )
    return Distillation(
        _mean_terms([each.terms for each in distillations]),
        first.weights,
        first.cross_entropy,
        first.parts if all(each.parts == first.parts for each in distillations) else {},
        connectors=[model for each in distillations for model in each.connectors],
        helpers=[model for each in distillations for model in each.helpers],
        pretraining=pretraining,
        all_teachers=True,
    )


def _mean_terms(functions: Sequence[Callable]) -> Callable:
    def terms(teachers, student, labels):
        each = [
            function(teacher, student, labels)
            for function, teacher in zip(functions, teachers, strict=True)
        ]
        return {name: _mean_term([terms[name] for terms in each]) for name in each[0]}

    return terms


def _mean_term(terms: Sequence[Term]) -> Term:
    """Returns the mean of terms, part by part if they have the same parts."""
    first = terms[0]
    if isinstance(first, Mapping) and any(set(term) != set(first) for term in terms):
        return tf.add_n([total(term) for term in terms]) / len(terms)
    if isinstance(first, Mapping):
        return {part: _mean_term([term[part] for term in terms]) for part in first}
    return tf.add_n(list(terms)) / len(terms)
