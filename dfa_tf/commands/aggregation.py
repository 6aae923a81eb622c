"""The binding `distill.aggregation`: where alpha comes from."""

import pathlib

from dfa_tf import alpha as alphas
from dfa_tf.alpha import Alpha
from dfa_tf.commands.options import define
from dfa_tf.commands.setup import Setup
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network

CHOICES = (
    "'search', 'last', 'average', 'random', 'none', the path of an alpha.json, or the gin file of "
    "another search"
)
OWN_SEARCH, NONE = "search", "none"


def is_other_search(aggregation: str) -> bool:
    """Returns whether alpha comes from the search of another config (DFA-T)."""
    return aggregation.endswith(".gin")


def alpha_without_search(aggregation: str, teacher: Network, seed: int = 0) -> Alpha:
    """Returns the alpha of a fixed aggregation or of a file.

    Args:
        aggregation: "last", "average", "random", or the path of an alpha.json.
        teacher: The teacher whose features it weighs.
        seed: Seed of "random".

    Raises:
        UserError: If `aggregation` is something else, or the file is not an alpha.json for the
            teacher.
    """
    if aggregation in ("last", "average", "random"):
        return alphas.fixed(aggregation, teacher, seed)
    if aggregation.endswith(".json") or pathlib.Path(aggregation).is_file():
        alpha = Alpha.load(aggregation)
        alpha.check_fits(teacher)
        return alpha
    raise UserError(f"distill.aggregation: expected {CHOICES}, got {aggregation!r}")


def other_search(setup: Setup, aggregation: str) -> tuple[Setup, pathlib.Path]:
    """Returns the setup of another config's search, and its gin file.

    Its workdir is that of `setup` with the suffix "_search".
    """
    beside = [pathlib.Path(file).parent / aggregation for file in setup.gin_files]
    file = next((path for path in beside if path.is_file()), pathlib.Path(aggregation))
    workdir = setup.workdir.resolve()
    workdir = workdir.with_name(f"{workdir.name}_search")
    flags = define("search")
    arguments = [f"--gin_file={file}", f"--workdir={workdir}"]
    for name in ("seed", "strategy", "data_dir"):
        if setup.flags[name].value is not None:
            arguments.append(f"--{name}={setup.flags[name].value}")
    flags(["search", *arguments])
    return Setup(flags, setup.strategy), file
