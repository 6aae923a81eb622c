"""The numbers that DFA's paper gives for CIFAR-100: accuracy in percent, by method and pair."""

TEACHER = 79.17
NETWORKS = {  # Table 1
    "pair1": "WRN_28_4 to WRN_16_4",
    "pair2": "WRN_28_4 to WRN_28_2",
    "pair3": "WRN_28_4 to WRN_16_2",
}
PAIRS = tuple(NETWORKS)

_TABLE2 = {
    "Student": (77.24, 75.78, 73.42),
    "KD": (78.4, 76.61, 73.35),
    "FitNets": (78.17, 76.14, 73.65),
    "AT": (77.49, 75.54, 73.3),
    "Jacobian": (77.84, 76.24, 73.28),
    "FT": (78.26, 76.51, 74.17),
    "AB": (78.65, 76.81, 73.9),
    "SP": (78.7, 77.41, 74.09),
    "Margin": (79.11, 77.84, 75.51),
    "DFA": (79.74, 78.18, 75.85),
}
_TABLE5 = {
    "Student": (77.24, 75.78, 73.42),
    "Random": (78.92, 77.07, 74.25),
    "Last": (79.11, 77.86, 75.51),
    "Average": (78.81, 76.99, 74.11),
    "DFA": (79.74, 78.18, 75.85),
}
TABLES = {"table2": _TABLE2, "table5": _TABLE5}


def numbers(pair):
    """{method: percent} of both tables for one of PAIRS."""
    place = PAIRS.index(pair)
    found = {name: row[place] for table in TABLES.values() for name, row in table.items()}
    return found | {"Teacher": TEACHER}
