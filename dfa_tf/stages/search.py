"""Stage 1 of DFA: the aggregation search (Algorithm 1, left; §3.2)."""

import functools

from dfa_tf import figures
from dfa_tf.alpha import Alpha
from dfa_tf.data.pipeline import Augmentation, training_batches
from dfa_tf.errors import UserError
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.checks import check_examples, check_pair, check_same_groups, check_schedule
from dfa_tf.stages.folder import StageFolder, described, fingerprint
from dfa_tf.stages.metrics import write_metrics
from dfa_tf.stages.search_loss import search_loss
from dfa_tf.stages.search_record import SearchRecord
from dfa_tf.stages.supernet import Supernet, beta_step, w_step
from dfa_tf.training.checkpoints import Checkpoints
from dfa_tf.training.devices import is_chief
from dfa_tf.training.fit import images_per_second
from dfa_tf.training.loop import Loop, Phase, Runtime
from dfa_tf.training.optimizers import SGD, Adam, Cosine, steps_of
from dfa_tf.training.summaries import Summaries

PICTURE = "alpha"  # .png and .pdf


def search(
    *,
    teacher,
    student,
    train,
    validation,
    workdir,
    dataset="",
    augmentation=Augmentation(),
    epochs=40,
    batch_size=128,
    loss="bridge",
    gamma_st=1e-3,
    gamma_ts=1.0,
    gamma_fd=1e-3,
    initial="last",
    beta_optimizer=Adam(),
    optimizer=SGD(Cosine(0.1)),
    clip=True,
    entry="stream",
    connector_normalization=False,
    final="last",
    precision="float32",
    seed=0,
    runtime=Runtime(),
    settings=None,
) -> Alpha:
    """Searches how much each feature of each teacher group counts, group by group.

    For each group i, over `epochs` epochs of `train`, two steps alternate, both of which lower
    the bridge loss of group i (Eqn 12), or the one that `loss` names: one of beta[i] on a batch of
    `validation`, one of the weights w of student and connectors on a batch of `train`. First
    order: the beta step takes w as it is. Groups of one feature have nothing to search and are passed over.

    teacher, student: Networks whose groups correspond. The teacher is never changed; the
        student's weights are the start of w, and it is left as it is.
    train, validation: examples (see `dfa_tf.data`). dataset: their name, for the record.
    epochs: for each group. batch_size: of both steps.
    loss: what both steps lower: "bridge" (Eqn 12) or, to see what §3.2 says of it, "student", the
        loss of stage 2 (Eqn 4). gamma_st, gamma_ts: weights of the bridge loss's two paths.
        gamma_fd: weight of L_fd in the student's loss.
    initial: beta's start, "last" (alpha_last = 0.99), "uniform" or "random".
    beta_optimizer: its weight decay is lambda in Eqn 7. A step moves beta by about its learning
        rate at most, so a short search needs a higher one: learning rate x steps near 11, which
        is what the paper's 10,937 steps at 1e-3 come to.
    optimizer: of w; its schedule starts anew with each group.
    clip: keep values no smaller than -1 of the teacher's features and of S_i (§3.4).
    entry: where the TS connector's output enters the student: "stream", as what group i + 1
        takes in, or "feature", as the last feature of group i.
    connector_normalization: batch normalization in the connectors.
    final: alpha after the "last" iteration, or the "mean" over the group's iterations.
    precision: "float32" or "mixed_bfloat16"; logits, losses and beta are float32 in both.
    augmentation: of the batches of both steps. seed: what batches, connectors and a random start
        follow from. runtime: devices, logging and saving.
    settings: {binding: text}, what config.gin records; by default the arguments.

    Writes WORKDIR/search and returns the Alpha of its alpha.json. Goes on where an interrupted
    run stopped. Raises UserError for what the caller can mend, Interrupted after a signal.
    """
    strategy = runtime.devices
    folder = StageFolder(
        workdir,
        "search",
        "alpha.json",
        settings or described(search, locals()),
        {
            "teacher": fingerprint(teacher),
            "student": student.description,
            "train": train.description,
            "validation": validation.description,
        },
        writes=is_chief(strategy),
    )
    check_pair(teacher, student)
    check_same_groups(teacher, student)
    check_examples(student, train, validation)
    lowered = search_loss(loss, gamma_st, gamma_ts, gamma_fd)
    check_final(final)
    if not runtime.fresh and folder.is_finished():
        alpha = Alpha.load(folder.artifact)
        alpha.check_fits(teacher, folder.artifact)
        if is_chief(strategy) and not (folder.path / f"{PICTURE}.png").exists():
            _draw(alpha, len(train) / batch_size, folder)
        return alpha

    check_schedule(
        [train, validation],
        batch_size=batch_size,
        epochs=epochs,
        augmentation=augmentation,
        replicas=strategy.num_replicas_in_sync,
        optimizers=[beta_optimizer, optimizer],
    )
    with folder.work(runtime):
        with strategy.scope():
            supernet = Supernet(
                teacher.folded(precision),
                student.copy(precision),
                initial=initial,
                normalize=connector_normalization,
                clip=clip,
                entry=entry,
                precision=precision,
                seed=derived_seed(seed, "search"),
            )
        record, facts = _search_groups(
            supernet,
            lowered,
            folder=folder,
            splits={"train": train, "validation": validation},
            augmentation=augmentation,
            epochs=epochs,
            batch_size=batch_size,
            beta_optimizer=beta_optimizer,
            optimizer=optimizer,
            seed=seed,
            runtime=runtime,
        )
        alpha = record.alpha(
            final, dataset=dataset, teacher=teacher.name, student=student.name, seed=seed
        )
        if is_chief(strategy):
            write_metrics(folder, seed, student, facts)
            _draw(alpha, len(train) / batch_size, folder)
            alpha.save(folder.artifact)
    return alpha


def check_final(final):
    """Raises UserError unless search.final is right."""
    if final not in ("last", "mean"):
        raise UserError(f"search.final is 'last' or 'mean', not {final!r}")


def _draw(alpha, steps_per_epoch, folder):
    figures.save(figures.alpha_heatmap(alpha, steps_per_epoch), folder.path, PICTURE, dpi=120)


def _search_groups(
    supernet,
    loss,
    *,
    folder,
    splits,
    augmentation,
    epochs,
    batch_size,
    beta_optimizer,
    optimizer,
    seed,
    runtime,
):
    """The loops of Algorithm 1 over groups and iterations, from the last checkpoint on."""
    strategy = runtime.devices
    steps_per_epoch = len(splits["train"]) / batch_size
    steps_per_group = steps_of(epochs, len(splits["train"]), batch_size)
    with strategy.scope():
        optimizers = {
            group: (
                beta_optimizer.build([beta], steps_per_epoch, steps_per_group),
                optimizer.build(supernet.weights(group), steps_per_epoch, steps_per_group),
            )
            for group, beta in supernet.beta.items()
        }
    record = SearchRecord(supernet, loss.name, beta_optimizer.weight_decay, steps_per_group)
    journal = record.journal
    checkpoints = Checkpoints(
        folder.path / "checkpoints",
        journal,
        {
            "weights": [v.value for model in supernet.models for v in model.variables],
            "beta": list(supernet.beta.values()),
            "optimizers": [v for pair in optimizers.values() for o in pair for v in o.state],
        },
        is_chief(strategy),
    )
    checkpoints.restore()
    summaries = Summaries(folder.path if is_chief(strategy) else None)
    if journal["step"] == 0:
        summaries.text("config", folder.config_text)

    def batches(split):
        data_seed = derived_seed(seed, f"search/{split}")
        return training_batches(splits[split], batch_size, augmentation, data_seed, journal["step"])

    for i, group in enumerate(supernet.beta, start=1):
        if journal["step"] >= i * steps_per_group:
            continue
        of_beta, of_w = optimizers[group]
        record.begin(group)

        def on_log(step, means, group=group, of_beta=of_beta, of_w=of_w):
            rates = {
                "learning_rate/w": of_w.learning_rate,
                "learning_rate/beta": of_beta.learning_rate,
            }
            summaries.scalars(record.log(group, step, means) | rates, step)

        loop = Loop(
            f"search {group}", runtime, checkpoints, summaries, 2 * batch_size, f"train/{loss.name}"
        )
        loop.run(
            [
                Phase(beta_step(supernet, group, loss, of_beta, batch_size), batches("validation")),
                Phase(w_step(supernet, group, loss, of_w, batch_size), batches("train")),
            ],
            i * steps_per_group,
            origin=(i - 1) * steps_per_group,
            shown={title: f"train/{name}" for title, name in loss.shown},
            on_step=functools.partial(record.step, group),
            on_log=on_log,
            pauses=[i * steps_per_group],
            on_pause=lambda step, group=group: record.told(group),
        )
        summaries.figure(
            "alpha", figures.alpha_heatmap(record.alpha(), steps_per_epoch), journal["step"]
        )
    facts = {
        "steps": journal["step"],
        "epochs": epochs * len(supernet.beta),
        "train_examples": len(splits["train"]),
        "validation_examples": len(splits["validation"]),
        "test_examples": 0,
        "last": {"accuracy": None, "loss": journal["validation"].get("loss")},
        "best": None,
        "seconds": round(journal["seconds"], 1),
        "images_per_second": images_per_second(journal, 2 * batch_size),
    }
    return record, facts
