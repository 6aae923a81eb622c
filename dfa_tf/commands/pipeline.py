"""The stages of a config, each with the stages before it where their results are missing."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfa_tf import figures
from dfa_tf.alpha import Alpha
from dfa_tf.commands.aggregation import (
    NONE,
    OWN_SEARCH,
    alpha_without_search,
    is_other_search,
    other_search,
)
from dfa_tf.commands.describe import network_text
from dfa_tf.commands.setup import Setup
from dfa_tf.commands.summary import export_table, summary, training_curves
from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA, Method
from dfa_tf.methods.teachers import build_method
from dfa_tf.methods.terms import path_names
from dfa_tf.models.network import Network
from dfa_tf.process import Process
from dfa_tf.seeds import derived_seed
from dfa_tf.stages import distill as distill_stage
from dfa_tf.stages import export as export_stage
from dfa_tf.stages import search as search_stage
from dfa_tf.stages import search_process as process_stage
from dfa_tf.stages import teacher as teacher_stage
from dfa_tf.stages.checks import check_same_features, check_task
from dfa_tf.stages.folder import Record, numbered
from dfa_tf.stages.teacher_views import remembered_logits
from dfa_tf.training.keep_best import BEST
from dfa_tf.training.runtime import Runtime
from dfa_tf.weightings import ProcessWeighting, Weighting

# Settings that the commands read themselves.
OF_COMMANDS = ("count", "aggregation", "generations")
TEACHER, SEARCH, PROCESS = "train_teacher", "search", "search_process"
DISTILL, EXPORT = "distill", "export"


class Pipeline:
    """The stages of one config, on one data set, in one workdir.

    Args:
        command: The command that runs. --fresh applies to its stage alone.
        setup: The command's setup.
    """

    def __init__(self, command: str, setup: Setup):
        self._command, self._setup = command, setup
        self._config, self._flags = setup.config, setup.flags

    def describe(self) -> None:
        """Prints the groups of teacher and student, and checks what the command would run."""
        for role in ("teacher", "student"):
            for number in range(1, self._config.network_count(role) + 1):
                print(f"{network_text(role, self._setup.network(role, number=number)[0])}\n")
        self._check_ahead(*self._stages_of_command())

    def train_teacher(self) -> None:
        """Makes WORKDIR/teacher, and teacher_2 and so on if the config has several teachers."""
        self._check_ahead(*self._stages_of_command())
        self._teachers  # noqa: B018

    def search(self) -> None:
        """Makes WORKDIR/search, WORKDIR/process or both, as the distillation needs, and the teacher.

        If it needs none of the two, alpha is searched.
        """
        stages = self._stages_of_command()
        self._check_ahead(*stages)
        if SEARCH in stages:
            self._searched_alpha  # noqa: B018
        if PROCESS in stages:
            self._searched_process  # noqa: B018

    def distill(self) -> None:
        """Makes WORKDIR/distill and what it needs, exports the student, and prints a summary."""
        self._check_ahead(*self._stages_of_command())
        student = self._student
        if self._setup.is_chief:
            exported = self._exported(student) if self._flags.export else None
            print(summary(self._setup.workdir, exported))
            if curves := training_curves(self._setup.workdir):
                make = functools.partial(figures.accuracy_curves, curves)
                figures.draw(make, self._setup.workdir / "distill", "accuracy", dpi=120)

    def export(self) -> None:
        """Makes WORKDIR/export, and what it needs."""
        self._check_ahead(*self._stages_of_command())
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
            if isinstance(weights, Weighting):
                raise UserError(
                    f"distill.weights: expected no weighting for plain training, got "
                    f"@{weights.name}; unbind it, or distill.aggregation='none'"
                )
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

    @functools.cached_property
    def _teacher_count(self) -> int:
        count = self._config.value(TEACHER, "count")
        listed = self._config.network_count("teacher")
        is_file = self._config.network_path("teacher") is not None
        if count > 1 and (listed > 1 or is_file):
            kind = "a list of teachers" if listed > 1 else "a teacher from a file"
            raise UserError(f"train_teacher.count: expected 1 for {kind}, got {count}")
        return max(count, listed)

    @functools.cached_property
    def _generations(self) -> int:
        generations = self._config.value(DISTILL, "generations")
        if generations > 2:
            reason = ""
            if not self._methods:
                reason = "plain training has no teacher"
            elif self._teacher_count > 1:
                reason = f"{self._teacher_count} teachers cannot begin a chain"
            elif self._needs_alpha:
                reason = "DFA's alpha belongs to one teacher"
            if reason:
                raise UserError(f"distill.generations: expected 2, got {generations}: {reason}")
        return generations

    @property
    def _needs_alpha(self) -> bool:
        return distill_stage.needs_alpha(self._methods)

    @property
    def _needs_search(self) -> bool:
        return self._needs_alpha and self._aggregation == OWN_SEARCH

    @property
    def _needs_process(self) -> bool:
        weights = self._config.value(DISTILL, "weights") if self._methods else None
        return isinstance(weights, ProcessWeighting) and not weights.file

    @property
    def _uses_other_search(self) -> bool:
        return self._needs_alpha and is_other_search(self._aggregation)

    def _stages_of_distill(self):
        if not self._methods:
            return [DISTILL]
        searches = [SEARCH] * self._needs_search + [PROCESS] * self._needs_process
        return [TEACHER, *searches, DISTILL]

    def _stages_of_command(self):
        """Returns the stages that the command runs if none of their results exists."""
        if self._command == TEACHER:
            return [TEACHER]
        stages = self._stages_of_distill()
        if self._command == SEARCH:
            return [TEACHER, *([s for s in stages if s in (SEARCH, PROCESS)] or [SEARCH])]
        is_exported = self._command == EXPORT or self._flags.export
        return [*stages, *([EXPORT] if is_exported else [])]

    def _check_ahead(self, *stages):
        """Raises UserError now for what a later stage would only find after hours."""
        setup, config = self._setup, self._config
        roots = ["dataset", "runtime", *stages]
        roots += ["teacher"] if TEACHER in stages else []
        roots += ["student"] if {SEARCH, PROCESS, DISTILL} & set(stages) else []
        config.settings(*roots)  # checks the types of all bindings
        config.call("runtime")
        dataset, replicas = setup.dataset, setup.strategy.num_replicas_in_sync
        task = dataset.num_classes, dataset.image_shape
        teachers, files, student = [], [], None
        numbers = range(1, self._teacher_count + 1)
        if TEACHER in stages:
            for number in numbers:
                teacher, path = setup.network("teacher", number=number)
                check_task(teacher, *task, path or numbered("teacher", number))
                teachers.append(teacher)
                if path:
                    files.append(teacher)
                else:
                    how = self._stage(TEACHER) | self._examples(TEACHER)
                    teacher_stage.check(teacher, **how, replicas=replicas)
            distill_stage.check_different(files)
        if {SEARCH, PROCESS, DISTILL} & set(stages):
            student, path = setup.network("student")
            check_task(student, *task, path or "student")
        if SEARCH in stages:
            if len(teachers) > 1:
                raise UserError(
                    f"dfa: expected one teacher, whose features alpha weighs, got {len(teachers)}"
                )
            stage = self._stage(SEARCH)
            settings = stage["training"], stage["options"], replicas
            search_stage.check(teachers[0], student, *dataset.search_split(0), *settings)
        if PROCESS in stages:
            self._check_process_search(teachers, student, replicas)
        if DISTILL in stages:
            stage, weights = self._stage(DISTILL), self._weights
            names = ("training", "targets", "fine_tuning", "keep", "teacher_views")
            how = {name: stage[name] for name in names} | self._examples(DISTILL)
            how |= {"methods": self._methods, "replicas": replicas}
            distill_stage.check(teachers, student, **how)
            self._check_remembered_logits(stage, files)
            if self._generations > 2:
                distill_stage.check(student, student, **how)
            if self._needs_alpha and not (self._needs_search or self._uses_other_search):
                alpha_without_search(self._aggregation, teachers[0])
            if isinstance(weights, ProcessWeighting) and weights.process:
                self._check_process(weights, teachers, student)
                if self._generations > 2:
                    self._check_process(weights, [student], student)
        if EXPORT in stages:
            teacher = teachers[0] if teachers else None
            arguments = dataset.train, teacher, dataset.class_names, self._export_options()
            export_stage.check(student, *arguments, dataset.augmentation, replicas=1)

    def _check_remembered_logits(self, stage, files):
        """Checks that a folder of logits in the workdir is of this config, as far as it is known.

        Args:
            stage: The settings of the distillation.
            files: The teachers that come from files. Others are compared once they are trained.
        """
        runtime = self._runtime(DISTILL)
        if not stage["teacher_views"] or runtime.fresh or runtime.views_folder:
            return
        setup, train = self._setup, self._examples(DISTILL)["train"]
        how = stage["training"], stage["targets"], setup.workdir, runtime
        remembered = remembered_logits(
            stage["teacher_views"], files, setup.dataset.num_classes, train, *how
        )
        is_known = len(files) == self._teacher_count and self._generations == 2
        if remembered:
            remembered.check(ignored=() if is_known else ("teacher",))

    def _check_process(self, weights, teachers, student):
        """Checks that a process has the paths of the methods."""
        alpha = alpha_without_search("average", teachers[0])  # no path depends on its weights
        methods = [m.with_alpha(alpha) if ALPHA in m.needs else m for m in self._methods]
        built = [build_method(m, teachers, student, 0, "float32") for m in methods]
        paths = path_names([each for group in built for each in group], weights.layerwise)
        weights.process.check_paths(paths, weights.file)

    def _check_process_search(self, teachers, student, replicas):
        if self._weights.layerwise:
            raise UserError(
                "process.layerwise: expected False for a searched process, got True; bind the "
                "process.file of a layer-wise run"
            )
        if self._generations > 2:
            raise UserError(
                f"distill.generations: expected 2 for a searched process, got {self._generations}; "
                "bind process.file"
            )
        if len(teachers) > 1:
            raise UserError(
                f"distill.weights: expected one teacher to search a process with, got "
                f"{len(teachers)}; bind process.file, or use one teacher"
            )
        splits, training = self._setup.dataset.search_split(0), self._stage(PROCESS)["training"]
        arguments = *splits, self._methods, training, replicas
        process_stage.check(teachers[0], student, *arguments)
        for method in self._methods:
            if any(
                each.pretraining for each in build_method(method, teachers, student, 0, "float32")
            ):
                raise UserError(
                    f"distill.methods: {method.name} has a pretraining phase, which the search for "
                    "a process does not run; use other methods, or bind process.file"
                )

    # The stages. Each result is made once.

    @functools.cached_property
    def _teachers(self) -> list[Network]:
        return [self._make_teacher(number) for number in range(1, self._teacher_count + 1)]

    @property
    def _teacher(self) -> Network:
        """The only teacher, or the first one."""
        return self._teachers[0]

    def _make_teacher(self, number):
        setup, folder = self._setup, numbered("teacher", number)
        network, path = setup.network("teacher", folder, number)
        common: dict[str, Any] = {
            "network": network,
            "workdir": setup.workdir,
            "runtime": self._runtime(TEACHER),
            "number": number,
        }
        with self._report_if_cached(TEACHER, f"{folder}/model.keras"):
            if path:
                record = self._record("dataset", "teacher", number=number)
                seed = self._flags.seed
                test = setup.dataset.test
                return teacher_stage.adopt_teacher(
                    **common, test=test, path=path, seed=seed, record=record
                )
            return teacher_stage.train_teacher(
                **common,
                **self._stage(TEACHER),
                **self._examples(TEACHER),
                record=self._record("dataset", "teacher", TEACHER, number=number),
            )

    @functools.cached_property
    def _searched_alpha(self) -> Alpha:
        arguments = self._search_arguments(SEARCH, "search")
        with self._report_if_cached(SEARCH, "search/alpha.json"):
            return search_stage.search(**arguments)

    @functools.cached_property
    def _searched_process(self) -> Process:
        arguments = self._search_arguments(
            PROCESS, "process", "distill.methods", "distill.ce_weight"
        )
        ce_weight = self._config.value(DISTILL, "ce_weight")
        with self._report_if_cached(SEARCH, "process/process.json"):
            return process_stage.search_process(
                **arguments, methods=self._methods, ce_weight=ce_weight
            )

    def _search_arguments(self, stage, purpose, *roots) -> dict[str, Any]:
        """Makes the teacher, and returns the arguments that both searches have.

        Args:
            stage: The stage of the search.
            purpose: What the student's initial weights are for.
            *roots: What the search uses besides the data set, the networks and its own settings.
        """
        setup = self._setup
        train, validation = setup.dataset.search_split(setup.seed("split"))
        return self._stage(stage) | {
            "teacher": self._teacher,
            "student": setup.network("student", purpose)[0],
            "train": train,
            "validation": validation,
            "workdir": setup.workdir,
            "runtime": self._runtime(SEARCH),
            "record": self._record("dataset", "teacher", "student", stage, *roots),
        }

    @functools.cached_property
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
    def _weights(self):
        """The factors of the methods, or a weighting whose process is loaded if it has a file."""
        weights = self._config.value(DISTILL, "weights") if self._methods else None
        if isinstance(weights, ProcessWeighting) and weights.file:
            return dataclasses.replace(weights, process=Process.load(weights.file))
        return weights

    @property
    def _final_weights(self):
        """The weights for the distillation, which may need the search of a process first."""
        if self._needs_process:
            return dataclasses.replace(self._weights, process=self._searched_process)
        return self._weights

    @functools.cached_property
    def _student(self) -> Network:
        """The student of the last generation."""
        self._alpha  # noqa: B018  # another config's search is checked before a teacher is trained
        teachers = self._teachers if self._methods else []
        for generation in range(2, self._generations):
            teachers = [self._distilled(teachers, generation)]
        return self._distilled(teachers, self._generations)

    def _distilled(self, teachers, generation):
        """Distils the teachers into the student of a generation. The teacher is the first one."""
        setup, is_last = self._setup, generation == self._generations
        settings = self._stage(DISTILL)
        settings |= {"methods": self._methods, "weights": self._final_weights}
        workdir, purpose = setup.workdir, "student"
        if not is_last:
            workdir, purpose = workdir / f"generation_{generation}", f"student {generation}"
            training = settings["training"]
            seed = derived_seed(training.seed, f"generation {generation}")
            settings["training"] = dataclasses.replace(training, seed=seed)
        roots = ["dataset", *(["teacher"] if teachers else []), "student", DISTILL]
        folder = workdir.relative_to(setup.workdir) / "distill/student.keras"
        with self._report_if_cached(DISTILL, folder):
            return distill_stage.distill(
                **settings,
                teacher=teachers,
                student=setup.network("student", purpose)[0],
                alpha=self._alpha,
                **self._examples(DISTILL),
                workdir=workdir,
                runtime=self._runtime(DISTILL),
                record=self._record(*roots, generation=generation),
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
            preprocessing=setup.dataset.preprocessing,
            augmentation=setup.dataset.augmentation,
            seed=self._flags.seed,
            # Only the chief exports, on its own devices.
            runtime=dataclasses.replace(
                self._runtime(EXPORT), strategy=tf.distribute.get_strategy(), quiet=False
            ),
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
        settings = self._config.stage(name, augmentation=augmentation, seed=self._flags.seed)
        return {key: value for key, value in settings.items() if key not in OF_COMMANDS}

    def _keeps_best(self, stage):
        return self._config.value(stage, "keep") == BEST

    def _examples(self, stage) -> dict[str, Any]:
        """Returns the training, test and validation examples of the teacher or the student, by name.

        With keep="best", the validation examples are those of the search, and the network does not
        train on them.
        """
        dataset = self._setup.dataset
        train, validation = dataset.train, None
        if self._keeps_best(stage):
            train, validation = dataset.search_split(self._setup.seed("split"))
        return {"train": train, "test": dataset.test, "validation": validation}

    def _runtime(self, stage) -> Runtime:
        return self._config.call(
            "runtime",
            strategy=self._setup.strategy,
            fresh=self._is_fresh(stage),
            quiet=not self._setup.is_chief,
        )

    def _is_fresh(self, stage):
        return stage == self._command and self._flags.fresh

    def _record(self, *roots, number=None, generation=None) -> Record:
        # Whether images are held in memory shows in the examples; by default the machine decides.
        # A sixth teacher, or a fifth generation, does not change the others.
        without = ["dataset.in_memory", "train_teacher.count", "distill.generations"]
        keeps_best = any(self._keeps_best(stage) for stage in {TEACHER, DISTILL} & set(roots))
        if not keeps_best and not {SEARCH, PROCESS} & set(roots):
            without.append("dataset.validation_fraction")
        settings = self._config.settings(*roots, without=without, number=number)
        settings["# flag --seed"] = str(self._flags.seed)
        entries = {"generation": generation} if generation else {}
        return Record(self._setup.dataset.name, settings, entries)

    @contextlib.contextmanager
    def _report_if_cached(self, stage, artifact) -> Iterator[None]:
        """Reports that a stage was done before, after it has found its result valid."""
        path = self._setup.workdir / artifact
        is_cached = os.path.exists(path) and not self._is_fresh(stage)
        yield
        if is_cached:
            advice = "; restart it with --fresh" if stage == self._command else ""
            self._setup.say(f"{stage}: already done, {path}{advice}")
