"""What a workdir holds of a distillation: finished, unfinished or missing."""

import dataclasses
import json
import pathlib
import re

FINISHED, UNFINISHED, MISSING = "finished", "unfinished", "missing"
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
}
AGGREGATIONS = {"last": "Last", "average": "Average", "random": "Random"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir's distillation.

    state: FINISHED, UNFINISHED or MISSING. metrics: what its metrics.json says, {} unless finished.
    teacher: what the teacher's metrics.json says, {} where there is none. note: what to tell of
    one that is not finished.
    """

    path: pathlib.Path
    state: str
    metrics: dict
    teacher: dict
    note: str = ""

    @property
    def method(self):
        """The method as tables call it."""
        return titled(self.metrics["method"], self.metrics["aggregation"])

    @property
    def setting(self):
        """What runs must share to stand in one table."""
        of = self.metrics
        return of["dataset"], of["train_examples"], of["student"], of["steps"]


def titled(method, aggregation):
    """A method's name in tables, "DFA + KD" for several; DFA without a search by its aggregation."""
    names = []
    for name in method.split("+"):
        title = TITLES.get(name, name)
        if name == "dfa" and aggregation != "search":
            title = AGGREGATIONS.get(aggregation, f"DFA of {aggregation}")
        names.append(title)
    return " + ".join(names)


def found(paths):
    """The Run of each workdir among `paths`, and of those in a folder that holds several."""
    return [read(workdir) for path in paths for workdir in _workdirs(pathlib.Path(path))]


def read(workdir):
    """The Run of one workdir."""
    stage = workdir / "distill"
    metrics = read_json(stage / "metrics.json")
    teacher = read_json(workdir / "teacher" / "metrics.json")
    if metrics and (stage / "student.keras").exists():
        if "method" in metrics:
            return Run(workdir, FINISHED, metrics, teacher)
        return Run(workdir, UNFINISHED, {}, teacher, "its metrics.json is of an earlier version")
    if not stage.is_dir():
        what = "no distillation in it" if workdir.is_dir() else "no such folder"
        return Run(workdir, MISSING, {}, teacher, what)
    return Run(workdir, UNFINISHED, {}, teacher, _progress(stage))


def read_json(path):
    """What a JSON file says, {} where it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _workdirs(path):
    if (path / "distill").is_dir() or not path.is_dir():
        return [path]
    within = sorted({stage.parent for stage in path.glob("**/distill") if stage.is_dir()})
    return within or [path]


def _progress(stage):
    steps = [
        int(match[1])
        for file in stage.glob("**/checkpoints/step-*.index")
        if (match := re.search(r"step-(\d+)\.index$", file.name))
    ]
    return f"saved at step {max(steps)}" if steps else "nothing saved yet"
