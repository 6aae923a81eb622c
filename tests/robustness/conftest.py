"""Property-based tests: the same examples in each run, or new and more ones on request.

DFA_EXAMPLES=2000 bin/test tests/robustness -m 'slow or not slow'
"""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("DFA_EXAMPLES", "0"))
COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def examples(count: int) -> settings:
    """Returns the settings of a test with `count` fixed examples, or DFA_EXAMPLES new ones."""
    if EXAMPLES:
        return settings(max_examples=EXAMPLES, **COMMON)
    return settings(max_examples=count, derandomize=True, **COMMON)
