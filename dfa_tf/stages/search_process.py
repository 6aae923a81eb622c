"""Searches a distillation process (DistPro), and resumes the search after an interruption.

The algorithm itself is in dfa_tf/bilevel/process_search.py.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dfa_tf import figures
from dfa_tf.bilevel.process_search import (
    ProcessSearchNet,
    SearchProcessOptions,
    check_searchable,
    meta_step,
)
from dfa_tf.errors import UserError
from dfa_tf.methods.method import Method
from dfa_tf.methods.pathways import Pathways
from dfa_tf.models.network import Network
from dfa_tf.process import Process, is_recorded
from dfa_tf.seeds import derived_seed
from dfa_tf.stages.distill_arguments import methods_label
from dfa_tf.stages.folder import Record, StageFolder
from dfa_tf.stages.identity import recorded_settings
from dfa_tf.stages.metrics import check_artifact, write_metrics
from dfa_tf.stages.searches import SearchResult, check_search, search_inputs
from dfa_tf.training.batches import drawn_batches
from dfa_tf.training.checkpoints import Checkpoints, Journal
from dfa_tf.training.devices import is_chief, report_lost_workers
from dfa_tf.training.loop import Block, Loop, Phase, restore
from dfa_tf.training.optimizers import SGD, Adam
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.summaries import Summaries

STAGE = "process"
FIGURE = "process"  # .png and .pdf
# As in the authors' code. The first drop of their learning rate comes after the search has ended.
TRAINING = Training(epochs=40, optimizer=SGD(0.1))
ALPHA_OPTIMIZER = Adam(0.1, 0.5, 0.999, weight_decay=0.0)


def check(
    teacher: Network,
    student: Network,
    train,
    validation,
    methods: Sequence[Method],
    training: Training,
    replicas: int,
) -> None:
    """Checks that a search can run. Arguments are as in `search_process`.

    Raises:
        UserError: If a method does not support the two networks or this search, or if networks,
            examples and schedule are incompatible.
    """
    check_search("search_process", teacher, student, train, validation, training, replicas)
    check_searchable(teacher, student, methods)
    if training.loss_scaling:
        raise UserError(
            "search_process.precision: expected float32 or mixed_bfloat16, got "
            f"{training.precision}"
        )
    if not isinstance(training.optimizer, SGD):
        raise UserError(
            "search_process.optimizer: expected SGD, for whose step the gradient of alpha is derived, "
            f"got {type(training.optimizer).__name__}"
        )


def search_process(
    *,
    teacher: Network,
    student: Network,
    train,
    validation,
    workdir: str | pathlib.Path,
    methods: Sequence[Method] = (Pathways(),),
    ce_weight: float | None = None,
    training: Training = TRAINING,
    options: SearchProcessOptions = SearchProcessOptions(),
    alpha_optimizer: Adam | SGD = ALPHA_OPTIMIZER,
    runtime: Runtime = Runtime(),
    record: Record = Record(),
) -> Process:
    """Searches the weight of each path as a function of the training step.

    Each step trains the student and the transforms on a batch of `train`. It then moves alpha, the
    parameters behind the weights, such that the step would have lowered the cross entropy of a
    batch of `validation` further.

    Args:
        teacher: The trained teacher. It is not changed.
        student: The student. The search starts from its weights; the network is not changed.
        train: Examples for the student (see `dfa_tf.data`).
        validation: Examples for alpha.
        workdir: The result is written to WORKDIR/process. An interrupted search is resumed.
        methods: Methods of `dfa_tf.methods`, whose terms are the paths.
        ce_weight: Weight of the cross entropy, 1 by default.
        training: The recipe of the student, with `SGD`. The validation batches have its size and
            augmentation.
        options: The normalization of the weights.
        alpha_optimizer: The optimizer of alpha. A step of Adam moves alpha by about the learning
            rate at most, so a shorter search needs a higher rate. Learning rate × steps is 1,250
            in the paper. The gradient is the derivative of the validation loss divided by the
            student's learning rate, up to a constant; Adam does not depend on its scale, but SGD and
            a weight decay do.
        runtime: Devices, logging and saving.
        record: Origin of the run, for config.gin and metrics.json.

    Returns:
        The process, as saved in WORKDIR/process/process.json.

    Raises:
        UserError: If the arguments are incompatible with each other or with the workdir.
        Interrupted: On a stop signal (`training.signals`), after the state is saved.
    """
    chief = is_chief(runtime.devices)
    folder = StageFolder(
        workdir,
        STAGE,
        "process.json",
        record.settings
        or recorded_settings(
            "search_process",
            training,
            options,
            methods=list(methods),
            ce_weight=ce_weight,
            alpha_optimizer=alpha_optimizer,
        ),
        search_inputs(teacher, student, train, validation),
        writes=chief,
    )
    if not runtime.fresh and folder.is_finished():
        process = Process.load(folder.artifact)
        check_artifact(folder, process.digest)
        if chief and not (folder.path / f"{FIGURE}.png").exists():
            _draw(process, training.epochs, folder)
        return process

    replicas = runtime.devices.num_replicas_in_sync
    check(teacher, student, train, validation, methods, training, replicas)
    with folder.work(runtime):
        with runtime.devices.scope():
            net = ProcessSearchNet(
                teacher,
                student.copy(training.precision),
                methods,
                options,
                ce_weight=1.0 if ce_weight is None else ce_weight,
                precision=training.precision,
                seed=derived_seed(training.seed, STAGE),
            )
        splits = {"train": train, "validation": validation}
        journal, result = _search(net, splits, training, alpha_optimizer, folder, runtime)
        process = _process_of(net, journal, record, teacher, student, training.seed)
        if chief:
            names = {"teacher": teacher.name, "student": student.name, "dataset": record.dataset}
            names |= {"method": methods_label(methods)}
            entries = names | _final_entries(net, journal) | dict(record.entries)
            entries["artifact"] = process.digest
            write_metrics(folder, training.seed, student, result, **entries)
            process.save(folder.artifact)
            _draw(process, training.epochs, folder)
    return process


def _process_of(net, journal, record, teacher, student, seed) -> Process:
    return Process(
        paths=net.paths,
        at=[step for step, _, _ in journal.history],
        weights=[weights for _, weights, _ in journal.history],
        steps=journal.step,
        alpha=[alpha for _, _, alpha in journal.history],
        normalization=net.options.normalization,
        dataset=record.dataset,
        teacher=teacher.name,
        student=student.name,
        seed=seed,
    )


def _final_entries(net, journal) -> dict:
    """Returns entries of metrics.json.

    They are the weights of the last step, as in process.json; alpha after it; and moments of alpha's
    gradient.
    """
    alpha, (_, weights, _) = net.alpha.numpy(), journal.history[-1]
    moments = np.stack(journal.gradient_moments(), 1).tolist()
    return {
        "alpha": dict(zip(net.paths, alpha.tolist(), strict=True)),
        "weights": dict(zip(net.paths, weights, strict=True)),
        "alpha_range": float(alpha.max() - alpha.min()),
        "alpha_gradient": {
            path: {"mean": mean, "deviation": deviation}
            for path, (mean, deviation) in zip(net.paths, moments, strict=True)
        },
    }


@dataclasses.dataclass
class ProcessJournal(Journal):
    """The journal of a search for a process.

    Attributes:
        history: `[step, weights, alpha]` of each recorded step, counted from 0: the weights `[K]`
            that this step used, and the alpha `[K]` behind them. See `process.is_recorded`.
        gradient_sums: Sums over all steps of alpha's gradient and of its square, `{"gradient": [K],
            "square": [K]}`.
        validation_loss: Mean of the validation loss at the last log; None before the first.
    """

    history: list = dataclasses.field(default_factory=list)
    gradient_sums: dict = dataclasses.field(default_factory=dict)
    validation_loss: float | None = None

    def gradient_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean of alpha's gradient over all steps, and its standard deviation (n)."""
        mean, mean_square = (
            np.array(self.gradient_sums[name]) / self.step for name in ("gradient", "square")
        )
        return mean, np.sqrt(np.maximum(mean_square - mean**2, 0))

    def add(self, block: Block, steps: int) -> None:
        """Records a block of a search of `steps` steps."""
        weights, alpha = (block.measurements[name].tolist() for name in ("weights", "alpha"))
        first = block.step - len(weights)
        for step, *values in zip(range(first, block.step), weights, alpha, strict=True):
            if is_recorded(step, steps):
                self.history.append([step, *values])
        for gradient in np.float64(block.measurements["alpha_gradient"]):
            # Step by step, so that a resumed search has exactly the same sums.
            for name, value in (("gradient", gradient), ("square", gradient**2)):
                sums = np.float64(self.gradient_sums.get(name, 0.0)) + value
                self.gradient_sums[name] = sums.tolist()
        if block.means is not None:
            self.validation_loss = float(block.means["validation/cross_entropy"])


def _search(
    net: ProcessSearchNet, splits: Mapping, training, alpha_optimizer, folder, runtime
) -> tuple[ProcessJournal, SearchResult]:
    """Runs the search from the last checkpoint."""
    strategy, chief = runtime.devices, is_chief(runtime.devices)
    steps = training.steps(len(splits["train"]))
    with strategy.scope():
        examples = len(splits["train"])
        optimizer = training.build_optimizer(net.variables, examples)
        alpha_step = training.build_optimizer([net.alpha], examples, alpha_optimizer)
    journal = ProcessJournal()
    state = {
        "weights": [v.value for model in net.models for v in model.variables],
        "alpha": [net.alpha],
        "optimizers": [*optimizer.state, *alpha_step.state],
    }
    checkpoints = Checkpoints(folder.path / "checkpoints", journal, state, chief, folder.config)
    restore(checkpoints, STAGE, strategy)
    summaries = Summaries(folder.path if chief else None)
    images_per_step = 2 * training.batch_size  # a training and a validation batch
    metrics = {
        "loss": "train/loss",
        "accuracy": "train/accuracy",
        "validation accuracy": "validation/accuracy",
    }
    loop = Loop(STAGE, runtime, checkpoints, images_per_step, "train/loss", metrics)
    if journal.step == 0:
        summaries.text("config", folder.config.text)
    elif journal.step < steps:
        loop.say(f"resuming from step {journal.step} of {steps}")
    if journal.step < steps:
        batches = [
            drawn_batches(examples, training, STAGE, journal.step, strategy, split=split)
            for split, examples in splits.items()
        ]
        step = meta_step(net, optimizer, alpha_step, training.batch_size)
        phase = Phase.of(step, batches)
        with report_lost_workers(STAGE, strategy):
            for block in loop.run([phase], steps):
                journal.add(block, steps)
                if block.means is not None:
                    scalars = block.scalar_means | {"learning_rate": optimizer.learning_rate}
                    summaries.scalars(scalars | _path_scalars(net, block), block.step)
        _, weights, _ = journal.history[-1]
        named = zip(net.paths, weights, strict=True)
        loop.say("last weights: " + ", ".join(f"{path} {w:.3f}" for path, w in named))
    return journal, SearchResult.of(journal, splits, training.epochs, images_per_step)


def _path_scalars(net, block):
    """Returns the weight, alpha and the gradient of each path, for TensorBoard."""
    return {
        f"{title}/{path}": block.means[name][k]
        for title, name in (
            ("weight", "weights"),
            ("alpha", "alpha"),
            ("alpha_gradient", "alpha_gradient"),
        )
        for k, path in enumerate(net.paths)
    }


def _draw(process, epochs, folder):
    figures.draw(
        lambda: figures.process_heatmap([process], epochs=epochs), folder.path, FIGURE, dpi=120
    )
