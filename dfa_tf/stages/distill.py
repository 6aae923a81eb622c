"""Stage 2: the student learns from the teacher, by DFA or another method, or several."""

import dataclasses
import json
import os
import pathlib
import sys

from dfa_tf.alpha import Alpha, fixed
from dfa_tf.data.pipeline import Augmentation
from dfa_tf.errors import UserError
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.losses import plain_objective
from dfa_tf.methods.method import ALPHA
from dfa_tf.methods.objective import pretraining_objective, student_objective
from dfa_tf.models.files import load, save
from dfa_tf.models.network import Network
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.checks import check_examples, check_pair, check_same_groups, check_schedule
from dfa_tf.stages.folder import StageFolder, described, fingerprint
from dfa_tf.stages.metrics import write_metrics
from dfa_tf.training.devices import is_chief
from dfa_tf.training.fit import fit
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD

PLAIN = "plain"


def distill(
    *,
    teacher=None,
    student,
    methods=None,
    weights=None,
    ce_weight=None,
    alpha=None,
    aggregation="search",
    train,
    test=None,
    workdir,
    dataset="",
    augmentation=Augmentation(),
    epochs=200,
    batch_size=128,
    optimizer=SGD(),
    precision="float32",
    seed=0,
    runtime=Runtime(),
    settings=None,
) -> Network:
    """Trains the student with cross entropy and what the methods take from the teacher.

    teacher: a Network, never changed; None for aggregation "none".
    student: a Network; its present weights are the start, and it is left as it is.
    methods: recipes of dfa_tf.methods, `[KD()]` say; by default DFA (Eqns 2-4). Those with a
        pretraining do it first, in turn. weights: a factor for each method's loss, by default 1.
    ce_weight: of the cross entropy; by default the product of what the methods ask for.
    alpha: for DFA, an Alpha or the path of an alpha.json. Without one, `aggregation` says which:
        "last", "average", "random" (Table 5), the path of an alpha.json, or "none" for plain
        training without a teacher. With one, or from a search of this workdir, it is "search".
    train, test: examples; the paper trains on search's train and validation together. Without
        `test` nothing is evaluated. dataset: their name, for the record.
    epochs, batch_size, optimizer: the schedule; a pretraining has epochs of its own and begins
        the optimizer anew.
    precision: "float32" or "mixed_bfloat16"; logits and losses are float32 in both.
    augmentation: of the training batches. seed: what batches and connectors follow from.
    runtime: devices, logging and saving.
    settings: {binding: text}, what config.gin records; by default the arguments.

    Writes WORKDIR/distill and returns the float32 Network of its student.keras. Goes on where an
    interrupted run stopped. Raises UserError for what the caller can mend, Interrupted after a
    signal.
    """
    strategy = runtime.devices
    recorded = settings or described(distill, locals())
    methods, weights = chosen_methods(methods, weights, aggregation)
    if methods:
        if teacher is None:
            raise UserError(f"{label_of(methods)} needs a teacher")
        check_pair(teacher, student)
    if needs_alpha(methods):
        check_same_groups(teacher, student)
        alpha = _alpha(alpha, methods, aggregation, teacher, derived_seed(seed, "random alpha"))
        methods = [
            dataclasses.replace(method, alpha=alpha) if ALPHA in method.needs else method
            for method in methods
        ]
    check_examples(student, *filter(None, (train, test)))
    inputs = _inputs(student, train, teacher if methods else None, needs_alpha(methods) and alpha)
    folder = StageFolder(
        workdir, "distill", "student.keras", recorded, inputs, writes=is_chief(strategy)
    )
    if not runtime.fresh and folder.is_finished():
        return load(folder.artifact)

    check_schedule(
        [train],
        batch_size=batch_size,
        epochs=epochs,
        augmentation=augmentation,
        replicas=strategy.num_replicas_in_sync,
        optimizers=[optimizer],
    )
    common = {
        "folder": folder,
        "train": train,
        "augmentation": augmentation,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "seed": seed,
        "runtime": runtime,
    }
    with strategy.scope():  # before anything is written: a method may refuse the pair
        trained = student.copy(precision)
        frozen = teacher.folded(precision) if methods else None
        made = [
            method.build(teacher, trained, derived_seed(seed, "distill"), precision)
            for method in methods
        ]
    with folder.work(runtime):
        needs = {need for method in methods for need in method.needs}
        connectors = [model for each in made for model in each.connectors]
        models = [trained, *connectors, *(model for each in made for model in each.helpers)]
        phases = [
            _pretrain(method, each.pretraining, frozen, trained, models, needs, common)
            for method, each in zip(methods, made, strict=True)
            if each.pretraining
        ]
        if methods:
            objective = student_objective(frozen, trained, made, weights, needs, ce_weight)
        else:
            objective = plain_objective(trained)
        saved, facts = fit(
            label="distill",
            network=trained,
            objective=objective,
            models=models,
            variables=[v for m in (trained, *connectors) for v in m.trainable_variables],
            epochs=epochs,
            test=test,
            **common,
        )
        if is_chief(strategy):
            write_metrics(
                folder,
                seed,
                saved,
                facts,
                dataset=dataset,
                teacher=teacher.name if teacher is not None else None,
                student=student.name,
                method=label_of(methods),
                aggregation=aggregation if needs_alpha(methods) or not methods else None,
                pretraining=phases,
            )
            save(saved, folder.artifact)
    return saved


def _alpha(alpha, methods, aggregation, teacher, seed):
    """The Alpha that `distill` is given, in one way or another."""
    if isinstance(alpha, str | os.PathLike):
        alpha = Alpha.load(alpha)
    own = next((m.alpha for m in methods if ALPHA in m.needs and m.alpha), None)
    if own and (alpha or aggregation != "search"):
        raise UserError("alpha is given twice: in the method, and as alpha= or aggregation=")
    alpha = alpha or own or derived_alpha(aggregation, teacher, seed)
    alpha.check_fits(teacher)
    return alpha


def _inputs(student, train, teacher, alpha):
    """What identifies the inputs of a distillation; teacher and alpha where it takes them."""
    inputs = {"student": student.description, "train": train.description}
    if teacher:
        inputs["teacher"] = fingerprint(teacher)
    if alpha:
        inputs["alpha"] = json.dumps([[float(f"{a:.6g}") for a in g.alpha] for g in alpha.groups])
    return inputs


def _pretrain(method, pretraining, teacher, student, models, needs, common):
    """Runs a method's pretraining to its end. Returns what metrics.json says of it."""
    runtime = common["runtime"]
    if is_chief(runtime.devices) and not runtime.quiet:
        print(f"distill: {method.name} begins, {pretraining.epochs:g} epochs", file=sys.stderr)
    _, facts = fit(
        label=f"distill/{method.name}",
        within=f"pretraining_{method.name}",
        network=student,
        objective=pretraining_objective(teacher, student, pretraining, needs),
        models=models,
        variables=pretraining.variables,
        epochs=pretraining.epochs,
        test=None,
        **common,
    )
    told = ("steps", "epochs", "seconds", "images_per_second")
    return {"method": method.name} | {name: facts[name] for name in told}


def chosen_methods(methods, weights, aggregation):
    """(methods, a factor for each) of what `distill` is given; none for plain training.

    Raises UserError for what is no method, or does not go together.
    """
    methods = [DFA()] if methods is None else methods
    if not isinstance(methods, list | tuple):
        raise UserError(f"distill.methods is a list, [@kd()] say, not {methods!r}")
    for method in methods:
        if not hasattr(method, "needs") or isinstance(method, type):
            raise UserError(f"distill.methods lists methods, [@kd()] say, not {method!r}")
    if aggregation == "none":
        if not all(ALPHA in method.needs for method in methods):
            raise UserError(
                f"distill.aggregation='none' is plain training, without {label_of(methods)}: unbind one of the two"
            )
        return [], []
    if not methods:
        raise UserError(
            "distill.methods is empty: list some, or bind distill.aggregation='none' for plain training"
        )
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise UserError(f"distill.methods lists {label_of(methods)}: each at most once")
    weights = [1.0] * len(methods) if weights is None else weights
    is_list = isinstance(weights, list | tuple)
    if not is_list or not all(isinstance(w, int | float) and w >= 0 for w in weights):
        raise UserError(f"distill.weights is a list of numbers, 0 or more, not {weights!r}")
    if len(weights) != len(methods):
        raise UserError(
            f"distill.weights has {len(weights)} numbers for {len(methods)} methods: give one for each"
        )
    return list(methods), list(weights)


def needs_alpha(methods):
    """Whether one of the methods takes aggregation weights."""
    return any(ALPHA in method.needs for method in methods)


def label_of(methods):
    """The methods' names in one: "dfa+kd", or "plain" for none."""
    return "+".join(method.name for method in methods) or PLAIN


def derived_alpha(aggregation, teacher, seed=0):
    """The Alpha that `distill.aggregation` names without a search of this workdir.

    seed: of the random one. Raises UserError for another name, or a file that is no alpha.json or
    does not fit the teacher.
    """
    if aggregation == "search":
        raise UserError("distill.aggregation='search' needs the alpha of a search: give alpha=")
    if aggregation.endswith(".json") or pathlib.Path(aggregation).is_file():
        alpha = Alpha.load(aggregation)
        alpha.check_fits(teacher, aggregation)
        return alpha
    return fixed(aggregation, teacher, seed)
