"""Training a network's weights on one objective: the teacher's, the student's."""

import sys

import numpy as np
import tensorflow as tf

from dfa_tf.data.pipeline import training_batches
from dfa_tf.seeds import derived_seed
from dfa_tf.training.checkpoints import Checkpoints, Journal
from dfa_tf.training.devices import global_mean, is_chief
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.loop import Loop, Phase
from dfa_tf.training.optimizers import steps_of
from dfa_tf.training.summaries import Summaries


def fit(
    *,
    label,
    folder,
    network,
    objective,
    models=None,
    variables=None,
    within="",
    train,
    test,
    augmentation,
    epochs,
    batch_size,
    optimizer,
    seed,
    runtime,
):
    """Trains on `objective`, from the last checkpoint in the stage's `folder` on.

    network: what is evaluated and returned. models: all whose state is kept, `network` among
    them, made in the strategy's scope; by default it alone. variables: those trained, by default
    all that the models can train.
    objective(images, labels) returns (loss [B], logits [B, classes] or None, {name: [B]}) for one
    replica's part of a batch. within: name of a folder of this run's own in `folder`.
    optimizer: a recipe, such as `SGD`. Returns (network, facts): the trained network in float32,
    and what metrics.json says of the run.
    """
    models = models or [network]
    path = folder.path / within
    strategy = runtime.devices
    steps_per_epoch = len(train) / batch_size
    steps = steps_of(epochs, len(train), batch_size)
    with strategy.scope():
        if variables is None:
            variables = [v for model in models for v in model.trainable_variables]
        optimizer = optimizer.build(variables, steps_per_epoch, steps)

    chief = is_chief(strategy)
    journal = Journal(curve=[])
    weights = [v.value for model in models for v in model.variables]
    checkpoints = Checkpoints(
        path / "checkpoints",
        journal,
        {"weights": weights, "optimizer": optimizer.state},
        chief,
    )
    checkpoints.restore()
    summaries = Summaries(path if chief else None)
    if journal["step"] == 0:
        summaries.text("config", folder.config_text)
    elif journal["step"] < steps and chief and not runtime.quiet:
        print(f"{label}: goes on from step {journal['step']} of {steps}", file=sys.stderr)
    evaluator = Evaluator(network, test)
    loop = Loop(label, runtime, checkpoints, summaries, batch_size, watched="train/loss")

    def on_log(step, means):
        summaries.scalars({"learning_rate": optimizer.learning_rate}, step)

    def on_pause(step):
        result = evaluator(network)
        if result is None:
            return None
        journal["curve"].append([step, result["accuracy"], result["loss"]])
        summaries.scalars({f"test/{name}": value for name, value in result.items()}, step)
        return f"epoch {step / steps_per_epoch:.1f} of {epochs:g}, test accuracy {result['accuracy']:.4f}, test loss {result['loss']:.4f}"

    if journal["step"] < steps:
        data_seed = derived_seed(seed, f"{label}/data")
        batches = training_batches(train, batch_size, augmentation, data_seed, journal["step"])
        pauses = evaluation_steps(runtime.evaluate_every * steps_per_epoch, steps)
        loop.run(
            [Phase(objective_step(objective, variables, optimizer, batch_size), batches)],
            steps,
            shown={"loss": "train/loss", "accuracy": "train/accuracy"},
            on_log=on_log,
            pauses=pauses,
            on_pause=on_pause,
        )
    return evaluator.network(network), _facts(journal, epochs, train, test, batch_size)


def objective_step(objective, variables, optimizer, batch_size):
    """The step that lowers `objective` (see `fit`) over `variables`, those of `optimizer`.

    Returns the replica's step of (images, labels), which gives {name: this replica's share of what
    it measured}.
    """
    weights = [variable.value for variable in variables]

    def step(images, labels):
        with tf.GradientTape() as tape:
            loss, logits, parts = objective(images, labels)
            share = global_mean(loss, batch_size)
        optimizer.apply(tape.gradient(share, weights))
        measured = {"loss": loss} | parts
        if logits is not None:
            measured["accuracy"] = tf.argmax(logits, -1, output_type=labels.dtype) == labels
        return {f"train/{k}": global_mean(v, batch_size) for k, v in measured.items()}

    return step


def evaluation_steps(period, steps):
    """Steps to evaluate at: every `period` steps (a fraction, maybe), rounded, and the last."""
    every = {round(k * period) for k in range(1, int(steps / period) + 1)} if period > 0 else set()
    return {step for step in every if 0 < step <= steps} | {steps}


def _facts(journal, epochs, train, test, batch_size):
    facts = {
        "steps": journal["step"],
        "epochs": epochs,
        "train_examples": len(train),
        "test_examples": len(test) if test is not None else 0,
        "last": None,
        "best": None,
        "curve": journal["curve"],
        "seconds": round(journal["seconds"], 1),
        "images_per_second": images_per_second(journal, batch_size),
    }
    if journal["curve"]:
        step, accuracy, loss = journal["curve"][-1]
        facts["last"] = {"accuracy": accuracy, "loss": loss}
        step, accuracy, loss = journal["curve"][
            int(np.argmax([accuracy for _, accuracy, _ in journal["curve"]]))
        ]
        facts["best"] = {"accuracy": accuracy, "step": step}
    return facts


def images_per_second(journal, images_per_step):
    """Speed of the steps alone, tracing and evaluation left out; None where too few were timed."""
    records = journal.records
    if not records.get("timed_seconds"):
        return None
    return round(records["timed_steps"] * images_per_step / records["timed_seconds"], 1)
