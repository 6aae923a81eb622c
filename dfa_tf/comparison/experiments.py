"""The experiments of `bin/reproduce`: which rows are compared, on which pairs of networks."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from dfa_tf.comparison.pairs import CIFAR100, CINIC10, FEED_TEACHERS, FIGURE4, PAIR3, SMALL
from dfa_tf.comparison.rows import (
    ADAPTIVE,
    ADDITIONAL,
    AVERAGE,
    DECAY_ONLY,
    DFA,
    DFA_KD,
    DFA_T,
    DISTPRO,
    ENSEMBLE,
    EQUAL,
    FULL,
    KD,
    LAST,
    NO_DECAY,
    PATHS,
    PATHWAYS,
    PERMUTED,
    PROCESS,
    RANDOM,
    RAW,
    STUDENT,
    STUDENT_LOSS,
    UNIFORM,
    WRN_10_2,
    Row,
    alone_row,
    chain_row,
    feed_row,
    method_row,
    paths_row,
    search_row,
    shorter,
    varied,
    views_row,
)


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


EXPERIMENTS = {
    "table2": Experiment(
        "distillation methods",
        (
            STUDENT,
            KD,
            *map(method_row, ("fitnets", "at", "jacobian", "ft", "ab", "sp", "margin")),
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
                varied(row, epochs, f"distill.epochs={epochs}").with_title(
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
            *map(method_row, ("margin", "reviewkd")),
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
                varied(row, "raw", *RAW).with_title(f"{row.title}, raw")
                for row in (LAST, AVERAGE, DFA)
            ),
        ),
        PAIR3,
        baselines=("last", "last_raw"),
    ),
    "headline": Experiment(
        "on all images",
        tuple(varied(row, "full", *FULL) for row in (STUDENT, LAST, DFA, DFA_KD)),
        {"cpu": ("cpu",)},
        baselines=("student_full", "last_full"),
    ),
    "adaptive": Experiment(
        "Adaptive Distillation: importances that are learnt, equal, tuned by hand and replayed",
        (
            *(STUDENT, KD, LAST, DFA),
            paths_row("adaptive", "Adaptive", PATHS, (ADAPTIVE,)),
            paths_row("paths_equal", "equal weights", PATHS, ()),
            paths_row(
                "adaptive_replayed",
                "Adaptive, replayed",
                PATHS,
                ("distill.weights=@process()",),
                process_of="adaptive",
            ),
            paths_row(
                "adaptive_layerwise",
                "Adaptive, layer-wise",
                PATHS,
                (ADAPTIVE, "adaptive.layerwise=True"),
            ),
            paths_row(
                "paths_tuned", "AT + KD, tuned", ["at", "kd"], ("distill.weights=(1000.0, 0.1)",)
            ),
            paths_row("adaptive_at_kd", "Adaptive (AT + KD)", ["at", "kd"], (ADAPTIVE,)),
            *(
                alone_row(path, weight)
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
            *(feed_row(f"feed_of_{n}", f"FEED of {n}", n) for n in (1, 3, 2, 4, 5)),
            feed_row("feed_of_3_average", "FEED of 3, mean", 3, "feed.average=True"),
            feed_row("feed_of_3_shared", "FEED of 3, shared", 3, "feed.shared=True"),
            feed_row("feed_of_3_linear", "FEED of 3, linear", 3, "feed.kernel=1"),
            *ENSEMBLE,
            method_row("ft"),
            *(chain_row(method, g) for g in (3, 4) for method in ("feed", "kd")),
        ),
        FEED_TEACHERS,
        baselines=("student", "feed_of_1"),
    ),
    "distpro": Experiment(
        "DistPro: the searched process, equal pathways, and shorter trainings",
        (
            *(STUDENT, LAST, DFA, method_row("reviewkd")),
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
            *(shorter(row, epochs) for epochs in (20, 10) for row in (STUDENT, DISTPRO, EQUAL)),
        ),
        {"cpu": ("cpu",)},  # half and a quarter of its 40 epochs
        baselines=("student", "pathways"),
    ),
    "views": Experiment(
        "what it costs to run the teacher for 1, 4 or 10 views of each image alone",
        (STUDENT, KD, *(views_row(KD, views) for views in (1, 4, 10))),
        PAIR3,
        baselines=("student", "kd"),
    ),
    "table4": Experiment(
        "ShuffleNetV2 on CINIC-10, also with alpha searched on CIFAR-100 (DFA-T)",
        (STUDENT, *map(method_row, ("at", "sp", "margin")), DFA, DFA_T),
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
            search_row("lambda_1e-5", "lambda = 1e-5", "search/adam.weight_decay=1e-5"),
            search_row("lambda_1e-4", "lambda = 1e-4", "search/adam.weight_decay=1e-4"),
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
                search_row(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
                for g in ("0.0", "1e-4")
            ),
            DFA.with_title("gamma_ST = 1e-3"),
            *(
                search_row(f"gamma_st_{g}", f"gamma_ST = {g}", f"search.gamma_st={g}")
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
            search_row("order_2", "second order", "search.order=2"),
        ),
        CIFAR100,
        baselines=("dfa",),
    ),
    "joint": Experiment(
        "one search of all groups at once, and its effect on alpha",
        (
            LAST,
            DFA.with_title("group by group"),
            search_row("joint", "all groups at once", "search.joint=True"),
        ),
        PAIR3,
        baselines=("last", "dfa"),
    ),
    "init": Experiment(
        "initial value of beta",
        (
            DFA.with_title("from last"),
            UNIFORM,
            search_row("init_random", "from random", 'search.initial="random"'),
        ),
        CIFAR100,
        baselines=("dfa",),
    ),
}
