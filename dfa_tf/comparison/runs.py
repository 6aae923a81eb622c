"""What a workdir holds of a distillation: finished, unfinished or missing."""

import dataclasses
import pathlib
import re

from dfa_tf.files import read_json

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
    teacher, search: what those stages' say, {} where there is none. bindings: {name: text} that it
    was run with, seed and places aside. note: what to tell of a run that is not finished.
    row: the row of an experiment that it is a run of.
    """

    path: pathlib.Path
    state: str
    metrics: dict
    teacher: dict
    search: dict
    bindings: dict
    note: str = ""
    row: str = ""

    @property
    def method(self):
        """The row that it belongs to: the method, as tables call it, unless `row` says another."""
        return self.row or titled(self.metrics["method"], self.metrics["aggregation"])

    @property
    def is_searched(self):
        """Whether its alpha comes of its own search."""
        return self.metrics["aggregation"] == "search"

    @property
    def seconds(self):
        """Of the training, and of the search and the pretraining that the method needs."""
        before = [self.search] if self.is_searched else []
        phases = [self.metrics, *before, *self.metrics["pretraining"]]
        return sum(phase.get("seconds", 0) for phase in phases)

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
    workdirs = [workdir for path in paths for workdir in _workdirs(pathlib.Path(path))]
    return [read(workdir) for workdir in {path.resolve(): path for path in workdirs}.values()]


def read(workdir):
    """The Run of one workdir."""
    metrics, teacher, search = (
        read_json(workdir / stage / "metrics.json") for stage in ("distill", "teacher", "search")
    )
    stage, state = workdir / "distill", UNFINISHED
    if not stage.is_dir():
        state = MISSING
        note = "no distillation in it" if workdir.is_dir() else "no such folder"
    elif not metrics and (stage / "metrics.json").exists():
        note = "its metrics.json cannot be read"
    elif not metrics or not (stage / "student.keras").exists():
        note = _progress(stage)
    elif "method" not in metrics:
        note = "its metrics.json is of an earlier version"
    else:
        return Run(workdir, FINISHED, metrics, teacher, search, _bindings(stage, metrics, teacher))
    return Run(workdir, state, {}, teacher, search, {}, note)


def _bindings(stage, metrics, teacher):
    """What tells runs of one method apart that are not seeds of each other."""
    try:
        lines = (stage / "config.gin").read_text().splitlines()
    except OSError:
        lines = []
    pairs = [line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#")]
    bindings = {name: text for name, text in pairs if not name.endswith(".path")}
    if metrics["teacher"]:
        bindings["teacher"] = metrics["teacher"]
        if not teacher.get("steps"):  # not trained by this run, so no seed of its own
            bindings["teacher"] += " " + teacher.get("evaluated", {}).get("network", "")
    return bindings


def _workdirs(path):
    if (path / "distill").is_dir() or not path.is_dir():
        return [path]
    stages = [
        stage for name in ("teacher", "search", "distill") for stage in path.glob(f"**/{name}")
    ]
    # The workdir "teacher" of a reproduction is no stage, but holds one.
    return sorted({s.parent for s in stages if (s / "config.gin").exists()}) or [path]


def _progress(stage):
    phases = sorted(stage.glob("pretraining_*"), key=lambda path: path.stat().st_mtime)
    for folder in (stage, *reversed(phases)):
        steps = [
            int(match[1])
            for file in (folder / "checkpoints").glob("step-*.index")
            if (match := re.search(r"step-(\d+)\.index$", file.name))
        ]
        if steps:
            where = "" if folder == stage else f" of its {folder.name.replace('_', ' by ')}"
            return f"saved at step {max(steps)}{where}"
    return "nothing saved yet"
