"""The rows of the tables: how the runs of a row differ from the config of their pair."""

import dataclasses
from collections.abc import Iterable

from dfa_tf.comparison.pairs import ALL_IMAGES
from dfa_tf.comparison.titles import AGGREGATIONS, TITLES


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: how its runs differ from the config of the pair.

    Attributes:
        name: Name in folders and for --only.
        title: Name in tables and figures.
        files: Further gin files. "{pair}" in a file name stands for the name of the pair.
        bindings: Further gin bindings.
        alpha_of: Name of the row whose search, with the same seed, provides alpha; "" if the row
            does not use the search of another row.
        permuted: Whether the weights of that alpha are permuted within each group, so that each
            feature receives the weight of another one.
        process_of: Name of the row whose run, with the same seed, provides the process.json that
            `@process()` follows; "" if the row does not follow the process of another row.
        teachers: Number of teachers, which differ by seed.
    """

    name: str
    title: str
    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    alpha_of: str = ""
    permuted: bool = False
    process_of: str = ""
    teachers: int = 1

    def with_title(self, title: str) -> "Row":
        """Returns the same row under another title."""
        return dataclasses.replace(self, title=title)


def method_row(name: str) -> Row:
    """Returns the row of a method with the settings of its gin file."""
    return Row(name, TITLES[name], (f"gin/methods/{name}.gin",))


def aggregation_row(name: str) -> Row:
    """Returns a row of DFA whose alpha is fixed."""
    return Row(name, AGGREGATIONS[name], bindings=(f'distill.aggregation="{name}"',))


def search_row(name: str, title: str, *bindings: str) -> Row:
    """Returns a row of DFA with other settings of the search."""
    return Row(name, title, ("gin/methods/dfa.gin",), bindings)


def varied(row: Row, suffix: str, *bindings: str) -> Row:
    """Returns a row under the same title, with further bindings."""
    name, alpha_of = (f"{n}_{suffix}" if n else "" for n in (row.name, row.alpha_of))
    bindings = (*row.bindings, *bindings)
    return dataclasses.replace(row, name=name, alpha_of=alpha_of, bindings=bindings)


STUDENT = Row("student", "Student", bindings=('distill.aggregation="none"',))
DFA = method_row("dfa")
DFA_T = Row("dfa_t", "DFA-T", ("gin/dfa_t_{pair}.gin",))
RANDOM, LAST, AVERAGE = map(aggregation_row, ("random", "last", "average"))
KD = method_row("kd")
# Methods that Table 2 of the paper does not have.
ADDITIONAL = (
    *map(method_row, ("nst", "vid", "rkd", "crd", "dkd", "reviewkd", "dist")),
    Row("kd_standardized", "KD, standardized", ("gin/methods/kd_standardized.gin",)),
    Row("dkd_standardized", "DKD, standardized", ("gin/methods/dkd_standardized.gin",)),
)
DFA_KD = Row(
    "dfa_kd",
    "DFA + KD",
    bindings=(
        "distill.methods=[@dfa(), @kd()]",
        "distill.weights=(1.0, 1.0)",
        "distill.ce_weight=1.0",
    ),
    alpha_of="dfa",
)
PERMUTED = Row("dfa_permuted", "DFA, permuted", alpha_of="dfa", permuted=True)
UNIFORM = search_row("init_uniform", "from uniform", 'search.initial="uniform"')
RAW = 'keras_file.features="raw"', 'student/wide_resnet.features="raw"'
# 1,093 search steps for each group: see gin/reproduce_cpu.gin for the learning rate.
FULL = (
    *ALL_IMAGES,
    "distill.epochs=20",
    "search.epochs=4",
    "search/adam.learning_rate=0.01",
)
NO_DECAY = search_row("lambda_0", "lambda 0", "search/adam.weight_decay=0.0")
DECAY_ONLY = search_row("decay_alone", "decay", "search.gamma_st=0.0", "search.gamma_ts=0.0")
STUDENT_LOSS = search_row("student_loss", "student loss", 'search.loss="student"')

# Adaptive Distillation, with the paths and settings of the authors' code.
PATHS = {
    "at": ("@at()", ('at.form="code"', "at.beta=1.0")),
    "nst": ("@nst()", ('nst.form="gram"', "nst.weight=2.0")),
    "logits": ("@logits()", ("logits.weight=1.0",)),
    "kd": ("@kd()", ("kd.alpha=1.0",)),
}
ADAPTIVE = "distill.weights=@adaptive()"


def paths_row(name: str, title: str, paths: Iterable[str], weights: tuple[str, ...], **more) -> Row:
    """Returns a row with several paths and cross entropy of weight 1."""
    methods = ", ".join(PATHS[path][0] for path in paths)
    settings = [binding for path in paths for binding in PATHS[path][1]]
    bindings = (f"distill.methods=[{methods}]", *settings, "distill.ce_weight=1.0", *weights)
    return Row(name, title, bindings=bindings, **more)


def alone_row(path: str, weight: float) -> Row:
    """Returns a row with one path, with the weight that the authors tuned by hand."""
    title = f"{TITLES[path]} alone"
    return paths_row(f"path_{path}", title, [path], (f"distill.weights=({weight},)",))


def feed_row(name: str, title: str, teachers: int, *bindings: str) -> Row:
    """Returns a row of FEED with several teachers."""
    return Row(name, title, ("gin/methods/feed.gin",), bindings, teachers=teachers)


def chain_row(method: str, generation: int) -> Row:
    """Returns the row of a generation of a chain, of which the teacher is the first."""
    name, title = f"{method}_generation{generation}", f"{TITLES[method]}, generation {generation}"
    bindings = (f"distill.generations={generation}",)
    return Row(name, title, (f"gin/methods/{method}.gin",), bindings)


ENSEMBLE = tuple(
    Row(f"{name}_of_3", f"{title} of 3", (f"gin/methods/{name}.gin",), teachers=3)
    for name, title in (("ensemble_kd", "Ensemble KD"), ("kd", "KD"))
)
# DistPro: the pathways of wide_resnet with the search of gin/reproduce_cpu.gin.
PATHWAYS = ("gin/methods/pathways.gin",)
PROCESS = (
    "distill.weights=@process()",
    "process.threshold=0.5",
    "dataset.validation_fraction=0.2",
)
WRN_10_2 = "student/wide_resnet.depth=10", "student/wide_resnet.width=2"  # another student
DISTPRO = Row("distpro", "DistPro", PATHWAYS, PROCESS)
EQUAL = Row("pathways", "equal pathways", PATHWAYS)


def views_row(row: Row, views: int) -> Row:
    """Returns a row with cached logits."""
    title = f"{row.title}, {views} view" + "s" * (views > 1)
    return varied(row, f"views_{views}", f"distill.teacher_views={views}").with_title(title)


def shorter(row: Row, epochs: int) -> Row:
    """Returns a row with other epochs. It follows the process of the row `distpro`."""
    return dataclasses.replace(
        row,
        name=f"{row.name}_{epochs}",
        bindings=(*row.bindings, f"distill.epochs={epochs}"),
        process_of="distpro" if row is DISTPRO else row.process_of,
    )
