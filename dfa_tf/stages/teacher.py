"""The teacher stage: trains a teacher, or copies one that was trained elsewhere."""

import pathlib

from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.methods.losses import plain_objective
from dfa_tf.models.files import load, save
from dfa_tf.models.network import Network
from dfa_tf.objectives.targets import Targets
from dfa_tf.stages.checks import check_examples, check_schedule, check_task
from dfa_tf.stages.folder import Record, StageFolder, numbered
from dfa_tf.stages.identity import fingerprint, recorded_settings, starting_point, validation_inputs
from dfa_tf.stages.metrics import check_artifact, write_metrics
from dfa_tf.training.devices import is_chief
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.fine_tuning import FineTuning
from dfa_tf.training.fit import Problem, TrainingResult, fit
from dfa_tf.training.keep_best import LAST, Keep, check_keep
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime


def check(
    network: Network,
    train,
    test,
    *,
    training: Training,
    replicas: int,
    fine_tuning: FineTuning = FineTuning(),
    targets: Targets = Targets(),
    keep: Keep = LAST,
    validation=None,
) -> None:
    """Checks that a teacher can be trained. Arguments are as in `train_teacher`.

    Raises:
        UserError: If network, examples, schedule, targets and `keep` are incompatible.
    """
    check_keep("train_teacher.keep", keep, validation)
    check_examples(network, train, test, validation)
    check_schedule("train_teacher", [train], training, replicas)
    classes, batch_size = network.num_classes, training.batch_size
    targets.check("train_teacher", train.labels, classes, batch_size, replicas)
    fine_tuning.check("train_teacher", network, training.epochs)


def train_teacher(
    *,
    network: Network,
    train,
    test=None,
    workdir: str | pathlib.Path,
    training: Training = Training(),
    fine_tuning: FineTuning = FineTuning(),
    targets: Targets = Targets(),
    keep: Keep = LAST,
    validation=None,
    runtime: Runtime = Runtime(),
    record: Record = Record(),
    number: int = 1,
) -> Network:
    """Trains a network with cross entropy and saves it as WORKDIR/teacher/model.keras.

    Args:
        network: The network. Training starts from its weights; the network is not changed.
        train: Training examples (see `dfa_tf.data`).
        test: Test examples; None for no evaluation.
        workdir: The result is written to WORKDIR/teacher. An interrupted training is resumed.
        training: The recipe.
        fine_tuning: How the layers of a pretrained network are trained.
        targets: Class weights, label smoothing and mixup.
        keep: Which network is the result: "last", or "best" for the evaluated one with the highest
            validation accuracy, the first one on ties. The test examples then measure only this
            network, after the training.
        validation: Validation examples for keep="best", such as a part of the training examples that
            `train` does not contain.
        runtime: Devices, logging and saving.
        record: Origin of the run, for config.gin and metrics.json.
        number: Which of several teachers this is. The folder of the second is WORKDIR/teacher_2.

    Returns:
        The trained float32 network.

    Raises:
        UserError: If the arguments are incompatible with each other or with the workdir.
        Interrupted: On a stop signal (`training.signals`), after the state is saved.
    """
    strategy = runtime.devices
    settings = record.settings or recorded_settings(
        "train_teacher",
        training,
        fine_tuning,
        targets,
        keep=keep,
    )
    inputs = {"network": starting_point(network), "train": train.description}
    inputs |= validation_inputs(validation, runtime)
    folder = _teacher_folder(workdir, settings, inputs, strategy, number)
    if not runtime.fresh and folder.is_finished():
        teacher = load_teacher(folder.artifact, network)
        check_artifact(folder, fingerprint(teacher))
        return teacher
    replicas = strategy.num_replicas_in_sync
    check(
        network,
        train,
        test,
        training=training,
        replicas=replicas,
        fine_tuning=fine_tuning,
        targets=targets,
        keep=keep,
        validation=validation,
    )
    target_arguments = targets.arguments(train.labels, network.num_classes, training.seed)
    with folder.work(runtime):
        with strategy.scope():
            trained = network.copy(training.precision)
        teacher, result = fit(
            Problem(trained, plain_objective(trained, **target_arguments), fine_tuning=fine_tuning),
            train,
            test,
            training,
            label=folder.stage,
            folder=folder.path,
            runtime=runtime,
            config=folder.config,
            validation=validation,
        )
        if is_chief(strategy):
            evaluated = _evaluation_inputs(teacher, test)
            entries = {"evaluated": evaluated, "artifact": fingerprint(teacher), **record.entries}
            write_metrics(folder, training.seed, teacher, result, **entries)
            save(teacher, folder.artifact)
    return teacher


def adopt_teacher(
    *,
    network: Network,
    path: str | pathlib.Path | None = None,
    test=None,
    workdir: str | pathlib.Path,
    seed: int = 0,
    runtime: Runtime = Runtime(),
    record: Record = Record(),
    number: int = 1,
) -> Network:
    """Copies a network trained elsewhere to WORKDIR/teacher/model.keras, and evaluates it.

    Args:
        network: A trained network.
        path: The network's file. If the metrics.json next to it is for the same weights and test
            examples, its result is reused.
        test: Test examples; None for no evaluation.
        workdir: The result is written to WORKDIR/teacher.
        seed: Seed of the run, for metrics.json.
        runtime: Devices, logging and saving.
        record: Origin of the run, for config.gin and metrics.json.
        number: As in `train_teacher`.

    Returns:
        The float32 network, as saved in WORKDIR/teacher/model.keras.

    Raises:
        UserError: If the workdir holds another teacher.
    """
    strategy = runtime.devices
    inputs = {"network": fingerprint(network)}
    folder = _teacher_folder(workdir, record.settings or {}, inputs, strategy, number)
    if not runtime.fresh and folder.is_finished():
        teacher = load_teacher(folder.artifact, network)
        check_artifact(folder, fingerprint(teacher))
        return teacher
    with folder.work(runtime):
        evaluator = Evaluator(network, test)
        evaluated = _evaluation_inputs(network, test)
        known = read_json(pathlib.Path(path).parent / "metrics.json") if path else {}
        if known.get("evaluated") == evaluated:
            last = known["last"]
        else:
            tally = evaluator(network)
            last = tally.metrics() if tally else None
        result = TrainingResult(
            steps=0,
            epochs=0,
            train_examples=0,
            test_examples=len(test) if test is not None else 0,
            last=last,
            best=last and {"accuracy": last["accuracy"], "step": 0},
            curve=[],
            seconds=0.0,
            images_per_second=None,
        )
        if is_chief(strategy):
            entries = {"evaluated": evaluated, "artifact": fingerprint(network), **record.entries}
            write_metrics(folder, seed, network, result, **entries)
            save(evaluator.network(network), folder.artifact)
    return evaluator.network(network)


def load_teacher(path: pathlib.Path, expected: Network) -> Network:
    """Loads a teacher and checks its task.

    Args:
        path: A `.keras` file.
        expected: A network with the image shape and classes that the teacher must have.

    Returns:
        The float32 network.

    Raises:
        UserError: If the file is damaged or holds a network for another task.
    """
    try:
        network = load(path)
    except UserError as error:
        raise UserError(f"{error}; retrain it with train_teacher --fresh") from error
    check_task(network, expected.num_classes, expected.image_shape, str(path))
    return network


def _teacher_folder(workdir, settings, inputs, strategy, number):
    stage, writes = numbered("teacher", number), is_chief(strategy)
    return StageFolder(workdir, stage, "model.keras", settings, inputs, writes=writes)


def _evaluation_inputs(network, test):
    """Returns the texts that identify the evaluated weights and the test examples."""
    return {"network": fingerprint(network), "test": None if test is None else test.description}
