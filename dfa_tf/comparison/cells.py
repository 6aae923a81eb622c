"""The paper's tables, figures and ablations as cells: runs of a command, each with its config."""

import dataclasses

from dfa_tf.comparison.runs import AGGREGATIONS, TITLES
from dfa_tf.errors import UserError

OTHERS = ("nst", "vid", "rkd", "crd", "dkd", "reviewkd")  # columns of ours, not the paper's


@dataclasses.dataclass(frozen=True)
class Row:
    """How the runs of one row differ from the pair's config.

    name: of its folders and for --only. title: in tables and figures. files, bindings: further
    ones; "{pair}" in a file's name is the pair's.
    """

    name: str
    title: str
    files: tuple = ()
    bindings: tuple = ()

    def called(self, title):
        """The same runs under another title."""
        return dataclasses.replace(self, title=title)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Rows to compare, over seeds.

    about: what is compared, in a few words. rows: of Row. pairs: {scale: names of PAIRS}.
    command: what runs a cell, "distill" or, where alpha is all that is asked for, "search".
    """

    about: str
    rows: tuple
    pairs: dict
    command: str = "distill"

    @property
    def artifact(self):
        """What a finished cell has in its workdir."""
        return {"distill": "distill/student.keras", "search": "search/alpha.json"}[self.command]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student on a data set.

    config: gin file. teacher: folder of the teacher that pairs may share, trained by
    `teacher_config` with `teacher_bindings`. paper: of `paper.REFERENCES`, to stand beside.
    """

    config: str
    teacher: str
    teacher_config: str
    paper: str
    teacher_bindings: tuple = ()


PAIRS = {
    "pair1": Pair("gin/wrn_pair1.gin", "teacher", "gin/wrn.gin", "pair1"),
    "pair2": Pair("gin/wrn_pair2.gin", "teacher", "gin/wrn.gin", "pair2"),
    "pair3": Pair("gin/wrn.gin", "teacher", "gin/wrn.gin", "pair3"),
    "cpu": Pair(
        "gin/reproduce_cpu.gin",
        "teacher",
        "gin/reproduce_cpu.gin",
        "pair3",
        ("dataset.train_fraction=1.0",),
    ),
    "cinic10_pair1": Pair(
        "gin/cinic10_pair1.gin", "teacher_cinic10_x2", "gin/cinic10_pair1.gin", "cinic10_pair1"
    ),
    "cinic10_pair2": Pair(
        "gin/cinic10_pair2.gin", "teacher_cinic10_x2", "gin/cinic10_pair1.gin", "cinic10_pair2"
    ),
    "cinic10_pair3": Pair(
        "gin/cinic10_pair3.gin", "teacher_cinic10_x1", "gin/cinic10_pair3.gin", "cinic10_pair3"
    ),
    "cinic10_cpu": Pair(
        "gin/cinic10_cpu.gin", "teacher_cinic10", "gin/cinic10_cpu.gin", "cinic10_pair3"
    ),
}
SCALES = ("paper", "cpu")
CIFAR100 = {"paper": ("pair1", "pair2", "pair3"), "cpu": ("cpu",)}
CINIC10 = {"paper": ("cinic10_pair1", "cinic10_pair2", "cinic10_pair3"), "cpu": ("cinic10_cpu",)}
FIGURE4 = {"paper": ("pair1",), "cpu": ("cpu",)}


def _method(name):
    return Row(name, TITLES[name], (f"gin/methods/{name}.gin",))


def _aggregation(name):
    return Row(name, AGGREGATIONS[name], bindings=(f'distill.aggregation="{name}"',))


def _search(name, title, *bindings):
    return Row(name, title, ("gin/methods/dfa.gin",), bindings)


STUDENT = Row("student", "Student", bindings=('distill.aggregation="none"',))
DFA = _method("dfa")
DFA_T = Row("dfa_t", "DFA-T", ("gin/dfa_t_{pair}.gin",))
RANDOM, LAST, AVERAGE = map(_aggregation, ("random", "last", "average"))
NO_DECAY = _search("lambda_0", "lambda 0", "search/adam.weight_decay=0.0")
DECAY_ALONE = _search("decay_alone", "decay", "search.gamma_st=0.0", "search.gamma_ts=0.0")
STUDENT_LOSS = _search("student_loss", "student loss", 'search.loss="student"')

EXPERIMENTS = {
    "table2": Experiment(
        "methods of distillation",
        (
            STUDENT,
            *map(_method, ("kd", "fitnets", "at", "jacobian", "ft", "ab", "sp", "margin")),
            DFA,
            *map(_method, OTHERS),
        ),
        CIFAR100,
    ),
    "table4": Experiment(
        "ShuffleNetV2 on CINIC-10, and alpha from CIFAR-100 (DFA-T)",
        (STUDENT, *map(_method, ("at", "sp", "margin")), DFA, DFA_T),
        CINIC10,
    ),
    "table5": Experiment("aggregations", (STUDENT, RANDOM, LAST, AVERAGE, DFA), CIFAR100),
    "fig4-left": Experiment(
        "alpha over the search, and each of the two forces that move it alone",
        (
            DFA.called("bridge loss and decay"),
            NO_DECAY.called("bridge loss alone"),
            DECAY_ALONE.called("decay alone"),
        ),
        FIGURE4,
        command="search",
    ),
    "fig4-right": Experiment(
        "lambda, the weight of the regularization",
        (
            NO_DECAY.called("lambda = 0"),
            _search("lambda_1e-5", "lambda = 1e-5", "search/adam.weight_decay=1e-5"),
            _search("lambda_1e-4", "lambda = 1e-4", "search/adam.weight_decay=1e-4"),
            DFA.called("lambda = 1e-3"),
        ),
        {"paper": CINIC10["paper"], "cpu": ("cpu",)},
    ),
    "student-loss": Experiment(
        "what the search lowers",
        (STUDENT, LAST, AVERAGE, DFA.called("bridge loss"), STUDENT_LOSS),
        CIFAR100,
    ),
    "gamma": Experiment(
        "gamma_ST, the weight of the ST loss",
        (
            *(
                _search(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
                for g in ("0.0", "1e-4")
            ),
            DFA.called("gamma_ST = 1e-3"),
            *(
                _search(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
                for g in ("1e-2", "1e-1", "1.0")
            ),
        ),
        CIFAR100,
    ),
    "init": Experiment(
        "where beta starts",
        (
            DFA.called("from last"),
            _search("init_uniform", "from uniform", 'search.initial="uniform"'),
            _search("init_random", "from random", 'search.initial="random"'),
        ),
        CIFAR100,
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run. row: of the experiment. pair: of PAIRS, by name."""

    row: Row
    pair: str
    seed: int

    @property
    def folder(self):
        """Its workdir, within that of the reproduction: experiments share it."""
        return f"{self.pair}/{self.row.name}_seed{self.seed}"

    def arguments(self, command):
        """Flags that say what it is, without teacher, workdir and data."""
        pair = self.pair.removeprefix("cinic10_")
        files = (PAIRS[self.pair].config, *(file.format(pair=pair) for file in self.row.files))
        given = [*flags(files, self.row.bindings), f"--seed={self.seed}"]
        return [*given, "--noexport"] if command == "distill" else given


def flags(gin_files, bindings):
    """The flags that give these."""
    return [f"--gin_file={file}" for file in gin_files] + [
        f"--gin_bindings={binding}" for binding in bindings
    ]


def cells(experiment, scale, seeds, only=()):
    """The experiment's cells, seed after seed, so that a part of them is a table already.

    experiment: of EXPERIMENTS, by name. scale: of SCALES. seeds: those of the cells. only: names
    of rows to keep; all by default. Raises UserError for a row that the experiment has not.
    """
    rows = EXPERIMENTS[experiment].rows
    names = [row.name for row in rows]
    for name in only:
        if name not in names:
            raise UserError(f"{experiment} has no row {name!r}: its rows are {', '.join(names)}")
    return [
        Cell(row, pair, seed)
        for seed in seeds
        for pair in EXPERIMENTS[experiment].pairs[scale]
        for row in rows
        if not only or row.name in only
    ]


def shard_of(text):
    """(k, n), 1 <= k <= n, of "k/n". Raises UserError for anything else."""
    try:
        k, n = map(int, text.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 1 <= k <= n:
        raise UserError(f"--shard is k/n with k from 1 to n, '2/3' say, not {text!r}")
    return k, n
