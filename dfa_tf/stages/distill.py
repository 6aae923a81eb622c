"""Stage 2: distils teachers into a student, by DFA or other methods (Algorithm 1, right)."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

from dfa_tf import figures
from dfa_tf.alpha import Alpha
from dfa_tf.errors import UserError
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.method import ALPHA, Method
from dfa_tf.models.files import load, save
from dfa_tf.models.network import Network
from dfa_tf.objectives.distillation_net import DistillationNet
from dfa_tf.objectives.targets import Targets
from dfa_tf.objectives.teachers import check_method
from dfa_tf.process import Process
from dfa_tf.progress import print_line
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.checks import check_examples, check_pair, check_schedule
from dfa_tf.stages.distill_arguments import (
    Teachers,
    as_teachers,
    check_different,
    check_methods,
    check_weighting,
    methods_label,
    needs_alpha,
)
from dfa_tf.stages.folder import Record, StageFolder, numbered
from dfa_tf.stages.identity import fingerprint, recorded_settings, starting_point, validation_inputs
from dfa_tf.stages.metrics import check_artifact, write_metrics
from dfa_tf.stages.teacher_views import (
    LABEL,
    check_teacher_views,
    logit_cache,
    replaces_logits,
)
from dfa_tf.training.batches import drawn_batches
from dfa_tf.training.devices import is_chief, report_lost_workers
from dfa_tf.training.evaluation import agreement
from dfa_tf.training.fine_tuning import FineTuning
from dfa_tf.training.fit import Problem, epoch_ends, fit
from dfa_tf.training.keep_best import LAST, Keep, check_keep
from dfa_tf.training.logit_cache import SETTING
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.teacher_logits import fill_cache
from dfa_tf.weightings import ProcessWeighting, Weighting


def check(
    teacher: Teachers,
    student: Network,
    train,
    test,
    *,
    methods: Sequence[Method],
    training: Training,
    replicas: int,
    fine_tuning: FineTuning = FineTuning(),
    targets: Targets = Targets(),
    keep: Keep = LAST,
    validation=None,
    teacher_views: int = 0,
) -> None:
    """Checks that a distillation can run. Arguments are as in `distill`.

    Raises:
        UserError: If a method does not support the two networks, or if student, examples, schedule,
            class weights, `keep` and `teacher_views` are incompatible.
    """
    teachers = as_teachers(teacher)
    if methods and not teachers:
        raise UserError(f"teacher: expected a Network for {methods_label(methods)}, got none")
    for each in teachers if methods else ():
        check_pair(each, student)
    for method in methods:
        check_method(method, teachers, student)
    check_teacher_views(teacher_views, methods)
    check_keep("distill.keep", keep, validation)
    check_examples(student, train, test, validation)
    check_schedule("distill", [train], training, replicas)
    classes, batch_size = student.num_classes, training.batch_size
    targets.check("distill", train.labels, classes, batch_size, replicas, methods)
    fine_tuning.check("distill", student, training.epochs)


def distill(
    *,
    teacher: Teachers = None,
    student: Network,
    train,
    test=None,
    workdir: str | pathlib.Path,
    methods: Sequence[Method] | None = None,
    weights: Sequence[float] | Weighting | None = None,
    ce_weight: float | None = None,
    targets: Targets = Targets(),
    alpha: Alpha | str | os.PathLike | None = None,
    training: Training = Training(),
    fine_tuning: FineTuning = FineTuning(),
    keep: Keep = LAST,
    validation=None,
    teacher_views: int = 0,
    runtime: Runtime = Runtime(),
    record: Record = Record(),
) -> Network:
    """Trains a student with cross entropy and the losses of distillation methods.

    Args:
        teacher: The trained teacher, or several of them, which are not changed; None for plain
            training. With several, the loss of a method is its mean over the teachers, unless the
            method uses all of them.
        student: The student. Training starts from its weights; the network is not changed.
        train: Training examples. The paper uses the search's train and validation examples.
        test: Test examples; None for no evaluation.
        workdir: The result is written to WORKDIR/distill, with the alpha that DFA used. An
            interrupted run is resumed.
        methods: Methods of `dfa_tf.methods`, for instance `[KD()]`; by default `[DFA()]` (Eqns 2
            to 4). An empty list is plain training. Pretraining phases run first, in this order.
        weights: A factor for the loss of each method, 1 by default; or a weighting of
            `dfa_tf.weightings`, whose weights are also written to WORKDIR/distill/process.json.
        ce_weight: Weight of the cross entropy. By default 1 with a weighting, and otherwise the
            product of the methods' weights.
        targets: Class weights, label smoothing and mixup.
        alpha: The aggregation weights for DFA: an `Alpha`, as from `search` or `alpha.fixed`, or
            the path of an alpha.json.
        training: The recipe. Each pretraining phase has its own epochs and its own optimizer.
        fine_tuning: How the layers of a pretrained student are trained. Pretraining phases freeze no
            layer, but use `backbone_rate`.
        keep: Which student is the result: "last", or "best" for the evaluated one with the highest
            validation accuracy, the first one on ties. The test examples then measure only this
            student, after the training.
        validation: Validation examples for keep="best", such as a part of the training examples that
            `train` does not contain.
        teacher_views: Number k of views of each training example that the teachers see. The batches
            then repeat after k epochs, rounded down to complete batches, and the logits of the teachers
            are cached in WORKDIR/teacher_views or in `runtime.views_folder`. Only for methods
            with `logits_only`. With 0, and in shorter trainings, batches do not repeat, and the
            teachers are run in each step.
        runtime: Devices, logging and saving.
        record: Origin of the run, for config.gin and metrics.json.

    Returns:
        The trained float32 network, as saved in WORKDIR/distill/student.keras.

    Raises:
        UserError: If the arguments are incompatible with each other or with the workdir.
        Interrupted: On a stop signal (`training.signals`), after the state is saved.
    """
    chief = is_chief(runtime.devices)
    methods = [DFA()] if methods is None else methods
    methods = list(methods) if isinstance(methods, tuple) else methods
    settings = record.settings or recorded_settings(
        "distill",
        training,
        fine_tuning,
        targets,
        methods=methods,
        weights=weights,
        ce_weight=ce_weight,
        keep=keep,
        teacher_views=teacher_views,
    )
    check_methods(methods, weights, ce_weight)
    teachers = as_teachers(teacher) if methods else ()
    check_different(teachers)
    methods, used_alpha = _with_alpha(methods, teachers, alpha)
    inputs = _inputs(teachers, student, train, weights, used_alpha)
    inputs |= validation_inputs(validation, runtime)
    folder = StageFolder(workdir, "distill", "student.keras", settings, inputs, writes=chief)
    if not runtime.fresh and folder.is_finished():
        finished = load(folder.artifact)
        check_artifact(folder, fingerprint(finished))
        return finished

    check(
        teachers,
        student,
        train,
        test,
        methods=methods,
        training=training,
        replicas=runtime.devices.num_replicas_in_sync,
        fine_tuning=fine_tuning,
        targets=targets,
        keep=keep,
        validation=validation,
        teacher_views=teacher_views,
    )
    check_weighting(weights, teachers, student, methods)
    classes, views_workdir = student.num_classes, pathlib.Path(workdir)
    cache = logit_cache(
        teacher_views, teachers, classes, train, training, targets, views_workdir, runtime
    )
    if cache and not replaces_logits(runtime):
        cache.check_identity()
        cache.check_content()
    with folder.work(runtime):
        if cache and chief and replaces_logits(runtime):
            cache.delete()
        with runtime.devices.scope():
            net = DistillationNet(
                teachers,
                student.copy(training.precision),
                methods,
                weights,
                ce_weight,
                steps=training.steps(len(train)),
                precision=training.precision,
                seed=derived_seed(training.seed, "distill"),
            )
        splits = {"train": train, "test": test, "validation": validation}
        trained, result, phases = _train(
            net, splits, training, fine_tuning, targets, cache, folder, runtime
        )
        if chief:
            process = _process_of(net, result, record, teachers, training) if net.paths else None
            entries = _description(teachers, student, methods, weights, used_alpha, record) | {
                "weights": result.path_weights[-1][1] if process else None,
                "agreement": agreement(teachers, trained, test) if teachers and test else None,
                "pretraining": phases,
                "teacher_views": teacher_views if cache else 0,
            }
            _write(folder, trained, result, training, used_alpha, process, entries)
    return trained


def _with_alpha(methods, teachers, alpha):
    """Returns the methods with the alpha that they need, and this alpha; None if none needs it."""
    if not needs_alpha(methods) or len(teachers) != 1:
        return methods, None
    if alpha is None:
        raise UserError("alpha: expected the weights that DFA needs, got None; run a search first")
    used_alpha = Alpha.load(alpha) if isinstance(alpha, str | os.PathLike) else alpha
    used_alpha.check_fits(teachers[0])
    return [m.with_alpha(used_alpha) if ALPHA in m.needs else m for m in methods], used_alpha


def _inputs(teachers, student, train, weights, used_alpha):
    """Returns what the distillation depends on besides its settings, for `StageFolder`."""
    inputs = {"student": starting_point(student), "train": train.description}
    inputs |= {numbered("teacher", k): fingerprint(t) for k, t in enumerate(teachers, start=1)}
    if isinstance(weights, ProcessWeighting) and weights.process:
        inputs["process"] = weights.process.digest
    if used_alpha:
        rounded = [[float(f"{a:.6g}") for a in group.alpha] for group in used_alpha.groups]
        inputs["alpha"] = json.dumps(rounded)
    return inputs


def _train(net, splits, training, fine_tuning, targets, cache, folder, runtime):
    """Runs the pretraining phases and the distillation.

    Returns (trained network, TrainingResult, entries of metrics.json for the phases).
    """
    train = splits["train"]
    period = cache.period if cache else 0
    arguments = targets.arguments(train.labels, net.student.num_classes, training.seed, period)
    if cache:
        with report_lost_workers(SETTING, runtime.devices):
            fill_cache(
                cache,
                net.teachers,
                lambda first: drawn_batches(train, training, LABEL, first, runtime.devices),
                arguments["targets"],
                runtime,
            )
    phases = [
        _pretrain(net, method, pretraining, train, training, fine_tuning, folder, runtime)
        for method, pretraining in net.pretrainings
    ]
    ends = epoch_ends(training.steps_per_epoch(len(train)), training.steps(len(train)))
    problem = Problem(
        net.student,
        net.segments(ends, **arguments),
        net.models,
        net.variables,
        fine_tuning=fine_tuning,
        cache=cache,
        paths=net.paths,
    )
    trained, result = fit(
        problem,
        train,
        splits["test"],
        training,
        label=LABEL,
        folder=folder.path,
        runtime=runtime,
        config=folder.config,
        validation=splits["validation"],
    )
    return trained, result, phases


def _pretrain(net, method, pretraining, train, training, fine_tuning, folder, runtime):
    """Runs a pretraining phase. Returns its entries of metrics.json."""
    if is_chief(runtime.devices) and not runtime.quiet:
        print_line(f"distill: pretraining of {method.name}, {pretraining.epochs:g} epochs")
    _, result = fit(
        Problem(
            net.student,
            net.pretraining_objective(pretraining),
            net.models,
            pretraining.variables,
            fine_tuning=_rate_only(fine_tuning, net.student, pretraining),
        ),
        train,
        None,
        dataclasses.replace(training, epochs=pretraining.epochs),
        label=f"distill/{method.name}",
        folder=folder.path / f"pretraining_{method.name}",
        runtime=runtime,
        config=folder.config,
    )
    return {
        "method": method.name,
        "steps": result.steps,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "train": result.train,
    }


def _rate_only(fine_tuning, student, pretraining):
    """Returns the fine-tuning of a pretraining phase, in which no layer is frozen."""
    of_student = {id(variable) for variable in student.trainable_variables}
    if of_student & {id(variable) for variable in pretraining.variables}:
        return dataclasses.replace(fine_tuning, head_epochs=0.0)
    return FineTuning()


def _write(folder, trained, result, training, used_alpha, process, entries):
    """Writes the results of a distillation. The student's file is the last one before pictures."""
    if used_alpha:
        used_alpha.without_search().save(folder.path / "alpha.json")
    if process:
        process.save(folder.path / "process.json")
    entries = {**entries, "artifact": fingerprint(trained)}
    write_metrics(folder, training.seed, trained, result, **entries)
    save(trained, folder.artifact)
    if process:
        figures.draw(
            lambda: figures.process_lines({"": [process]}, {"": training.epochs}),
            folder.path,
            "process",
            dpi=120,
        )


def _description(teachers, student, methods, weights, used_alpha, record):
    """Returns the entries of metrics.json that name the networks and the methods."""
    source = used_alpha.source if used_alpha else None
    return {
        "dataset": record.dataset,
        "teacher": _names(teachers) or None,
        "teachers": [fingerprint(each) for each in teachers],
        "student": student.name,
        "method": methods_label(methods),
        "aggregation": source if methods else "none",
        "weighting": weights.name if isinstance(weights, Weighting) else "constant",
        **record.entries,
    }


def _process_of(net, result, record, teachers, training) -> Process:
    """Returns the weights of the paths over the run."""
    return Process(
        paths=net.paths,
        at=[step for step, _ in result.path_weights],
        weights=[[weights[path] for path in net.paths] for _, weights in result.path_weights],
        steps=result.steps,
        dataset=record.dataset,
        teacher=_names(teachers),
        student=net.student.name,
        seed=training.seed,
    )


def _names(teachers):
    """Returns the teachers' names, each once, joined by "and"."""
    return " and ".join(dict.fromkeys(each.name for each in teachers))
