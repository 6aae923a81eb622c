"""The cells of an experiment: one run for each row, pair of networks and seed."""

import dataclasses
from collections.abc import Iterable, Sequence

from dfa_tf.comparison.experiments import EXPERIMENTS
from dfa_tf.comparison.pairs import PAIRS
from dfa_tf.comparison.rows import Row
from dfa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    Attributes:
        row: Its row.
        pair: Name of its pair in `experiments.PAIRS`.
        seed: Its seed.
    """

    row: Row
    pair: str
    seed: int

    @property
    def folder(self) -> str:
        """The workdir, within the folder of the reproduction. Experiments share cells."""
        return f"{self.pair}/{self.row.name}_seed{self.seed}"

    def arguments(self, command: str) -> list[str]:
        """Returns the flags of its config and seed, without teacher, workdir and data.

        Args:
            command: The command that runs the cell.
        """
        pair = self.pair.removeprefix("cinic10_")
        files = (PAIRS[self.pair].config, *(file.format(pair=pair) for file in self.row.files))
        arguments = [*flags(files, self.row.bindings), f"--seed={self.seed}"]
        return [*arguments, "--noexport"] if command == "distill" else arguments


def flags(gin_files: Iterable[str], bindings: Iterable[str]) -> list[str]:
    """Returns the command-line flags for gin files and bindings."""
    return [f"--gin_file={file}" for file in gin_files] + [
        f"--gin_bindings={binding}" for binding in bindings
    ]


def cells(
    experiment: str, scale: str, seeds: Iterable[int], only: Sequence[str] = ()
) -> list[Cell]:
    """Returns the cells of an experiment.

    They are ordered by seed, so that the first seed alone completes a table. A row that uses the
    alpha of another row comes after it.

    Args:
        experiment: Name in `experiments.EXPERIMENTS`.
        scale: Name in `experiments.SCALES`.
        seeds: Seeds of each row.
        only: Names of the rows to run; all rows if empty.

    Raises:
        UserError: If the experiment does not have one of the rows, or does not have the scale.
    """
    rows = EXPERIMENTS[experiment].rows
    if scale not in EXPERIMENTS[experiment].pairs:
        raise UserError(
            f"--scale: expected {' or '.join(EXPERIMENTS[experiment].pairs)} for {experiment}, "
            f"got {scale}"
        )
    names = [row.name for row in rows]
    for name in only:
        if name not in names:
            raise UserError(
                f"--only: expected rows of {experiment}, {', '.join(names)}; got {name!r}"
            )
    return [
        Cell(row, pair, seed)
        for seed in seeds
        for pair in EXPERIMENTS[experiment].pairs[scale]
        for row in rows
        if not only or row.name in only
    ]


def parse_shard(text: str) -> tuple[int, int]:
    """Returns (k, n) of the text "k/n".

    Raises:
        UserError: If the text has another form, or k is not from 1 to n.
    """
    try:
        k, n = map(int, text.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 1 <= k <= n:
        raise UserError(f"--shard: expected k/n with k from 1 to n, such as 2/3, got {text!r}")
    return k, n
