"""Stage 2 of DFA: feature distillation with a derived aggregation (Algorithm 1, right)."""

import json
import os
import pathlib

import tensorflow as tf

from dfa_tf.data.pipeline import Augmentation
from dfa_tf.errors import UserError
from dfa_tf.methods.alpha import Alpha, fixed
from dfa_tf.methods.bridge import aggregate
from dfa_tf.methods.connectors import connector
from dfa_tf.methods.feature_distillation import (
    DISTANCES,
    feature_distillation_loss,
    student_loss,
)
from dfa_tf.methods.losses import cross_entropy, plain_objective
from dfa_tf.models.network import Network, load, save
from dfa_tf.stages.checks import check_examples, check_pair, check_schedule
from dfa_tf.stages.folder import StageFolder, described, fingerprint
from dfa_tf.stages.metrics import write_metrics
from dfa_tf.training.devices import is_chief
from dfa_tf.training.fit import fit
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD
from dfa_tf.training.seeds import derived_seed


def distill(
    *,
    teacher=None,
    student,
    alpha=None,
    aggregation="search",
    train,
    test=None,
    workdir,
    dataset="",
    augmentation=Augmentation(),
    gamma_fd=1e-3,
    distance="partial",
    epochs=200,
    batch_size=128,
    optimizer=SGD(),
    precision="float32",
    seed=0,
    runtime=Runtime(),
    settings=None,
) -> Network:
    """Trains the student with cross entropy and feature distillation from A_i (Eqns 2-4).

    teacher: a Network, never changed; None for aggregation "none".
    student: a Network; its present weights are the start, and it is left as it is.
    alpha: an Alpha, or the path of an alpha.json. Without one, `aggregation` says which: "last", "average", "random" (Table 5),
        the path of an alpha.json, or "none" for plain training without a teacher. With one, or
        from a search of this workdir, it is "search".
    train, test: examples; the paper trains on search's train and validation together. Without
        `test` nothing is evaluated. dataset: their name, for the record.
    gamma_fd: weight of L_fd in Eqn 4. distance: "partial" (the overhaul's partial L2) or
        "clipped" (L2 of maps clipped at -1). epochs, batch_size, optimizer: the schedule.
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
    if distance not in DISTANCES:
        raise UserError(f"distill.distance is {' or '.join(DISTANCES)}, not {distance!r}")
    if aggregation != "none":
        if teacher is None:
            raise UserError(f"distill.aggregation={aggregation!r} needs a teacher")
        check_pair(teacher, student)
        if isinstance(alpha, str | os.PathLike):
            alpha = Alpha.load(alpha)
        alpha = alpha or derived_alpha(aggregation, teacher, derived_seed(seed, "random alpha"))
        alpha.check_fits(teacher)
    check_examples(student, *filter(None, (train, test)))
    inputs = {"student": json.dumps(student.spec), "train": train.description}
    if aggregation != "none":
        inputs |= {
            "teacher": fingerprint(teacher),
            "alpha": json.dumps([[float(f"{a:.6g}") for a in g.alpha] for g in alpha.groups]),
        }
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
    with folder.work(runtime):
        with strategy.scope():
            trained = student.copy(precision)
            if aggregation == "none":
                connectors, objective = [], plain_objective(trained)
            else:
                frozen = teacher.folded(precision)
                connectors = student_transforms(
                    frozen, trained, derived_seed(seed, "distill"), precision
                )
                objective = student_objective(
                    frozen, trained, alpha, connectors, gamma_fd, DISTANCES[distance]
                )
        saved, facts = fit(
            label="distill",
            folder=folder,
            network=trained,
            objective=objective,
            connectors=connectors,
            train=train,
            test=test,
            augmentation=augmentation,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            seed=seed,
            runtime=runtime,
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
                aggregation=aggregation,
            )
            save(saved, folder.artifact)
    return saved


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


def student_transforms(teacher, student, seed, precision):
    """The student transforms F_s of Eqn 3: 1x1 convolution and batch normalization, one a group."""
    return [
        connector(
            student.group(name).feature_shape,
            teacher.group(name).feature_shape[-1],
            f"{name}_connector",
            normalize=True,
            seed=derived_seed(seed, name),
            precision=precision,
        )
        for name in student.group_names
    ]


def student_objective(teacher, student, alpha, connectors, gamma_fd, distance):
    """L_student (Eqn 4) from A_i of the teacher's unclipped pre-ReLU features."""

    def objective(images, labels):
        features = teacher(images, training=False)["features"]
        targets = [
            tf.stop_gradient(aggregate(features[name], alpha[name])) for name in teacher.group_names
        ]
        outputs = student(images, training=True)
        lasts = [outputs["features"][name][-1] for name in student.group_names]
        transformed = [
            transform(last, training=True)
            for transform, last in zip(connectors, lasts, strict=True)
        ]
        fd = feature_distillation_loss(transformed, targets, distance)
        ce = cross_entropy(outputs["logits"], labels)
        parts = {"cross_entropy": ce, "feature_distillation": fd}
        return student_loss(ce, fd, gamma_fd), outputs["logits"], parts

    return objective
