"""Titles of methods and runs in tables and figures."""

from dfa_tf.comparison.metrics import StudentMetrics

TITLES = {
    "plain": "Student",
    "dfa": "DFA",
    "kd": "KD",
    "fitnets": "FitNets",
    "at": "AT",
    "jacobian": "Jacobian",
    "ft": "FT",
    "ab": "AB",
    "sp": "SP",
    "margin": "Margin",
    "nst": "NST",
    "vid": "VID",
    "rkd": "RKD",
    "crd": "CRD",
    "dkd": "DKD",
    "reviewkd": "ReviewKD",
    "dist": "DIST",
    "logits": "Logits",
    "srrl": "SRRL",
    "feed": "FEED",
    "ensemble_kd": "Ensemble KD",
    "pathways": "Pathways",
}
AGGREGATIONS = {"last": "Last", "average": "Average", "random": "Random"}


def run_title(student: StudentMetrics) -> str:
    """Returns the title of a run: its method, and whatever else is special.

    For example "Adaptive (AT + KD)", "FEED of 5", "KD, generation 3", "KD, best on validation" or
    "KD, 4 views".
    """
    title = method_title(student.method, student.aggregation)
    if student.weighting != "constant":
        title = f"{student.weighting.capitalize()} ({title})"
    if len(student.teachers) > 1:
        title += f" of {len(student.teachers)}"
    if student.generation > 2:
        title += f", generation {student.generation}"
    if student.evaluated_on == "validation":
        title += ", best on validation"
    if student.teacher_views:
        title += f", {student.teacher_views} view" + "s" * (student.teacher_views > 1)
    return title


def method_title(method: str, aggregation: str | None) -> str:
    """Returns the title of a method in tables.

    Args:
        method: Names of the methods, joined by "+".
        aggregation: Source of DFA's alpha. Without a search it is part of the title.

    Returns:
        A title such as "KD", "DFA + KD" or "Average".
    """
    titles = []
    for name in method.split("+"):
        title = TITLES.get(name, name)
        if name == "dfa" and aggregation != "search":
            title = AGGREGATIONS.get(aggregation, f"DFA of {aggregation}")
        titles.append(title)
    return " + ".join(titles)
