"""The accuracies that the DFA paper reports (ECCV 2020, Tables 1, 2, 4 and 5)."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Reference:
    """The paper's results for one pair of networks.

    Attributes:
        networks: Teacher and student.
        dataset: Data set that the student is trained on.
        percent: Accuracy in percent, by method title; "Teacher" is the teacher's own.
    """

    networks: str
    dataset: str
    percent: Mapping[str, float]


_CIFAR100_PAIRS = {
    "pair1": "WRN_28_4 to WRN_16_4",
    "pair2": "WRN_28_4 to WRN_28_2",
    "pair3": "WRN_28_4 to WRN_16_2",
}
_CIFAR100_PERCENT = {  # Tables 1, 2 and 5, in the order of the pairs
    "Teacher": (79.17, 79.17, 79.17),
    "Student": (77.24, 75.78, 73.42),
    "KD": (78.4, 76.61, 73.35),
    "FitNets": (78.17, 76.14, 73.65),
    "AT": (77.49, 75.54, 73.3),
    "Jacobian": (77.84, 76.24, 73.28),
    "FT": (78.26, 76.51, 74.17),
    "AB": (78.65, 76.81, 73.9),
    "SP": (78.7, 77.41, 74.09),
    "Margin": (79.11, 77.84, 75.51),
    "Random": (78.92, 77.07, 74.25),
    "Last": (79.11, 77.86, 75.51),
    "Average": (78.81, 76.99, 74.11),
    "DFA": (79.74, 78.18, 75.85),
}
_CINIC10_PAIRS = {
    "cinic10_pair1": "ShuffleNetV2 x2.0 to x1.0",
    "cinic10_pair2": "ShuffleNetV2 x2.0 to x0.5",
    "cinic10_pair3": "ShuffleNetV2 x1.0 to x0.5",
}
_CINIC10_PERCENT = {  # Table 4
    "Teacher": (86.14, 86.14, 83.28),
    "Student": (83.28, 77.34, 77.34),
    "AT": (84.71, 79.06, 78.42),
    "SP": (85.32, 79.15, 79.02),
    "Margin": (85.29, 78.79, 79.69),
    "DFA": (85.38, 79.51, 79.97),
    "DFA-T": (85.41, 79.45, 79.38),
}


def _references(dataset, pairs, percent):
    return {
        pair: Reference(networks, dataset, {method: row[k] for method, row in percent.items()})
        for k, (pair, networks) in enumerate(pairs.items())
    }


REFERENCES = _references("cifar100", _CIFAR100_PAIRS, _CIFAR100_PERCENT) | _references(
    "cinic10", _CINIC10_PAIRS, _CINIC10_PERCENT
)
