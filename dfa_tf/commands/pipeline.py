"""The stages of a config, each with the stages before it where their results are missing."""

import contextlib
import dataclasses
import functools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfa_tf.alpha import Alpha
from dfa_tf.commands.aggregation import (
    NONE,
    OWN_SEARCH,
    alpha_without_search,
    is_other_search,
    other_search,
)
from dfa_tf.commands.setup import Setup
from dfa_tf.commands.summary import export_table, summary
from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA, Method
from dfa_tf.models.network import Network
from dfa_tf.stages import distill as distill_stage
from dfa_tf.stages import export as export_stage
from dfa_tf.stages import search as search_stage
from dfa_tf.stages import teacher as teacher_stage
from dfa_tf.stages.checks import check_same_features, check_task
from dfa_tf.stages.folder import Record
from dfa_tf.training.runtime import Runtime

TEACHER, SEARCH, DISTILL, EXPORT = "train_teacher", "search", "distill", "export"


class Pipeline:
    """The stages of one config, on one data set, in one workdir.

    Args:
        command: The command that runs. --fresh applies to its stage alone.
        setup: The command's setup.
    """

    def __init__(self, command: str, setup: Setup):
        self._command, self._setup = command, setup
        self._config, self._flags = setup.config, setup.flags

    def train_teacher(self) -> None:
        """Makes WORKDIR/teacher."""
        self._check_ahead(TEACHER)
        self._teacher  # noqa: B018

    def search(self) -> None:
        """Makes WORKDIR/search, and the teacher."""
        self._check_ahead(TEACHER, SEARCH)
        self._searched_alpha  # noqa: B018

    def distill(self) -> None:
        """Makes WORKDIR/distill and what it needs, exports the student, and prints a summary."""
        self._check_ahead(*self._stages_of_distill(), *([EXPORT] if self._flags.export else []))
        student = self._student
        if self._setup.is_chief:
            exported = self._exported(student) if self._flags.export else None
            print(summary(self._setup.workdir, exported))

    def export(self) -> None:
        """Makes WORKDIR/export, and what it needs."""
        self._check_ahead(*self._stages_of_distill(), EXPORT)
        student = self._student
        if self._setup.is_chief:
            print(export_table(self._exported(student), self._setup.workdir))

    # The order of the stages, and the checks before the first of them.

    @functools.cached_property
    def _methods(self) -> Sequence[Method]:
        """The methods of `distill`; none for plain training."""
        bound = self._config.value(DISTILL, "methods")
        weights = self._config.value(DISTILL, "weights")
        ce_weight = self._config.value(DISTILL, "ce_weight")
        distill_stage.check_methods(bound, weights, ce_weight)
        if self._aggregation == NONE:
            if not all(ALPHA in method.needs for method in bound):
                raise UserError(
                    "distill.aggregation: 'none' is plain training, but distill.methods lists "
                    f"{distill_stage.methods_label(bound)}; unbind one of the two"
                )
            return []
        if not bound:
            raise UserError(
                "distill.methods: expected at least one method; for plain training bind "
                "distill.aggregation='none'"
            )
        return bound

    @property
    def _aggregation(self) -> str:
        return self._config.value(DISTILL, "aggregation")

    @property
    def _needs_alpha(self) -> bool:
        return distill_stage.needs_alpha(self._methods)

    @property
    def _needs_search(self) -> bool:
        return self._needs_alpha and self._aggregation == OWN_SEARCH

    @property
    def _uses_other_search(self) -> bool:
        return self._needs_alpha and is_other_search(self._aggregation)

    def _stages_of_distill(self):
        if not self._methods:
            return [DISTILL]
        return [TEACHER, *([SEARCH] if self._needs_search else []), DISTILL]

    def _check_ahead(self, *stages):
        """Raises UserError now for what a later stage would only find after hours."""
        setup, config = self._setup, self._config
        roots = ["dataset", "runtime", *stages]
        roots += ["teacher"] if TEACHER in stages else []
        roots += ["student"] if {SEARCH, DISTILL} & set(stages) else []
        config.settings(*roots)  # checks the types of all bindings
        config.call("runtime")
        dataset, replicas = setup.dataset, setup.strategy.num_replicas_in_sync
        task = dataset.num_classes, dataset.image_shape
        teacher = student = None
        if TEACHER in stages:
            teacher, path = setup.network("teacher")
            check_task(teacher, *task, path or "teacher")
            if not path:
                training = self._stage(TEACHER)["training"]
                teacher_stage.check(teacher, dataset.train, dataset.test, training, replicas)
        if SEARCH in stages or DISTILL in stages:
            student, path = setup.network("student")
            check_task(student, *task, path or "student")
        if SEARCH in stages:
            training = self._stage(SEARCH)["training"]
            search_stage.check(teacher, student, *dataset.search_split(0), training, replicas)
        if DISTILL in stages:
            training = self._stage(DISTILL)["training"]
            examples = dataset.train, dataset.test
            distill_stage.check(teacher, student, *examples, self._methods, training, replicas)
            if self._needs_alpha and not (self._needs_search or self._uses_other_search):
                alpha_without_search(self._aggregation, teacher)
        if EXPORT in stages:
            arguments = dataset.train, teacher, dataset.class_names, self._export_options()
            export_stage.check(student, *arguments, dataset.augmentation, replicas=1)

    # The stages. Each result is made once.

    @functools.cached_property
    def _teacher(self) -> Network:
        setup = self._setup
        network, path = setup.network("teacher", "teacher")
        common: dict[str, Any] = {
            "network": network,
            "test": setup.dataset.test,
            "workdir": setup.workdir,
            "runtime": self._runtime(TEACHER),
        }
        with self._report_if_cached(TEACHER, "teacher/model.keras"):
            if path:
                record = self._record("dataset", "teacher")
                seed = self._flags.seed
                return teacher_stage.adopt_teacher(**common, path=path, seed=seed, record=record)
            return teacher_stage.train_teacher(
                **common,
                **self._stage(TEACHER),
                train=setup.dataset.train,
                record=self._record("dataset", "teacher", TEACHER),
            )

    @functools.cached_property
    def _searched_alpha(self) -> Alpha:
        setup = self._setup
        teacher = self._teacher
        train, validation = setup.dataset.search_split(setup.seed("split"))
        with self._report_if_cached(SEARCH, "search/alpha.json"):
            return search_stage.search(
                **self._stage(SEARCH),
                teacher=teacher,
                student=setup.network("student", "search")[0],
                train=train,
                validation=validation,
                workdir=setup.workdir,
                runtime=self._runtime(SEARCH),
                record=self._record("dataset", "teacher", "student", SEARCH),
            )

    def _alpha(self) -> Alpha | None:
        """Returns the alpha that `distill.aggregation` names, if a method needs one."""
        if not self._needs_alpha:
            return None
        if self._needs_search:
            return self._searched_alpha
        if self._uses_other_search:
            return self._alpha_of_other_search()
        seed = self._setup.seed("random alpha")
        return alpha_without_search(self._aggregation, self._teacher, seed)

    def _alpha_of_other_search(self):
        setup, file = other_search(self._setup, self._aggregation)
        self._setup.say(
            f"distill: alpha comes from the search of {file}, with that file's bindings, in "
            f"{setup.workdir}"
        )
        searched = setup.network("teacher")[0]
        check_same_features(searched, self._setup.network("teacher")[0], self._aggregation)
        Pipeline(SEARCH, setup).search()
        return Alpha.load(setup.workdir / "search/alpha.json", source=self._aggregation)

    @functools.cached_property
    def _student(self) -> Network:
        setup = self._setup
        alpha = self._alpha()
        teacher = self._teacher if self._methods else None
        settings = self._stage(DISTILL)
        del settings["aggregation"]
        settings["methods"] = self._methods
        if not self._methods:
            settings["weights"] = None
        with self._report_if_cached(DISTILL, "distill/student.keras"):
            return distill_stage.distill(
                **settings,
                teacher=teacher,
                student=setup.network("student", "student")[0],
                alpha=alpha,
                train=setup.dataset.train,
                test=setup.dataset.test,
                workdir=setup.workdir,
                runtime=self._runtime(DISTILL),
                record=self._record(
                    "dataset", *(["teacher"] if teacher else []), "student", DISTILL
                ),
            )

    def _exported(self, student: Network) -> dict:
        """Exports the student. Returns the content of export.json."""
        setup, is_asked = self._setup, self._command == EXPORT
        teacher = setup.workdir / "teacher" / "model.keras"
        return export_stage.export(
            network=student,
            test=setup.dataset.test,
            train=setup.dataset.train,
            teacher=teacher if self._methods and teacher.exists() else None,
            class_names=setup.dataset.class_names,
            workdir=setup.workdir,
            options=self._export_options(),
            augmentation=setup.dataset.augmentation,
            seed=self._flags.seed,
            # Only the chief exports, on its own devices.
            runtime=dataclasses.replace(
                self._runtime(EXPORT), strategy=tf.distribute.get_strategy(), quiet=False
            ),
            command=shlex.join([self._command, *sys.argv[1:]]),
            reuse_any=not is_asked,
        )

    def _export_options(self):
        """The options of the export. `distill` writes only the file that is quick to make."""
        options = self._config.stage(EXPORT)["options"]
        if self._command == EXPORT:
            return options
        return dataclasses.replace(options, kinds=("float32",))

    def _stage(self, name) -> dict:
        """The settings of a stage, by argument."""
        augmentation = self._setup.dataset.augmentation
        return self._config.stage(name, augmentation=augmentation, seed=self._flags.seed)

    def _runtime(self, stage) -> Runtime:
        return self._config.call(
            "runtime",
            strategy=self._setup.strategy,
            fresh=self._is_fresh(stage),
            quiet=not self._setup.is_chief,
        )

    def _is_fresh(self, stage):
        return stage == self._command and self._flags.fresh

    def _record(self, *roots) -> Record:
        # Whether images are held in memory shows in the examples; by default the machine decides.
        without = ["dataset.in_memory"]
        if SEARCH not in roots:
            without.append("dataset.validation_fraction")
        settings = self._config.settings(*roots, without=without)
        settings["# flag --seed"] = str(self._flags.seed)
        return Record(self._setup.dataset.name, settings)

    @contextlib.contextmanager
    def _report_if_cached(self, stage, artifact) -> Iterator[None]:
        """Reports that a stage was done before, after it has found its result valid."""
        path = self._setup.workdir / artifact
        is_cached = os.path.exists(path) and not self._is_fresh(stage)
        yield
        if is_cached:
            advice = "; restart it with --fresh" if stage == self._command else ""
            self._setup.say(f"{stage}: already done, {path}{advice}")
