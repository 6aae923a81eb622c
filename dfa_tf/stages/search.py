"""Stage 1 of DFA: Algorithm 1, left, as a run that resumes after an interruption.

Its equations and steps are in dfa_tf/bilevel/dfa_search.py.
"""

import functools
import pathlib
from collections.abc import Mapping

from dfa_tf import figures
from dfa_tf.alpha import Alpha
from dfa_tf.bilevel.dfa_search import (
    SearchOptions,
    Supernet,
    bridge_loss,
    first_order_steps,
    searched_groups,
)
from dfa_tf.bilevel.dfa_search_ablation import student_loss
from dfa_tf.bilevel.dfa_search_second_order import second_order_steps
from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import check_same_groups
from dfa_tf.models.network import Network
from dfa_tf.progress import print_line
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.folder import Record, StageFolder
from dfa_tf.stages.identity import recorded_settings
from dfa_tf.stages.metrics import check_artifact, write_metrics
from dfa_tf.stages.search_record import SearchJournal, SearchRecord
from dfa_tf.stages.searches import SearchResult, check_search, search_inputs
from dfa_tf.training.batches import drawn_batches
from dfa_tf.training.checkpoints import Checkpoints
from dfa_tf.training.devices import is_chief, report_lost_workers
from dfa_tf.training.loop import Loop, Phase, restore
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.summaries import Summaries

FIGURE = "alpha"  # .png and .pdf
LOSSES = {"bridge": bridge_loss, "student": student_loss}
STEPS = {1: first_order_steps, 2: second_order_steps}
PROGRESS_METRICS = {
    "bridge": {"bridge loss": "train/bridge", "TS accuracy": "train/ts_accuracy"},
    "student": {"student loss": "train/student", "accuracy": "train/accuracy"},
}
TRAINING = Training(epochs=40, optimizer=SGD(Cosine(0.1)))  # epochs: §4.1; cosine: docs/method.md


def check(
    teacher: Network, student: Network, train, validation, training, options, replicas: int
) -> None:
    """Checks that a search can run. Arguments are as in `search`.

    Raises:
        UserError: If the networks have different groups, or if networks, examples, schedule and
            options are incompatible.
    """
    check_search("search", teacher, student, train, validation, training, replicas)
    check_same_groups(teacher, student)
    if options.order == 2 and not isinstance(training.optimizer, SGD):
        raise UserError(
            f"search.optimizer: expected sgd for search.order = 2, got {training.optimizer.name}"
        )
    if options.order == 2 and training.loss_scaling:
        raise UserError(
            "search.precision: expected float32 or mixed_bfloat16 for search.order = 2, got "
            f"{training.precision}"
        )
    if options.joint:
        _check_joint(teacher, options)


def _check_joint(teacher, options):
    for name, expected in {"loss": "bridge", "order": 1}.items():
        found = getattr(options, name)
        if found != expected:
            raise UserError(
                f"search.joint: expected search.{name} = {expected!r} for a joint search, got "
                f"{found!r}; bind search.joint = False"
            )
    groups = searched_groups(teacher)
    if len(groups) < 2:
        raise UserError(
            f"search.joint: expected a teacher with at least two groups of several features, got "
            f"{len(groups)} in {teacher.name}; bind search.joint = False"
        )


def search(
    *,
    teacher: Network,
    student: Network,
    train,
    validation,
    workdir: str | pathlib.Path,
    training: Training = TRAINING,
    beta_optimizer: Adam | SGD = Adam(),
    options: SearchOptions = SearchOptions(),
    runtime: Runtime = Runtime(),
    record: Record = Record(),
) -> Alpha:
    """Searches the aggregation weights of a teacher's features, group by group.

    Two steps alternate for each group i. One updates beta_i on a batch of `validation` (DFA,
    Eqn 7). The other updates the weights w of student and connectors on a batch of `train` (Eqn 8).
    With `options.joint`, the two steps alternate once for all groups.

    Args:
        teacher: The trained teacher. It is not changed.
        student: A student with the same groups as the teacher. The search starts from its weights;
            the network is not changed.
        train: Examples for w (see `dfa_tf.data`).
        validation: Examples for beta.
        workdir: The result is written to WORKDIR/search. An interrupted search is resumed.
        training: The recipe for w. Each group is searched for `epochs`, with a learning-rate
            schedule of its own. A joint search takes `epochs` in all, with one schedule.
        beta_optimizer: The optimizer of beta; its weight decay is lambda of Eqn 7. One step moves
            beta by about the learning rate at most, so a shorter search needs a higher rate.
            Learning rate × steps is 11 in the paper (10,937 steps at 1e-3).
        options: The loss, and choices that the paper leaves open.
        runtime: Devices, logging and saving.
        record: Origin of the run, for config.gin and metrics.json.

    Returns:
        The aggregation weights, as saved in WORKDIR/search/alpha.json.

    Raises:
        UserError: If the arguments are incompatible with each other or with the workdir.
        Interrupted: On a stop signal (`training.signals`), after the state is saved.
    """
    chief = is_chief(runtime.devices)
    folder = StageFolder(
        workdir,
        "search",
        "alpha.json",
        record.settings
        or recorded_settings("search", training, options, beta_optimizer=beta_optimizer),
        search_inputs(teacher, student, train, validation),
        writes=chief,
    )
    steps_per_epoch = training.steps_per_epoch(len(train))
    if not runtime.fresh and folder.is_finished():
        alpha = Alpha.load(folder.artifact, source="search")
        check_artifact(folder, alpha.digest)
        alpha.check_fits(teacher)
        if chief and not (folder.path / f"{FIGURE}.png").exists():
            _draw(alpha, steps_per_epoch, folder)
        return alpha

    replicas = runtime.devices.num_replicas_in_sync
    check(teacher, student, train, validation, training, options, replicas)
    with folder.work(runtime):
        with runtime.devices.scope():
            net = Supernet(
                teacher.folded(training.precision),
                student.copy(training.precision),
                options,
                precision=training.precision,
                seed=derived_seed(training.seed, "search"),
            )
        splits = {"train": train, "validation": validation}
        searched, result = _search_groups(net, splits, training, beta_optimizer, folder, runtime)
        names = {"dataset": record.dataset, "teacher": teacher.name, "student": student.name}
        alpha = searched.alpha(options.final, **names, seed=training.seed)
        if chief:
            write_metrics(folder, training.seed, student, result, artifact=alpha.digest)
            alpha.save(folder.artifact)
            _draw(alpha, steps_per_epoch, folder)
    return alpha


def _rounds(net) -> list[tuple[str, ...]]:
    """Returns the groups of each round: one group after the other (Algorithm 1), or all at once."""
    return [tuple(net.beta)] if net.options.joint else [(group,) for group in net.beta]


def _search_groups(net, splits: Mapping, training, beta_optimizer, folder, runtime):
    """Runs Algorithm 1 from the last checkpoint. Returns the record and a SearchResult.

    A round searches one group, or all of them in a joint search.
    """
    strategy, chief = runtime.devices, is_chief(runtime.devices)
    examples = len(splits["train"])
    steps_per_epoch, steps_per_round = training.steps_per_epoch(examples), training.steps(examples)
    rounds, name = _rounds(net), net.options.loss
    with strategy.scope():
        optimizers = [
            (
                training.build_optimizer([net.beta[g] for g in groups], examples, beta_optimizer),
                training.build_optimizer(net.variables(*groups), examples),
            )
            for groups in rounds
        ]
    journal = SearchJournal()
    record = SearchRecord(net, journal, name, steps_per_round)
    state = {
        "weights": [v.value for model in net.models for v in model.variables],
        "beta": list(net.beta.values()),
        "optimizers": [v for pair in optimizers for o in pair for v in o.state],
    }
    checkpoints = Checkpoints(folder.path / "checkpoints", journal, state, chief, folder.config)
    restore(checkpoints, "search", strategy)
    summaries = Summaries(folder.path if chief else None)
    if journal.step == 0:
        summaries.text("config", folder.config.text)
    images_per_step = 2 * training.batch_size  # a validation and a training batch

    for k, groups in enumerate(rounds):
        start, end = k * steps_per_round, (k + 1) * steps_per_round
        if journal.step >= end:  # finished before the search was interrupted
            continue
        record.start(groups)
        steps = STEPS[net.options.order](
            net, groups, LOSSES[name], optimizers[k], training.batch_size
        )
        batches = {
            split: drawn_batches(examples, training, "search", journal.step, strategy, split=split)
            for split, examples in splits.items()
        }
        phases = [Phase.of(step, [batches[split] for split in drawn]) for drawn, step in steps]
        label, metrics = f"search {', '.join(groups)}", PROGRESS_METRICS[name]
        loop = Loop(label, runtime, checkpoints, images_per_step, f"train/{name}", metrics)
        with report_lost_workers("search", strategy):
            for block in loop.run(phases, end, log_from=start):
                record.add(groups, block)
                if block.means is not None:
                    rates = zip(("beta", "w"), optimizers[k], strict=True)
                    scalars = {f"learning_rate/{of}": o.learning_rate for of, o in rates}
                    scalars |= block.scalar_means | record.scalars(groups, block.means)
                    summaries.scalars(scalars, block.step)
                if block.step == end:
                    if chief and not runtime.quiet:
                        for group in groups:
                            print_line(f"search {group}: {record.alpha_line(group)}")
                    draw = functools.partial(figures.alpha_heatmap, record.alpha(), steps_per_epoch)
                    summaries.figure("alpha", draw, end)
    epochs = training.epochs * len(rounds)
    return record, SearchResult.of(journal, splits, epochs, images_per_step)


def _draw(alpha, steps_per_epoch, folder):
    figures.draw(
        lambda: figures.alpha_heatmap(alpha, steps_per_epoch), folder.path, FIGURE, dpi=120
    )
