"""From flags and config to the stages, each with those before it made first where missing."""

import contextlib
import functools
import os
import pathlib
import shlex
import sys

import tensorflow as tf

from dfa_tf import config, data, files
from dfa_tf.alpha import Alpha, initial_beta
from dfa_tf.benchmark.report import benchmark, cells
from dfa_tf.commands.options import DEFAULT_CONFIG, default_workdir, define
from dfa_tf.commands.summary import export_table, summary
from dfa_tf.errors import UserError
from dfa_tf.methods.method import ALPHA
from dfa_tf.models.network import check_precision
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.checks import (
    check_pair,
    check_same_features,
    check_same_groups,
    check_schedule,
    check_task,
)
from dfa_tf.stages.distill import chosen_methods, derived_alpha, needs_alpha
from dfa_tf.stages.evaluate import evaluate
from dfa_tf.stages.search import check_final
from dfa_tf.stages.search_loss import search_loss
from dfa_tf.stages.teacher import adopt_teacher
from dfa_tf.tables import table
from dfa_tf.training.devices import is_chief, strategy_named


def run(command, flags, arguments):
    """Runs a command. flags: as `options.define` gives them. arguments: the rest of the line."""
    pipeline = Pipeline(command, flags)
    if command == "evaluate":
        pipeline.evaluate(arguments)
    else:
        getattr(pipeline, command)()


class Pipeline:
    """The stages of one config, on one data set, in one workdir."""

    def __init__(self, command, flags, strategy=None):
        self._files = flags.gin_file or [DEFAULT_CONFIG]
        config.parse(self._files, flags.gin_bindings or [])
        self._command, self._flags = command, flags
        self._transferred = None  # alpha of another config's search
        self._strategy = strategy or strategy_named(flags.strategy)
        self._is_chief = is_chief(self._strategy)
        self._workdir = default_workdir(flags)
        self._warn_of_slow_precision()

    @functools.cached_property
    def _dataset(self):
        return config.call("dataset", data_dir=self._flags.data_dir)

    def train_teacher(self):
        """WORKDIR/teacher."""
        self._check_ahead("train_teacher")
        return self._teacher

    def search(self):
        """WORKDIR/search, and what it needs."""
        self._check_ahead("train_teacher", "search")
        return self._alpha

    def distill(self):
        """WORKDIR/distill, what it needs, the export and the summary."""
        self._check_ahead(*self._stages_of_distill())
        self._transfer()
        student = self._student
        if self._is_chief:
            print(summary(self._workdir, self._flags.export and self._export(student)))

    def export(self):
        """WORKDIR/export, and what it needs."""
        self._check_ahead(*self._stages_of_distill())
        self._transfer()
        student = self._student
        if self._is_chief:
            print(export_table(self._export(student), self._workdir))

    def evaluate(self, paths):
        """Accuracy of saved models on the test split; without paths, of all in the workdir."""
        paths = [pathlib.Path(path) for path in paths] or self._saved_models()
        for path in paths:
            result = evaluate(path, self._dataset)
            print(
                f"{path}: accuracy {result['accuracy']:.4f}, loss {result['loss']:.4f} on {len(self._dataset.test)} test images"
            )

    def benchmark(self):
        """Times the steps; a table, and --json."""
        noise = data.noise_like(
            config.value("dataset", "name"),
            self._flags.data_dir,
            config.value("dataset", "image_size"),
        )
        teacher, _ = config.network("teacher", noise.task, seed=0)
        student, _ = config.network("student", noise.task, seed=0)
        check_pair(teacher, student)
        check_same_groups(teacher, student)
        report = benchmark(
            teacher,
            student,
            noise.train,
            noise.augmentation,
            config.value("search", "batch_size"),
            self._strategy,
            profile=self._flags.profile,
        )
        if self._is_chief:
            print(table(cells(report)))
            print(f"drawing its batches: {report['input_share_of_distill']:.1%} of a distill step")
            if self._flags.json:
                files.write_json(self._flags.json, report)

    @functools.cached_property
    def _methods(self):
        methods, _ = chosen_methods(
            *(config.value("distill", name) for name in ("methods", "weights", "aggregation"))
        )
        return methods

    def _needs_search(self):
        return needs_alpha(self._methods) and config.value("distill", "aggregation") == "search"

    def _stages_of_distill(self):
        if not self._methods:
            return ["distill"]
        return ["train_teacher", *(["search"] if self._needs_search() else []), "distill"]

    def _names_other_search(self):
        """Whether alpha is that of another config's search (DFA-T), which is named by its file."""
        aggregation = config.value("distill", "aggregation")
        return needs_alpha(self._methods) and str(aggregation).endswith(".gin")

    def _transfer(self):
        """Makes the search of another config, where one is named, beside this workdir."""
        if not self._names_other_search():
            return
        other = config.value("distill", "aggregation")
        beside = [pathlib.Path(file).parent / other for file in self._files]
        file = next((path for path in beside if path.is_file()), other)
        workdir = self._workdir.resolve()
        workdir = workdir.with_name(f"{workdir.name}_search")
        self._say(f"distill: alpha comes of {other}, with the bindings of that file, in {workdir}")
        flags = define("search")
        given = [f"--{name}={self._flags[name].value}" for name in ("seed", "strategy", "data_dir")]
        given = [flag for flag in given if not flag.endswith("=None")]
        flags(["search", f"--gin_file={file}", f"--workdir={workdir}", *given])
        own, _ = config.network("teacher", self._dataset.task, seed=0)
        search = Pipeline("search", flags, self._strategy)
        there, _ = config.network("teacher", search._dataset.task, seed=0)
        check_same_features(there, own, other)
        search.search()
        self._transferred = Alpha.load(workdir / "search/alpha.json")
        config.parse(self._files, self._flags.gin_bindings or [])

    def _check_ahead(self, *stages):
        """Raises UserError now for what a later stage would only find after hours."""
        dataset = self._dataset
        task = dataset.num_classes, dataset.image_shape
        config.settings("dataset", "runtime", *stages)  # which checks what is bound
        config.call("runtime")
        for stage in stages:
            check_precision(config.value(stage, "precision"))
        teacher = student = None
        if "train_teacher" in stages:
            teacher, path = config.network("teacher", dataset.task, seed=0)
            check_task(teacher, *task, path or "the config's teacher")
            if path:  # there is nothing to train
                stages = [stage for stage in stages if stage != "train_teacher"]
        if "search" in stages or "distill" in stages:
            student, path = config.network("student", dataset.task, seed=0)
            check_task(student, *task, path or "the config's student")
        if teacher and student:
            check_pair(teacher, student)
        for method in self._methods if "distill" in stages else ():
            if ALPHA not in method.needs:
                method.build(teacher, student, 0, "float32")  # which may refuse the pair
        takes_alpha = "distill" in stages and needs_alpha(self._methods)
        if "search" in stages:
            check_final(config.value("search", "final"))
            names = ("loss", "gamma_st", "gamma_ts", "gamma_fd")
            search_loss(*(config.value("search", name) for name in names))
            initial_beta(config.value("search", "initial"), 2)
        if "search" in stages or takes_alpha:
            check_same_groups(teacher, student)
        if takes_alpha and not (self._needs_search() or self._names_other_search()):
            derived_alpha(config.value("distill", "aggregation"), teacher)
        for stage in stages:
            optimizers = ["optimizer", "beta_optimizer"] if stage == "search" else ["optimizer"]
            check_schedule(
                dataset.search_split(0) if stage == "search" else [dataset.train],
                batch_size=config.value(stage, "batch_size"),
                epochs=config.value(stage, "epochs"),
                augmentation=dataset.augmentation,
                replicas=self._strategy.num_replicas_in_sync,
                optimizers=[config.value(stage, name) for name in optimizers],
            )

    @functools.cached_property
    def _teacher(self):
        network, path = config.network("teacher", self._dataset.task, self._seed("teacher"))
        common = {
            "network": network,
            "test": self._dataset.test,
            "workdir": self._workdir,
            "seed": self._flags.seed,
            "runtime": self._runtime("train_teacher"),
        }
        with self._told("train_teacher", "teacher/model.keras"):
            if path:
                return adopt_teacher(
                    **common, path=path, settings=self._settings("dataset", "teacher")
                )
            return config.call(
                "train_teacher",
                **common,
                train=self._dataset.train,
                augmentation=self._dataset.augmentation,
                settings=self._settings("dataset", "teacher", "train_teacher"),
            )

    @functools.cached_property
    def _alpha(self):
        teacher = self._teacher
        student, _ = config.network("student", self._dataset.task, self._seed("search"))
        train, validation = self._dataset.search_split(self._seed("split"))
        with self._told("search", "search/alpha.json"):
            return config.call(
                "search",
                teacher=teacher,
                student=student,
                train=train,
                validation=validation,
                workdir=self._workdir,
                dataset=self._dataset.name,
                augmentation=self._dataset.augmentation,
                seed=self._flags.seed,
                runtime=self._runtime("search"),
                settings=self._settings("dataset", "teacher", "student", "search"),
            )

    @functools.cached_property
    def _student(self):
        alpha = self._alpha if self._needs_search() else self._transferred
        teacher = self._teacher if self._methods else None
        student, _ = config.network("student", self._dataset.task, self._seed("student"))
        of_teacher = ["teacher"] if teacher is not None else []
        with self._told("distill", "distill/student.keras"):
            return config.call(
                "distill",
                teacher=teacher,
                student=student,
                alpha=alpha,
                train=self._dataset.train,
                test=self._dataset.test,
                workdir=self._workdir,
                dataset=self._dataset.name,
                augmentation=self._dataset.augmentation,
                seed=self._flags.seed,
                runtime=self._runtime("distill"),
                settings=self._settings("dataset", *of_teacher, "student", "distill"),
            )

    def _export(self, student):
        """The whole ladder for `export`; `distill` makes what is quick, and keeps what is there."""
        is_asked = self._command == "export"
        quick = {} if is_asked else {"ladder": ("float32",)}
        teacher = self._workdir / "teacher" / "model.keras"
        return config.call(
            "export",
            network=student,
            test=self._dataset.test,
            train=self._dataset.train,
            class_names=self._dataset.class_names,
            workdir=self._workdir,
            teacher=teacher if teacher.exists() else None,
            augmentation=self._dataset.augmentation,
            seed=self._flags.seed,
            # The chief alone comes here: nothing is shared out.
            runtime=config.call("runtime", strategy=tf.distribute.get_strategy(), quiet=False),
            command=shlex.join([self._command, *sys.argv[1:]]),
            fresh=is_asked and self._flags.fresh,
            keep=not is_asked,
            **quick,
        )

    def _runtime(self, stage):
        quiet = not self._is_chief
        return config.call(
            "runtime", strategy=self._strategy, fresh=self._is_fresh(stage), quiet=quiet
        )

    def _is_fresh(self, stage):
        return self._flags.fresh and stage == self._command

    @contextlib.contextmanager
    def _told(self, stage, artifact):
        """Tells, once the stage has seen nothing wrong with it, that it was done already."""
        path = self._workdir / artifact
        was_done = os.path.exists(path) and not self._is_fresh(stage)
        yield
        if was_done:
            hint = "; --fresh makes it anew" if stage == self._command else ""
            self._say(f"{stage}: done already, {path}{hint}")

    def _settings(self, *roots):
        # Whether images are held in memory is seen in the examples; unbound, the machine decides.
        without = ["dataset.in_memory"]
        if "search" not in roots:
            without.append("dataset.validation_fraction")
        settings = config.settings(*roots, without=without)
        settings["# flag --seed"] = str(self._flags.seed)
        return settings

    def _seed(self, purpose):
        return derived_seed(self._flags.seed, purpose)

    def _saved_models(self):
        candidates = ["teacher/model.keras", "distill/student.keras", "export/saved_model"]
        paths = [self._workdir / candidate for candidate in candidates]
        paths += sorted((self._workdir / "export").glob("*.tflite"))
        found = [path for path in paths if os.path.exists(path)]
        if not found:
            raise UserError(f"{self._workdir} holds no saved model: name one, or run distill first")
        return found

    def _warn_of_slow_precision(self):
        stages = ("train_teacher", "search", "distill")
        wanted = any(config.value(s, "precision") == "mixed_bfloat16" for s in stages)
        if wanted and not tf.config.list_physical_devices("GPU") and not _cpu_has_bfloat16():
            self._say(
                "this CPU computes bfloat16 in software: --gin_bindings='precision=\"float32\"' is faster here"
            )

    def _say(self, line):
        if self._is_chief:
            print(line, file=sys.stderr)


def _cpu_has_bfloat16():
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        return True  # not known: say nothing
    return "avx512_bf16" in flags or "amx_bf16" in flags or os.uname().machine != "x86_64"
