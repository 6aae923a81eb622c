"""The experiments of `bin/reproduce`: which rows are compared, on which pairs of networks."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

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


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Rows to compare over several seeds.

    Attributes:
        description: What is compared.
        rows: The rows.
        pairs: For each scale, the names of its pairs in `PAIRS`.
        baselines: Names of the rows that the others are compared with by seed.
        command: The command that runs a cell. "search" is enough if only alpha is compared.
    """

    description: str
    rows: tuple[Row, ...]
    pairs: Mapping[str, tuple[str, ...]]
    baselines: tuple[str, ...] = ("student",)
    command: Literal["distill", "search"] = "distill"

    @property
    def baseline_titles(self) -> tuple[str, ...]:
        """The titles of the baselines."""
        return tuple(row.title for row in self.rows if row.name in self.baselines)

    @property
    def artifact(self) -> str:
        """The file, within the cell's workdir, that exists once the cell is finished."""
        return {"distill": "distill/student.keras", "search": "search/alpha.json"}[self.command]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student on a data set.

    Attributes:
        config: Gin file of the pair.
        teacher: Folder of the teacher, which several pairs may share.
        teacher_config: Gin file that trains the teacher.
        reference: Name of the paper's numbers in `paper.REFERENCES`.
        teacher_bindings: Further gin bindings for training the teacher.
    """

    config: str
    teacher: str
    teacher_config: str
    reference: str
    teacher_bindings: tuple[str, ...] = ()


ALL_IMAGES = ("dataset.train_fraction=1.0",)
PAIRS = {
    "pair1": Pair("gin/wrn_pair1.gin", "teacher", "gin/wrn.gin", "pair1"),
    "pair2": Pair("gin/wrn_pair2.gin", "teacher", "gin/wrn.gin", "pair2"),
    "pair3": Pair("gin/wrn.gin", "teacher", "gin/wrn.gin", "pair3"),
    "smoke": Pair(
        "gin/reproduce_smoke.gin", "teacher", "gin/reproduce_smoke.gin", "pair3", ALL_IMAGES
    ),
    "cpu": Pair("gin/reproduce_cpu.gin", "teacher", "gin/reproduce_cpu.gin", "pair3", ALL_IMAGES),
    "cpu_feed": Pair(
        "gin/reproduce_cpu.gin",
        "teacher_short",
        "gin/reproduce_cpu.gin",
        "pair3",
        (*ALL_IMAGES, "train_teacher.epochs=8.0"),
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
SCALES = ("smoke", "cpu", "paper")
SMALL = {"smoke": ("smoke",), "cpu": ("cpu",)}
CIFAR100 = SMALL | {"paper": ("pair1", "pair2", "pair3")}
CINIC10 = {
    "smoke": ("cinic10_cpu",),
    "cpu": ("cinic10_cpu",),
    "paper": ("cinic10_pair1", "cinic10_pair2", "cinic10_pair3"),
}
FIGURE4 = SMALL | {"paper": ("pair1",)}
PAIR3 = SMALL | {"paper": ("pair3",)}
FEED_TEACHERS = {"smoke": ("smoke",), "cpu": ("cpu_feed",), "paper": ("pair3",)}


def _method_row(name):
    return Row(name, TITLES[name], (f"gin/methods/{name}.gin",))


def _aggregation_row(name):
    return Row(name, AGGREGATIONS[name], bindings=(f'distill.aggregation="{name}"',))


def _search_row(name, title, *bindings):
    return Row(name, title, ("gin/methods/dfa.gin",), bindings)


def _varied(row, suffix, *bindings):
    """Returns a row under the same title, with further bindings."""
    name, alpha_of = (f"{n}_{suffix}" if n else "" for n in (row.name, row.alpha_of))
    bindings = (*row.bindings, *bindings)
    return dataclasses.replace(row, name=name, alpha_of=alpha_of, bindings=bindings)


STUDENT = Row("student", "Student", bindings=('distill.aggregation="none"',))
DFA = _method_row("dfa")
DFA_T = Row("dfa_t", "DFA-T", ("gin/dfa_t_{pair}.gin",))
RANDOM, LAST, AVERAGE = map(_aggregation_row, ("random", "last", "average"))
KD = _method_row("kd")
# Methods that Table 2 of the paper does not have.
ADDITIONAL = (
    *map(_method_row, ("nst", "vid", "rkd", "crd", "dkd", "reviewkd", "dist")),
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
UNIFORM = _search_row("init_uniform", "from uniform", 'search.initial="uniform"')
RAW = 'keras_file.features="raw"', 'student/wide_resnet.features="raw"'
# 1,093 search steps for each group: see gin/reproduce_cpu.gin for the learning rate.
FULL = (
    *ALL_IMAGES,
    "distill.epochs=20",
    "search.epochs=4",
    "search/adam.learning_rate=0.01",
)
NO_DECAY = _search_row("lambda_0", "lambda 0", "search/adam.weight_decay=0.0")
DECAY_ONLY = _search_row("decay_alone", "decay", "search.gamma_st=0.0", "search.gamma_ts=0.0")
STUDENT_LOSS = _search_row("student_loss", "student loss", 'search.loss="student"')

# Adaptive Distillation, with the paths and settings of the authors' code.
PATHS = {
    "at": ("@at()", ('at.form="code"', "at.beta=1.0")),
    "nst": ("@nst()", ('nst.form="gram"', "nst.weight=2.0")),
    "logits": ("@logits()", ("logits.weight=1.0",)),
    "kd": ("@kd()", ("kd.alpha=1.0",)),
}
ADAPTIVE = "distill.weights=@adaptive()"


def _paths_row(name, title, paths, weights, **more):
    """Returns a row with several paths and cross entropy of weight 1."""
    methods = ", ".join(PATHS[path][0] for path in paths)
    settings = [binding for path in paths for binding in PATHS[path][1]]
    bindings = (f"distill.methods=[{methods}]", *settings, "distill.ce_weight=1.0", *weights)
    return Row(name, title, bindings=bindings, **more)


def _alone_row(path, weight):
    """Returns a row with one path, with the weight that the authors tuned by hand."""
    title = f"{TITLES[path]} alone"
    return _paths_row(f"path_{path}", title, [path], (f"distill.weights=({weight},)",))


def _feed_row(name, title, teachers, *bindings):
    return Row(name, title, ("gin/methods/feed.gin",), bindings, teachers=teachers)


def _chain_row(method, generation):
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


def _views_row(row, views):
    """Returns a row with cached logits."""
    title = f"{row.title}, {views} view" + "s" * (views > 1)
    return _varied(row, f"views_{views}", f"distill.teacher_views={views}").with_title(title)


def _shorter(row, epochs):
    """Returns a row with other epochs. It follows the process of the row `distpro`."""
    follows = {"process_of": "distpro"} if row is DISTPRO else {}
    return dataclasses.replace(
        row,
        name=f"{row.name}_{epochs}",
        bindings=(*row.bindings, f"distill.epochs={epochs}"),
        **follows,
    )


EXPERIMENTS = {
    "table2": Experiment(
        "distillation methods",
        (
            STUDENT,
            KD,
            *map(_method_row, ("fitnets", "at", "jacobian", "ft", "ab", "sp", "margin")),
            DFA,
            *ADDITIONAL,
        ),
        CIFAR100,
    ),
    "settled": Experiment(
        "whether fewer than 40 epochs are enough: the same rows after 20 and 30",
        (
            *(STUDENT, LAST, AVERAGE),
            *(
                _varied(row, epochs, f"distill.epochs={epochs}").with_title(
                    f"{row.title}, {epochs} epochs"
                )
                for epochs in ("20", "30")
                for row in (STUDENT, LAST, AVERAGE)
            ),
        ),
        {"cpu": ("cpu",)},
        baselines=("student", "last"),
    ),
    "methods": Experiment(
        "whether distillation and the search are worth their cost",
        (
            *(STUDENT, KD, LAST, DFA, AVERAGE),
            *map(_method_row, ("margin", "reviewkd")),
            DFA_KD,
        ),
        PAIR3,
        baselines=("student", "last"),
    ),
    "alpha": Experiment(
        "whether the weights that the search finds matter",
        (
            *(STUDENT, RANDOM, LAST, AVERAGE, DFA),
            UNIFORM.with_title("DFA, uniform start"),
            PERMUTED,
        ),
        PAIR3,
        baselines=("student", "last", "dfa"),
    ),
    "features": Experiment(
        "the block's sum as a feature, instead of the sum after the next batch normalization",
        (
            *(LAST, AVERAGE, DFA),
            *(
                _varied(row, "raw", *RAW).with_title(f"{row.title}, raw")
                for row in (LAST, AVERAGE, DFA)
            ),
        ),
        PAIR3,
        baselines=("last", "last_raw"),
    ),
    "headline": Experiment(
        "on all images",
        tuple(_varied(row, "full", *FULL) for row in (STUDENT, LAST, DFA, DFA_KD)),
        {"cpu": ("cpu",)},
        baselines=("student_full", "last_full"),
    ),
    "adaptive": Experiment(
        "Adaptive Distillation: importances that are learnt, equal, tuned by hand and replayed",
        (
            *(STUDENT, KD, LAST, DFA),
            _paths_row("adaptive", "Adaptive", PATHS, (ADAPTIVE,)),
            _paths_row("paths_equal", "equal weights", PATHS, ()),
            _paths_row(
                "adaptive_replayed",
                "Adaptive, replayed",
                PATHS,
                ("distill.weights=@process()",),
                process_of="adaptive",
            ),
            _paths_row(
                "adaptive_layerwise",
                "Adaptive, layer-wise",
                PATHS,
                (ADAPTIVE, "adaptive.layerwise=True"),
            ),
            _paths_row(
                "paths_tuned", "AT + KD, tuned", ["at", "kd"], ("distill.weights=(1000.0, 0.1)",)
            ),
            _paths_row("adaptive_at_kd", "Adaptive (AT + KD)", ["at", "kd"], (ADAPTIVE,)),
            *(
                _alone_row(path, weight)
                for path, weight in (("at", 1000.0), ("nst", 10.0), ("logits", 0.1), ("kd", 0.1))
            ),
            dataclasses.replace(
                DFA_KD,
                name="adaptive_dfa_kd",
                title="Adaptive (DFA + KD)",
                bindings=(DFA_KD.bindings[0], "kd.alpha=1.0", "distill.ce_weight=1.0", ADAPTIVE),
            ),
        ),
        PAIR3,
        baselines=("student", "paths_equal"),
    ),
    "feed": Experiment(
        "FEED: one to five teachers, its controls, and chains that begin with the large teacher",
        (
            *(STUDENT, LAST),
            *(_feed_row(f"feed_of_{n}", f"FEED of {n}", n) for n in (1, 3, 2, 4, 5)),
            _feed_row("feed_of_3_average", "FEED of 3, mean", 3, "feed.average=True"),
            _feed_row("feed_of_3_shared", "FEED of 3, shared", 3, "feed.shared=True"),
            _feed_row("feed_of_3_linear", "FEED of 3, linear", 3, "feed.kernel=1"),
            *ENSEMBLE,
            _method_row("ft"),
            *(_chain_row(method, g) for g in (3, 4) for method in ("feed", "kd")),
        ),
        FEED_TEACHERS,
        baselines=("student", "feed_of_1"),
    ),
    "distpro": Experiment(
        "DistPro: the searched process, equal pathways, and shorter trainings",
        (
            *(STUDENT, LAST, DFA, _method_row("reviewkd")),
            *(DISTPRO, EQUAL),
            Row(
                "distpro_final",
                "DistPro, last weights",
                PATHWAYS,
                (*PROCESS, "process.final=True"),
                process_of="distpro",
            ),
            Row(
                "distpro_plain",
                "DistPro, plain softmax",
                PATHWAYS,
                # Plain weights sum to 1 instead of the number of pathways, 10.
                (
                    *(binding for binding in PROCESS if "threshold" not in binding),
                    "process.threshold=0.05",
                    'search_process.normalization="plain"',
                ),
            ),
            dataclasses.replace(
                DISTPRO,
                name="distpro_10_2",
                title="DistPro, WRN_10_2",
                bindings=(*PROCESS, *WRN_10_2),
            ),
            dataclasses.replace(
                DISTPRO,
                name="distpro_transferred",
                title="DistPro, process of WRN_10_2",
                process_of="distpro_10_2",
            ),
            *(_shorter(row, epochs) for epochs in (20, 10) for row in (STUDENT, DISTPRO, EQUAL)),
        ),
        {"cpu": ("cpu",)},  # half and a quarter of its 40 epochs
        baselines=("student", "pathways"),
    ),
    "views": Experiment(
        "what it costs to run the teacher for 1, 4 or 10 views of each image alone",
        (STUDENT, KD, *(_views_row(KD, views) for views in (1, 4, 10))),
        PAIR3,
        baselines=("student", "kd"),
    ),
    "table4": Experiment(
        "ShuffleNetV2 on CINIC-10, also with alpha searched on CIFAR-100 (DFA-T)",
        (STUDENT, *map(_method_row, ("at", "sp", "margin")), DFA, DFA_T),
        CINIC10,
    ),
    "table5": Experiment(
        "aggregations",
        (STUDENT, RANDOM, LAST, AVERAGE, DFA),
        CIFAR100,
        baselines=("student", "last"),
    ),
    "fig4-left": Experiment(
        "alpha over the search: both terms of its gradient, and each term on its own",
        (
            DFA.with_title("bridge loss and decay"),
            NO_DECAY.with_title("bridge loss alone"),
            DECAY_ONLY.with_title("decay alone"),
        ),
        FIGURE4,
        command="search",
    ),
    "fig4-right": Experiment(
        "weight of the regularization, lambda",
        (
            NO_DECAY.with_title("lambda = 0"),
            _search_row("lambda_1e-5", "lambda = 1e-5", "search/adam.weight_decay=1e-5"),
            _search_row("lambda_1e-4", "lambda = 1e-4", "search/adam.weight_decay=1e-4"),
            DFA.with_title("lambda = 1e-3"),
        ),
        SMALL | {"paper": CINIC10["paper"]},
        baselines=("dfa",),
    ),
    "student-loss": Experiment(
        "the loss that the search minimises",
        (STUDENT, LAST, AVERAGE, DFA.with_title("bridge loss"), STUDENT_LOSS),
        CIFAR100,
        baselines=("student", "last"),
    ),
    "gamma": Experiment(
        "weight of the ST loss, gamma_ST",
        (
            *(
                _search_row(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
                for g in ("0.0", "1e-4")
            ),
            DFA.with_title("gamma_ST = 1e-3"),
            *(
                _search_row(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
                for g in ("1e-2", "1e-1", "1.0")
            ),
        ),
        CIFAR100,
        baselines=("dfa",),
    ),
    "order": Experiment(
        "first- and second-order search, and its effect on alpha",
        (
            DFA.with_title("first order"),
            _search_row("order_2", "second order", "search.order=2"),
        ),
        CIFAR100,
        baselines=("dfa",),
    ),
    "joint": Experiment(
        "one search of all groups at once, and its effect on alpha",
        (
            LAST,
            DFA.with_title("group by group"),
            _search_row("joint", "all groups at once", "search.joint=True"),
        ),
        PAIR3,
        baselines=("last", "dfa"),
    ),
    "init": Experiment(
        "initial value of beta",
        (
            DFA.with_title("from last"),
            UNIFORM,
            _search_row("init_random", "from random", 'search.initial="random"'),
        ),
        CIFAR100,
        baselines=("dfa",),
    ),
}
