"""The checks of all stages of a command, which run before the first stage starts."""

import dataclasses
import pathlib

from dfa_tf.commands.aggregation import alpha_without_search
from dfa_tf.commands.plan import DISTILL, EXPORT, PROCESS, SEARCH, TEACHER, Plan
from dfa_tf.errors import UserError
from dfa_tf.files import check_writable
from dfa_tf.methods.method import ALPHA
from dfa_tf.process import Process
from dfa_tf.stages import distill as distill_stage
from dfa_tf.stages import export as export_stage
from dfa_tf.stages import search as search_stage
from dfa_tf.stages import search_process as process_stage
from dfa_tf.stages import teacher as teacher_stage
from dfa_tf.stages.checks import check_task
from dfa_tf.stages.distill_arguments import check_different, check_weighting
from dfa_tf.stages.folder import StageFolder, numbered
from dfa_tf.stages.teacher_views import logit_cache
from dfa_tf.weightings import WEIGHTINGS, Weighting


def check_ahead(plan: Plan) -> None:
    """Checks all stages of a command before the first of them runs.

    Raises:
        UserError: If a later stage would fail.
    """
    setup, config, stages = plan.setup, plan.config, plan.stages
    roots = ["dataset", "runtime", *stages]
    roots += ["teacher"] if TEACHER in stages else []
    roots += ["student"] if {SEARCH, PROCESS, DISTILL} & set(stages) else []
    config.settings(*roots)  # checks the types of all bindings
    config.call("runtime")
    dataset = setup.dataset
    task = dataset.num_classes, dataset.image_shape
    teachers, files, student = [], [], None
    numbers = range(1, plan.teacher_count + 1)
    if TEACHER in stages:
        for number in numbers:
            teacher, path = setup.network("teacher", number=number)
            check_task(teacher, *task, path or numbered("teacher", number))
            teachers.append(teacher)
            if path:
                files.append(teacher)
            else:
                how = plan.stage(TEACHER) | plan.examples(TEACHER)
                teacher_stage.check(teacher, **how, replicas=_replicas(plan, TEACHER, number))
        check_different(files)
    if {SEARCH, PROCESS, DISTILL} & set(stages):
        student, path = setup.network("student")
        check_task(student, *task, path or "student")
    if SEARCH in stages:
        if len(teachers) > 1:
            raise UserError(
                f"dfa: expected one teacher, whose features alpha weighs, got {len(teachers)}; bind "
                "train_teacher.count = 1, or use another method"
            )
        stage = plan.stage(SEARCH)
        settings = stage["training"], stage["options"], _replicas(plan, SEARCH)
        search_stage.check(teachers[0], student, *dataset.search_split(0), *settings)
    if PROCESS in stages:
        _check_process_search(plan, teachers, student)
    if DISTILL in stages:
        stage = plan.stage(DISTILL)
        names = ("training", "targets", "fine_tuning", "keep", "teacher_views")
        how = {name: stage[name] for name in names} | plan.examples(DISTILL)
        how |= {"methods": plan.methods, "replicas": _replicas(plan, DISTILL)}
        distill_stage.check(teachers, student, **how)
        _check_logit_cache(plan, stage, files)
        if plan.generations > 2:
            distill_stage.check(student, student, **how)
        if plan.needs_alpha and not (plan.needs_search or plan.uses_other_search):
            alpha_without_search(plan.aggregation, teachers[0])
        for name in WEIGHTINGS:
            if config.binds(name) and getattr(plan.weights, "name", "") != name:
                setup.say(
                    f"distill.weights: not @{name}(), so the bindings of {name} have no effect"
                )
        _check_settings(plan)
        if isinstance(plan.weights, Weighting):
            _check_weighting(plan, teachers, student)
            if plan.generations > 2:
                _check_weighting(plan, [student], student)
    if EXPORT in stages:
        teacher = teachers[0] if teachers else None
        arguments = dataset.train, teacher, dataset.class_names, plan.export_options()
        export_stage.check(student, *arguments, dataset.augmentation, replicas=1)


def _replicas(plan, stage, number=1):
    """Returns the number of replicas that share the batches of a stage: 1 if it is finished."""
    is_finished = plan.is_finished(stage, number)
    return 1 if is_finished else plan.setup.strategy.num_replicas_in_sync


def _check_logit_cache(plan, stage, files):
    """Checks that a folder of logits in the workdir is of this config, as far as it is known.

    Args:
        stage: The settings of the distillation.
        files: The teachers that come from files. Others are compared once they are trained.
    """
    runtime = plan.runtime(DISTILL)
    if not stage["teacher_views"] or plan.is_finished(DISTILL):
        return
    if runtime.views_folder:
        check_writable(pathlib.Path(runtime.views_folder).expanduser(), "runtime.views_folder")
        return
    if runtime.fresh:
        return
    setup, train = plan.setup, plan.examples(DISTILL)["train"]
    how = stage["training"], stage["targets"], setup.workdir, runtime
    cache = logit_cache(stage["teacher_views"], files, setup.dataset.num_classes, train, *how)
    is_known = len(files) == plan.teacher_count and plan.generations == 2
    if cache:
        check_writable(cache.folder, "distill.teacher_views")
        cache.check_identity(ignored=() if is_known else ("teacher",))


def _check_weighting(plan, teachers, student):
    """Checks the weighting, with its process if that is known before the first stage."""
    weights, found = plan.weights, plan.setup.workdir / "process/process.json"
    if plan.needs_process and found.exists() and not plan.is_fresh(SEARCH):
        weights = dataclasses.replace(weights, process=Process.load(found))
    alpha = alpha_without_search("average", teachers[0])  # no path depends on its weights
    methods = [m.with_alpha(alpha) if ALPHA in m.needs else m for m in plan.methods]
    check_weighting(weights, teachers, student, methods)


def _check_settings(plan):
    """Checks that a distillation in the workdir has the settings of this config."""
    if plan.is_fresh(DISTILL):
        return
    settings = plan.distill_record(plan.generations).settings
    StageFolder(plan.setup.workdir, DISTILL, "student.keras", settings).check_settings()


def _check_process_search(plan, teachers, student):
    if plan.weights.layerwise:
        raise UserError(
            "process.layerwise: expected False for a searched process, got True; bind the "
            "process.file of a layer-wise run"
        )
    if plan.generations > 2:
        raise UserError(
            f"distill.generations: expected 2 for a searched process, got {plan.generations}; "
            "bind process.file"
        )
    if len(teachers) > 1:
        raise UserError(
            f"distill.weights: expected one teacher to search a process with, got "
            f"{len(teachers)}; bind process.file, or use one teacher"
        )
    splits, training = plan.setup.dataset.search_split(0), plan.stage(PROCESS)["training"]
    arguments = *splits, plan.methods, training, _replicas(plan, PROCESS)
    process_stage.check(teachers[0], student, *arguments)
