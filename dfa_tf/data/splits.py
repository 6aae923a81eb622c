"""Splits of labelled images."""

import numpy as np
from sklearn.model_selection import train_test_split

from dfa_tf.data.examples import AnyExamples
from dfa_tf.errors import UserError, first_line


def stratified_split(
    examples: AnyExamples, fraction: float, seed: int, setting: str = "fraction"
) -> tuple[AnyExamples, AnyExamples]:
    """Splits examples in two parts with the same class proportions.

    Args:
        examples: Examples to split.
        fraction: Share of the second part, greater than 0 and less than 1: 0.3 for the paper's
            7:3 (DFA, §4.1).
        seed: Seed of the random choice.
        setting: What error messages call `fraction`.

    Returns:
        The two parts, each in the order of `examples`.

    Raises:
        UserError: If `fraction` is out of range, or a class has too few examples.
    """
    if not 0 < fraction < 1:
        raise UserError(
            f"{setting}: expected a number greater than 0 and less than 1, got {fraction!r}"
        )
    try:
        first, second = train_test_split(
            np.arange(len(examples)),
            test_size=fraction,
            stratify=examples.labels,
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(
            f"{setting}: {fraction} cannot split {len(examples)} examples by class ({first_line(error)})"
        ) from error
    return examples.select(np.sort(first)), examples.select(np.sort(second))
