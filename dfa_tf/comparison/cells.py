"""The cells of the paper's tables, as commands: which config each runs with."""

import dataclasses

from dfa_tf.comparison import paper
from dfa_tf.comparison.runs import AGGREGATIONS, TITLES
from dfa_tf.errors import UserError

OTHERS = ("nst", "vid", "rkd", "crd", "dkd", "reviewkd")  # columns of ours, not the paper's
TABLES = {
    "table2": (
        *("student", "kd", "fitnets", "at", "jacobian", "ft", "ab", "sp", "margin", "dfa"),
        *OTHERS,
    ),
    "table5": ("student", "random", "last", "average", "dfa"),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the runs are.

    teacher: gin file of the one teacher that all cells share, with teacher_bindings.
    pairs: {name: gin file}. paper: {name: pair of the paper whose numbers stand beside}.
    """

    teacher: str
    pairs: dict
    paper: dict
    teacher_bindings: tuple = ()


SCALES = {
    "paper": Scale(
        teacher="gin/wrn.gin",
        pairs={
            "pair1": "gin/wrn_pair1.gin",
            "pair2": "gin/wrn_pair2.gin",
            "pair3": "gin/wrn.gin",
        },
        paper={pair: pair for pair in paper.PAIRS},
    ),
    "cpu": Scale(
        teacher="gin/reproduce_cpu.gin",
        pairs={"cpu": "gin/reproduce_cpu.gin"},
        teacher_bindings=("dataset.train_fraction=1.0",),
        paper={"cpu": "pair3"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of `bin/distill`. row: a name of `TABLES`. pair: of the scale."""

    row: str
    pair: str
    seed: int

    @property
    def folder(self):
        """Its workdir, within that of the reproduction."""
        return f"{self.pair}/{self.row}_seed{self.seed}"

    def arguments(self, scale):
        """Flags that say what it is, without workdir and data."""
        method = (f"gin/methods/{self.row}.gin",) if self.row in TITLES else ()
        files = (scale.pairs[self.pair], *method)
        bindings = []
        if self.row == "student":
            bindings = ['distill.aggregation="none"']
        elif self.row in AGGREGATIONS:
            bindings = [f'distill.aggregation="{self.row}"']
        return [*flags(files, bindings), f"--seed={self.seed}", "--noexport"]


def flags(gin_files, bindings):
    """The flags that give these."""
    return [f"--gin_file={file}" for file in gin_files] + [
        f"--gin_bindings={binding}" for binding in bindings
    ]


def cells(table, scale, seeds, only=()):
    """The table's cells, seed after seed, so that a part of them is a table already.

    seeds: those of the cells. only: rows to keep; all by default. Raises UserError for a row that the table has not.
    """
    for row in only:
        if row not in TABLES[table]:
            raise UserError(f"{table} has no row {row!r}: its rows are {', '.join(TABLES[table])}")
    return [
        Cell(row, pair, seed)
        for seed in seeds
        for pair in scale.pairs
        for row in TABLES[table]
        if not only or row in only
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


def titles(table):
    """The rows' names in tables, in the table's order."""
    names = {"student": "Student"} | TITLES | AGGREGATIONS
    return tuple(names[row] for row in TABLES[table])
