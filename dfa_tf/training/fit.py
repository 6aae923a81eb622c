"""Training of one network on one objective: a teacher, a student, or a pretraining phase."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from dfa_tf.methods.losses import is_correct
from dfa_tf.methods.replicas import global_mean, mean_shares
from dfa_tf.models.network import Network
from dfa_tf.objectives.objective import Segment
from dfa_tf.process import is_recorded
from dfa_tf.training.batches import drawn_batches
from dfa_tf.training.checkpoints import Checkpoints, Journal, RunConfig
from dfa_tf.training.devices import is_chief, part_of_process, report_lost_workers
from dfa_tf.training.fine_tuning import FineTuning, HeadAndBackbone, split_variables
from dfa_tf.training.logit_cache import LogitCache
from dfa_tf.training.loop import Loop, Phase, restore
from dfa_tf.training.optimizers import Optimizer
from dfa_tf.training.recipe import Training
from dfa_tf.training.run_evaluations import RunEvaluations
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.summaries import Summaries

WEIGHTS = "train/weight/"  # prefix of the measurements of path weights


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network to train, and its objective.

    Attributes:
        network: The network to evaluate and return, built in the scope of the run's strategy.
        objective: A function of a replica's images and labels, of the number of finished steps, and
            of `training`, whether the network is in training mode. It returns the loss `[B]`, the
            logits `[B, classes]` or None, and further measurements `{name: [B]}`. A sequence of
            `Segment`s changes the objective during the run.
        models: All models whose state is saved, including `network`; by default `network` alone.
        variables: The variables to train; by default all trainable variables of the models.
        fine_tuning: Which of them are trained when, and how fast.
        cache: The logits of the teachers, which the objective then receives as
            `teacher_logits`. The batches repeat with them. None for batches that do not repeat.
        paths: The paths whose weights the result records; none if the weights are constant.
    """

    network: Network
    objective: Callable | Sequence[Segment]
    models: Sequence | None = None
    variables: Sequence | None = None
    fine_tuning: FineTuning = FineTuning()
    cache: LogitCache | None = None
    paths: Sequence[str] = ()

    def segments(self, steps: int) -> Sequence[Segment]:
        """Returns the parts of a run of `steps` steps."""
        if callable(self.objective):
            return [Segment(steps, self.objective)]
        return self.objective


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The result of a training run, as recorded in metrics.json.

    Attributes:
        steps: Number of finished steps.
        epochs: Passes over the training examples.
        train_examples: Number of training examples.
        test_examples: Number of test examples.
        last: The test metrics of the returned network, as from `Tally.metrics`; None without test
            examples.
        best: Highest accuracy of the curve, and its step; None without evaluation.
        curve: `[step, accuracy, loss]` of each evaluation.
        path_weights: `[step, {path: weight}]` of each recorded step, counted from 0; empty if the
            weights are constant. See `process.is_recorded`.
        train: The mean of each training measurement over the last epoch: the loss, the accuracy, and
            the value of each term without its weight.
        seconds: Duration in seconds.
        images_per_second: Speed without tracing and evaluation; None if it was not measured.
        evaluated_on: The examples of `best` and `curve`: "test", or "validation" if validation
            examples chose the returned network.
        kept_step: The step of the returned network.
    """

    steps: int
    epochs: float
    train_examples: int
    test_examples: int
    last: dict | None
    best: dict | None
    curve: list
    seconds: float
    images_per_second: float | None
    path_weights: list = dataclasses.field(default_factory=list, metadata={"metrics": False})
    train: dict = dataclasses.field(default_factory=dict)
    evaluated_on: str = "test"
    kept_step: int = 0


def fit(
    problem: Problem,
    train,
    test,
    training: Training,
    *,
    label: str,
    folder: pathlib.Path,
    runtime: Runtime,
    config: RunConfig = RunConfig(),
    validation=None,
) -> tuple[Network, TrainingResult]:
    """Trains a network, and resumes from the last checkpoint if there is one.

    Args:
        problem: The network and its objective.
        train: The training examples.
        test: The test examples; None for no evaluation.
        training: The recipe.
        label: Name of what is running, for messages and for the seed of the batches.
        folder: Folder of the checkpoints and of TensorBoard's events.
        runtime: Devices, logging and saving.
        config: The settings and inputs of the run. TensorBoard shows their text.
        validation: Validation examples, for the evaluations during the run. The network of the best
            one is returned, and evaluated on the test examples. None to evaluate on the test
            examples during the run and to return the last network.

    Returns:
        The trained network in float32, and the result.
    """
    network, strategy, chief = problem.network, runtime.devices, is_chief(runtime.devices)
    models = problem.models or [network]
    steps = training.steps(len(train))
    steps_per_epoch = training.steps_per_epoch(len(train))
    with strategy.scope():
        variables = problem.variables
        if variables is None:
            variables = [v for model in models for v in model.trainable_variables]
        optimizer = _optimizer(problem, variables, training, len(train))

    journal = Journal()
    weights = [v.value for model in models for v in model.variables]
    state = {"weights": weights, "optimizer": optimizer.state}
    evaluations = RunEvaluations(label, network, test, validation)
    state |= evaluations.state
    checkpoints = Checkpoints(folder / "checkpoints", journal, state, chief, config)
    restore(checkpoints, label, strategy)
    summaries = Summaries(folder if chief else None)
    progress_metrics = {"loss": "train/loss", "accuracy": "train/accuracy"}
    loop = Loop(label, runtime, checkpoints, training.batch_size, "train/loss", progress_metrics)
    if journal.step == 0:
        summaries.text("config", config.text)
    elif journal.step < steps:
        loop.say(f"resuming from step {journal.step} of {steps}")

    evaluated_steps = evaluation_steps(runtime.evaluate_every * steps_per_epoch, steps)
    head_steps = problem.fine_tuning.head_steps(steps_per_epoch, steps)
    *_, last_epoch_start, _ = 0, *epoch_ends(steps_per_epoch, steps)
    for segment, is_frozen in _with_frozen_backbone(problem.segments(steps), head_steps):
        if journal.step >= segment.last:
            continue
        step = objective_step(
            segment.objective, optimizer.frozen if is_frozen else optimizer, training.batch_size
        )
        batches = _batches(problem, train, training, label, journal.step, strategy)
        ends = {step for step in evaluated_steps if step <= segment.last}
        with report_lost_workers(label, strategy):
            for block in loop.run([Phase(step, batches)], segment.last, block_ends=ends):
                _record_weights(journal, block, problem.paths, steps)
                _record_last_epoch(journal, block, last_epoch_start)
                if block.means:
                    scalars = {"learning_rate": optimizer.learning_rate}
                    if training.loss_scaling:
                        scalars["loss_scale"] = float(optimizer.loss_scale)
                    summaries.scalars(block.scalar_means | scalars, block.step)
                if block.step in evaluated_steps:
                    epoch = f"epoch {block.step / steps_per_epoch:.1f} of {training.epochs:g}"
                    is_last = block.step == steps
                    if line := evaluations.record(journal, summaries, block.step, is_last):
                        loop.say(f"{epoch}, {line}")
    returned, entries = evaluations.returned(journal)
    if validation is not None:
        step = entries["kept_step"]
        loop.say(f"kept the network of step {step}, the best one on the validation examples")
    return returned, _result(journal, training, train, test, entries)


def _batches(problem, train, training, label, first_step, strategy):
    cache = problem.cache
    period = cache.period if cache else 0
    batches = drawn_batches(train, training, label, first_step, strategy, period=period)
    return cache.joined(batches, first_step, part_of_process(strategy)) if cache else batches


def _optimizer(problem, variables, training, examples):
    if problem.fine_tuning.is_plain:
        return training.build_optimizer(variables, examples)
    head, backbone = split_variables(problem.network, variables)
    rate = problem.fine_tuning.backbone_rate
    return HeadAndBackbone(
        training.build_optimizer(head, examples),
        training.build_optimizer(backbone, examples, factor=rate),
    )


def _with_frozen_backbone(segments, head_steps):
    """Yields (segment, whether the backbone is frozen), with a boundary at `head_steps`."""
    start = 0
    for segment in segments:
        if start < head_steps:
            frozen = functools.partial(segment.objective, training=False)
            yield Segment(min(segment.last, head_steps), frozen), True
        if segment.last > head_steps:
            yield segment, False
        start = segment.last


def objective_step(objective: Callable, optimizer: Optimizer, batch_size: int) -> Callable:
    """Returns the step that minimises an objective.

    Args:
        objective: See `Problem`.
        optimizer: The optimizer of the variables to train.
        batch_size: Size of the global batch.

    Returns:
        A function of (images, labels), and of cached logits of the teachers if there are any,
        that runs on each replica and returns the replica's share of each measurement.
    """

    def step(images, labels, teacher_logits=None):
        given = {} if teacher_logits is None else {"teacher_logits": teacher_logits}
        with tf.GradientTape() as tape:
            loss, logits, measurements = objective(images, labels, optimizer.step, **given)
            mean_loss = global_mean(loss, batch_size)
        # Connectors of methods that are left out of a segment have no gradient.
        optimizer.apply(optimizer.gradients(tape, mean_loss))
        measured = {"loss": loss} | measurements
        if logits is not None:
            measured["accuracy"] = is_correct(logits, labels)
        return mean_shares("train", measured, batch_size)

    return step


def evaluation_steps(period: float, steps: int) -> set[int]:
    """Returns the steps to evaluate at: every `period` steps, rounded, and the last step.

    Args:
        period: Steps between evaluations, which need not be an integer; 0 for the last step alone.
        steps: Number of steps in the run.
    """
    every = {round(k * period) for k in range(1, int(steps / period) + 1)} if period > 0 else set()
    return {step for step in every if 0 < step <= steps} | {steps}


def epoch_ends(steps_per_epoch: float, steps: int) -> list[int]:
    """Returns the last step of each epoch, rounded, of a run of `steps` steps."""
    epochs = max(1, round(steps / steps_per_epoch))
    ends = [round(k * steps_per_epoch) for k in range(1, epochs)]
    return [end for end in ends if 0 < end < steps] + [steps]


def _record_weights(journal, block, paths, steps):
    """Adds the path weights of the block's recorded steps to the journal.

    A path that the segment leaves out has weight 0.
    """
    if not paths:
        return
    count = len(block.measurements["train/loss"])
    zeros = np.zeros(count, np.float32)
    for k, step in enumerate(range(block.step - count, block.step)):
        if is_recorded(step, steps):
            weights = {p: float(block.measurements.get(WEIGHTS + p, zeros)[k]) for p in paths}
            journal.path_weights.append([step, weights])


def _record_last_epoch(journal, block, start):
    """Adds the block's measurements after the step `start` to the journal, except path weights."""
    for name, values in block.measurements.items():
        if values.ndim > 1 or name.startswith(WEIGHTS):
            continue
        first = block.step - len(values)
        for value in values[max(start - first, 0) :].tolist():  # one by one, as in a resumed run
            number, total = journal.last_epoch.get(name, (0, 0.0))
            journal.last_epoch[name] = [number + 1, total + value]


def _result(journal, training, train, test, entries):
    return TrainingResult(
        steps=journal.step,
        epochs=training.epochs,
        train_examples=len(train),
        test_examples=len(test) if test is not None else 0,
        curve=journal.curve,
        seconds=round(journal.seconds, 1),
        images_per_second=journal.images_per_second(training.batch_size),
        path_weights=journal.path_weights,
        train={
            name.removeprefix("train/"): total / number
            for name, (number, total) in journal.last_epoch.items()
        },
        **entries,
    )
