"""How much each loss of a distillation counts: constant, learnt, or a schedule."""

from dfa_tf.weightings.adaptive import Adaptive
from dfa_tf.weightings.process import ProcessWeighting
from dfa_tf.weightings.weighting import Weighting

WEIGHTINGS: dict[str, type[Weighting]] = {
    weighting.name: weighting for weighting in (Adaptive, ProcessWeighting)
}

__all__ = ["WEIGHTINGS", "Adaptive", "ProcessWeighting", "Weighting"]
