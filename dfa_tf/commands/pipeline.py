"""The stages of a config, each with the stages before it where their results are missing."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from dfa_tf import figures
from dfa_tf.alpha import Alpha
from dfa_tf.commands.aggregation import (
    alpha_without_search,
    other_search,
)
from dfa_tf.commands.check_ahead import check_ahead
from dfa_tf.commands.describe import network_text
from dfa_tf.commands.plan import DISTILL, EXPORT, PROCESS, SEARCH, TEACHER, Plan
from dfa_tf.commands.setup import Setup
from dfa_tf.commands.summary import export_table, summary, training_curves
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.process import Process
from dfa_tf.seeds import derived_seed
from dfa_tf.stages import distill as distill_stage
from dfa_tf.stages import export as export_stage
from dfa_tf.stages import search as search_stage
from dfa_tf.stages import search_process as process_stage
from dfa_tf.stages import teacher as teacher_stage
from dfa_tf.stages.checks import check_same_features
from dfa_tf.stages.distill_arguments import methods_label
from dfa_tf.stages.folder import numbered


class Pipeline:
    """The stages of one config, on one data set, in one workdir.

    Args:
        command: The command that runs. --fresh applies to its stage alone.
        setup: The command's setup.
    """

    def __init__(self, command: str, setup: Setup):
        self._plan = Plan(command, setup)
        self._command, self._setup = command, setup
        self._config, self._flags = setup.config, setup.flags
        self._teachers: list[Network] | None = None

    def describe(self) -> None:
        """Prints the groups of teacher and student, and checks what the command would run."""
        for role in ("teacher", "student"):
            for number in range(1, self._config.network_count(role) + 1):
                print(f"{network_text(role, self._setup.network(role, number=number)[0])}\n")
        check_ahead(self._plan)

    def train_teacher(self) -> None:
        """Creates WORKDIR/teacher, and teacher_2 and so on if the config has several teachers."""
        check_ahead(self._plan)
        self._train_teachers()

    def search(self) -> None:
        """Creates WORKDIR/search, WORKDIR/process or both, as the distillation needs, and the teacher.

        With DFA, alpha is searched even if the distillation uses a fixed alpha.
        """
        stages = self._plan.stages
        check_ahead(self._plan)
        if not stages:
            methods = methods_label(self._plan.methods)
            self._setup.say(f"search: nothing to search for {methods}; run distill")
        if SEARCH in stages:
            self._search_alpha()
        if PROCESS in stages:
            self._search_process()

    def distill(self) -> None:
        """Creates WORKDIR/distill and what it needs, exports the student, and prints a summary."""
        check_ahead(self._plan)
        student = self._distil()
        if self._setup.is_chief:
            exported = self._exported(student) if self._flags.export else None
            print(summary(self._setup.workdir, exported))
            if curves := training_curves(self._setup.workdir):
                make = functools.partial(figures.accuracy_curves, curves)
                figures.draw(make, self._setup.workdir / "distill", "accuracy", dpi=120)

    def export(self) -> None:
        """Creates WORKDIR/export, and what it needs."""
        check_ahead(self._plan)
        student = self._distil()
        if self._setup.is_chief:
            print(export_table(self._exported(student), self._setup.workdir))

    # The stages. Each function returns a result that exists, or creates it.

    def _train_teachers(self) -> list[Network]:
        if self._teachers is None:
            numbers = range(1, self._plan.teacher_count + 1)
            self._teachers = [self._train_teacher(number) for number in numbers]
        return self._teachers

    def _train_teacher(self, number):
        setup, folder = self._setup, numbered("teacher", number)
        network, path = setup.network("teacher", folder, number)
        common: dict[str, Any] = {
            "network": network,
            "workdir": setup.workdir,
            "runtime": self._plan.runtime(TEACHER),
            "number": number,
        }
        with self._report_if_cached(TEACHER, f"{folder}/model.keras"):
            if path:
                record = self._plan.record("dataset", "teacher", number=number)
                seed = self._flags.seed
                test = setup.dataset.test
                return teacher_stage.adopt_teacher(
                    **common, test=test, path=path, seed=seed, record=record
                )
            return teacher_stage.train_teacher(
                **common,
                **self._plan.stage(TEACHER),
                **self._plan.examples(TEACHER),
                record=self._plan.record("dataset", "teacher", TEACHER, number=number),
            )

    def _search_alpha(self) -> Alpha:
        arguments = self._search_arguments(SEARCH, "search")
        with self._report_if_cached(SEARCH, "search/alpha.json"):
            return search_stage.search(**arguments)

    def _search_process(self) -> Process:
        arguments = self._search_arguments(
            PROCESS, "process", "distill.methods", "distill.ce_weight"
        )
        ce_weight = self._config.value(DISTILL, "ce_weight")
        with self._report_if_cached(SEARCH, "process/process.json"):
            return process_stage.search_process(
                **arguments, methods=self._plan.methods, ce_weight=ce_weight
            )

    def _search_arguments(self, stage, purpose, *roots) -> dict[str, Any]:
        """Creates the teacher, and returns the arguments that both searches have.

        Args:
            stage: The stage of the search.
            purpose: What the student's initial weights are for.
            *roots: What the search uses besides the data set, the networks and its own settings.
        """
        setup = self._setup
        train, validation = setup.dataset.search_split(setup.seed("split"))
        return self._plan.stage(stage) | {
            "teacher": self._train_teachers()[0],
            "student": setup.network("student", purpose)[0],
            "train": train,
            "validation": validation,
            "workdir": setup.workdir,
            "runtime": self._plan.runtime(SEARCH),
            "record": self._plan.record("dataset", "teacher", "student", stage, *roots),
        }

    def _alpha(self) -> Alpha | None:
        """Returns the alpha that `distill.aggregation` names, if a method needs one."""
        if not self._plan.needs_alpha:
            return None
        if self._plan.needs_search:
            return self._search_alpha()
        if self._plan.uses_other_search:
            return self._alpha_of_other_search()
        seed = self._setup.seed("random alpha")
        return alpha_without_search(self._plan.aggregation, self._train_teachers()[0], seed)

    def _alpha_of_other_search(self):
        setup, file = other_search(self._setup, self._plan.aggregation)
        self._setup.say(
            f"distill: alpha comes from the search of {file}, with that file's bindings, in "
            f"{setup.workdir}"
        )
        searched = setup.network("teacher")[0]
        check_same_features(searched, self._setup.network("teacher")[0], self._plan.aggregation)
        pipeline = Pipeline(SEARCH, setup)
        plan = pipeline._plan
        if SEARCH not in plan.stages:
            raise UserError(
                f"distill.aggregation: expected the config of a search for alpha, got {file}, whose "
                f"methods are {methods_label(plan.methods)}"
            )
        check_ahead(plan)
        return dataclasses.replace(pipeline._search_alpha(), source=self._plan.aggregation)

    def _weights(self):
        """Returns the weights of the methods, which may need the search of a process first."""
        if self._plan.needs_process:
            return dataclasses.replace(self._plan.weights, process=self._search_process())
        return self._plan.weights

    def _distil(self) -> Network:
        """Distils all generations. Returns the student of the last one."""
        # First alpha: the search of another config is checked before this one's teacher is trained.
        alpha = self._alpha()
        students = self._train_teachers() if self._plan.methods else []
        weights = self._weights()
        for generation in range(2, self._plan.generations + 1):
            students = [self._distil_generation(generation, students, alpha, weights)]
        return students[0]

    def _distil_generation(self, generation, teachers, alpha, weights):
        """Distils the teachers into the student of a generation. The teacher is the first one."""
        setup, is_last = self._setup, generation == self._plan.generations
        settings = self._plan.stage(DISTILL)
        settings |= {"methods": self._plan.methods, "weights": weights, "alpha": alpha}
        workdir, purpose = setup.workdir, "student"
        if not is_last:
            workdir, purpose = workdir / f"generation_{generation}", f"student {generation}"
            training = settings["training"]
            seed = derived_seed(training.seed, f"generation {generation}")
            settings["training"] = dataclasses.replace(training, seed=seed)
        folder = workdir.relative_to(setup.workdir) / "distill/student.keras"
        with self._report_if_cached(DISTILL, folder):
            return distill_stage.distill(
                **settings,
                teacher=teachers,
                student=setup.network("student", purpose)[0],
                **self._plan.examples(DISTILL),
                workdir=workdir,
                runtime=self._plan.runtime(DISTILL),
                record=self._plan.distill_record(generation),
            )

    def _exported(self, student: Network) -> dict:
        """Exports the student. Returns the content of export.json."""
        setup, is_asked = self._setup, self._command == EXPORT
        teacher = setup.workdir / "teacher" / "model.keras"
        return export_stage.export(
            network=student,
            test=setup.dataset.test,
            train=setup.dataset.train,
            teacher=teacher if self._plan.methods and teacher.exists() else None,
            class_names=setup.dataset.class_names,
            workdir=setup.workdir,
            options=self._plan.export_options(),
            preprocessing=setup.dataset.preprocessing,
            augmentation=setup.dataset.augmentation,
            seed=self._flags.seed,
            # Only the chief exports, on its own devices.
            runtime=dataclasses.replace(
                self._plan.runtime(EXPORT), strategy=tf.distribute.get_strategy(), quiet=False
            ),
            reuse_any=not is_asked,
        )

    @contextlib.contextmanager
    def _report_if_cached(self, stage, artifact) -> Iterator[None]:
        """Reports that a stage was done before, after it has found its result valid."""
        path = self._setup.workdir / artifact
        is_cached = os.path.exists(path) and not self._plan.is_fresh(stage)
        yield
        if is_cached:
            advice = "; restart it with --fresh" if stage == self._command else ""
            self._setup.say(f"{stage}: already done, {path}{advice}")
