"""What a config asks a command to do: the methods, the stages, and the arguments of each stage."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

from dfa_tf.commands.aggregation import NONE, OWN_SEARCH, is_other_search
from dfa_tf.commands.setup import Setup
from dfa_tf.deployment.options import ExportOptions
from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA, Method
from dfa_tf.process import Process
from dfa_tf.stages.distill_arguments import check_methods, methods_label, needs_alpha
from dfa_tf.stages.folder import Record, numbered
from dfa_tf.training.keep_best import BEST
from dfa_tf.training.runtime import Runtime
from dfa_tf.weightings import ProcessWeighting, Weighting

# Settings that the commands read themselves.
OF_COMMANDS = ("count", "aggregation", "generations")
TEACHER, SEARCH, PROCESS = "train_teacher", "search", "search_process"
DISTILL, EXPORT = "distill", "export"
RESULTS = {
    SEARCH: "search/alpha.json",
    PROCESS: "process/process.json",
    DISTILL: "distill/student.keras",
}


class Plan:
    """What one command does with one config. Values are computed on first use.

    Args:
        command: The command that runs. --fresh applies to its stage alone.
        setup: The command's setup.

    Attributes:
        command: Name of the command.
        setup: The setup of the command.
        config: The parsed config.
    """

    def __init__(self, command: str, setup: Setup):
        self.command, self.setup, self.config = command, setup, setup.config

    @functools.cached_property
    def methods(self) -> Sequence[Method]:
        """The methods of `distill`; none for plain training."""
        bound = self.config.value(DISTILL, "methods")
        weights = self.config.value(DISTILL, "weights")
        ce_weight = self.config.value(DISTILL, "ce_weight")
        check_methods(bound, weights, ce_weight)
        if self.aggregation == NONE:
            if isinstance(weights, Weighting):
                raise UserError(
                    f"distill.weights: expected no weighting for plain training, got "
                    f"@{weights.name}; unbind it, or distill.aggregation='none'"
                )
            if not all(ALPHA in method.needs for method in bound):
                raise UserError(
                    "distill.aggregation: 'none' is plain training, but distill.methods lists "
                    f"{methods_label(bound)}; unbind one of the two"
                )
            return []
        if not bound:
            raise UserError(
                "distill.methods: expected at least one method; for plain training bind "
                "distill.aggregation='none'"
            )
        return bound

    @property
    def aggregation(self) -> str:
        """The source of alpha, `distill.aggregation`."""
        return self.config.value(DISTILL, "aggregation")

    @functools.cached_property
    def teacher_count(self) -> int:
        """The number of teachers, trained or listed."""
        count = self.config.value(TEACHER, "count")
        listed = self.config.network_count("teacher")
        is_file = self.config.network_path("teacher") is not None
        if count > 1 and (listed > 1 or is_file):
            kind = "a list of teachers" if listed > 1 else "a teacher from a file"
            raise UserError(f"train_teacher.count: expected 1 for {kind}, got {count}")
        return max(count, listed)

    @functools.cached_property
    def generations(self) -> int:
        """The number of generations, of which the teacher is the first."""
        generations = self.config.value(DISTILL, "generations")
        if generations > 2:
            reason = ""
            if not self.methods:
                reason = "plain training has no teacher"
            elif self.teacher_count > 1:
                reason = f"{self.teacher_count} teachers cannot begin a chain"
            elif self.needs_alpha:
                reason = "DFA's alpha belongs to one teacher"
            if reason:
                raise UserError(f"distill.generations: expected 2, got {generations}: {reason}")
        return generations

    @property
    def needs_alpha(self) -> bool:
        """Whether a method needs aggregation weights."""
        return needs_alpha(self.methods)

    @property
    def needs_search(self) -> bool:
        """Whether alpha comes from the search of this config."""
        return self.needs_alpha and self.aggregation == OWN_SEARCH

    @property
    def needs_process(self) -> bool:
        """Whether the weights come from a search for a process."""
        weights = self.config.value(DISTILL, "weights") if self.methods else None
        return isinstance(weights, ProcessWeighting) and not weights.file

    @property
    def uses_other_search(self) -> bool:
        """Whether alpha comes from the search of another config (DFA-T)."""
        return self.needs_alpha and is_other_search(self.aggregation)

    @functools.cached_property
    def weights(self) -> Any:
        """The factors of the methods, or a weighting whose process is loaded if it has a file."""
        weights = self.config.value(DISTILL, "weights") if self.methods else None
        if isinstance(weights, ProcessWeighting) and weights.file:
            try:
                return dataclasses.replace(weights, process=Process.load(weights.file))
            except UserError as error:
                raise UserError(f"process.file: {error}") from error
        return weights

    @property
    def stages(self) -> list[str]:
        """The stages that the command runs if none of their results exists."""
        if self.command == TEACHER:
            return [TEACHER]
        searches = [SEARCH] * self.needs_search + [PROCESS] * self.needs_process
        if self.command == SEARCH:
            if not searches and self.methods and not self.needs_alpha:
                return []  # the methods have nothing to search
            return [TEACHER, *(searches or [SEARCH])]
        before = [TEACHER, *searches] if self.methods else []
        is_exported = self.command == EXPORT or self.setup.flags.export
        return [*before, DISTILL, *([EXPORT] if is_exported else [])]

    def stage(self, name: str) -> dict[str, Any]:
        """Returns the settings of a stage, by argument."""
        augmentation = self.setup.dataset.augmentation
        settings = self.config.stage(name, augmentation=augmentation, seed=self.setup.flags.seed)
        return {key: value for key, value in settings.items() if key not in OF_COMMANDS}

    def examples(self, stage: str) -> dict[str, Any]:
        """Returns the training, test and validation examples of the teacher or the student, by name.

        With keep="best", the validation examples are those of the search, and the network does not
        train on them.
        """
        dataset = self.setup.dataset
        train, validation = dataset.train, None
        if self._keeps_best(stage):
            train, validation = dataset.search_split(self.setup.seed("split"))
        return {"train": train, "test": dataset.test, "validation": validation}

    def _keeps_best(self, stage):
        return self.config.value(stage, "keep") == BEST

    def runtime(self, stage: str) -> Runtime:
        """Returns devices, logging and saving for a stage."""
        return self.config.call(
            "runtime",
            strategy=self.setup.strategy,
            fresh=self.is_fresh(stage),
            quiet=not self.setup.is_chief,
        )

    def is_finished(self, stage: str, number: int = 1) -> bool:
        """Returns whether a stage has a result that the command reuses.

        Args:
            stage: The stage.
            number: Number of the teacher.
        """
        teacher = f"{numbered('teacher', number)}/model.keras"
        result = {TEACHER: teacher, **RESULTS}[stage]
        is_fresh = self.is_fresh(SEARCH if stage == PROCESS else stage)
        return not is_fresh and os.path.exists(self.setup.workdir / result)

    def is_fresh(self, stage: str) -> bool:
        """Returns whether a stage starts again, although its result exists."""
        return stage == self.command and self.setup.flags.fresh

    def export_options(self) -> ExportOptions:
        """Returns the options of the export. `distill` writes only the file that is quick to make."""
        options = self.config.stage(EXPORT)["options"]
        if self.command == EXPORT:
            return options
        return dataclasses.replace(options, kinds=("float32",))

    def distill_record(self, generation: int) -> Record:
        """Returns the origin of the student of a generation, as `record` does."""
        teacher = ["teacher"] if self.methods else []
        return self.record("dataset", *teacher, "student", DISTILL, generation=generation)

    def record(
        self, *roots: str, number: int | None = None, generation: int | None = None
    ) -> Record:
        """Returns the origin of a run, for config.gin and metrics.json.

        Args:
            *roots: The configurables that the run uses.
            number: Number of the teacher.
            generation: Number of the generation.
        """
        # Whether images are held in memory shows in the examples; by default the machine decides.
        # Adding a teacher or a generation does not change the existing ones.
        without = ["dataset.in_memory", "train_teacher.count", "distill.generations"]
        keeps_best = any(self._keeps_best(stage) for stage in {TEACHER, DISTILL} & set(roots))
        if not keeps_best and not {SEARCH, PROCESS} & set(roots):
            without.append("dataset.validation_fraction")
        settings = self.config.settings(*roots, without=without, number=number)
        if generation is not None and generation == self.generations and self.methods:
            # The last student depends on both numbers.
            numbers = {"train_teacher.count": 1, "distill.generations": 2}
            for name, default in numbers.items():
                if (value := self.config.value(*name.split("."))) != default:
                    settings[name] = repr(value)
        settings["# flag --seed"] = str(self.setup.flags.seed)
        entries = {"generation": generation} if generation else {}
        return Record(self.setup.dataset.name, settings, entries)
