"""The teacher: trained, or taken from a file."""

import pathlib

from dfa_tf.data.pipeline import Augmentation
from dfa_tf.errors import UserError
from dfa_tf.files import read_json
from dfa_tf.methods.losses import plain_objective
from dfa_tf.models.files import load, save
from dfa_tf.models.network import Network
from dfa_tf.stages.checks import check_examples, check_schedule, check_task
from dfa_tf.stages.folder import StageFolder, described, fingerprint
from dfa_tf.stages.metrics import write_metrics
from dfa_tf.training.devices import is_chief
from dfa_tf.training.evaluation import Evaluator
from dfa_tf.training.fit import fit
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD


def train_teacher(
    *,
    network,
    train,
    test=None,
    workdir,
    augmentation=Augmentation(),
    epochs=200,
    batch_size=128,
    optimizer=SGD(),
    precision="float32",
    seed=0,
    runtime=Runtime(),
    settings=None,
) -> Network:
    """Trains `network` with cross entropy and saves it as WORKDIR/teacher/model.keras.

    The defaults are the wide-ResNet schedule that DFA uses throughout (§4.1).
    network: a `Network`; its present weights are the start, and it is left as it is.
    train, test: examples (see `dfa_tf.data`); without `test` nothing is evaluated.
    augmentation: of the training batches. epochs, batch_size, optimizer: the schedule.
    precision: "float32" or "mixed_bfloat16"; logits and losses are float32 in both.
    seed: what the batches follow from. runtime: devices, logging and saving.
    settings: {binding: text}, what config.gin records; by default the arguments.

    Goes on where an interrupted run stopped. Returns the trained float32 Network. Raises
    UserError for what the caller can mend, Interrupted after a signal.
    """
    strategy = runtime.devices
    settings = settings or described(train_teacher, locals())
    check_examples(network, *filter(None, (train, test)))
    inputs = {"network": network.description, "train": train.description}
    folder = teacher_folder(workdir, settings, strategy, inputs)
    if not runtime.fresh and folder.is_finished():
        return load_teacher(folder.artifact, network)
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
            trained = network.copy(precision)
        saved, facts = fit(
            label="teacher",
            folder=folder,
            network=trained,
            objective=plain_objective(trained),
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
            write_metrics(folder, seed, saved, facts, evaluated=_evaluated(saved, test))
            save(saved, folder.artifact)
    return saved


def adopt_teacher(
    *, network, path=None, test=None, workdir, seed=0, runtime=Runtime(), settings=None
) -> Network:
    """Takes a network trained elsewhere as the workdir's teacher: evaluates and copies it there.

    network: a trained Network. path: of the file it is from; where the metrics.json beside it
    tells of the same weights on the same test examples, that result is taken. The other
    arguments, and what is raised, are as in `train_teacher`. Returns the Network that
    WORKDIR/teacher/model.keras holds.
    """
    strategy = runtime.devices
    inputs = {"network": fingerprint(network)}
    folder = teacher_folder(workdir, settings or {}, strategy, inputs)
    if not runtime.fresh and folder.is_finished():
        return load_teacher(folder.artifact, network)
    with folder.work(runtime):
        evaluator = Evaluator(network, test)
        evaluated = _evaluated(network, test)
        known = read_json(pathlib.Path(path).parent / "metrics.json") if path else {}
        same = known.get("evaluated") == evaluated
        result = known["last"] if same else evaluator(network)
        facts = {
            "steps": 0,
            "epochs": 0,
            "train_examples": 0,
            "test_examples": len(test) if test is not None else 0,
            "last": result,
            "best": result and {"accuracy": result["accuracy"], "step": 0},
            "curve": [],
            "seconds": 0.0,
            "images_per_second": None,
        }
        if is_chief(strategy):
            write_metrics(folder, seed, network, facts, evaluated=evaluated)
            save(evaluator.network(network), folder.artifact)
    return evaluator.network(network)


def _evaluated(network, test):
    """Which weights were evaluated on which examples."""
    return {"network": fingerprint(network), "test": test and test.description}


def teacher_folder(workdir, settings, strategy, inputs=None):
    """The teacher's folder in a workdir."""
    return StageFolder(
        workdir, "teacher", "model.keras", settings, inputs, writes=is_chief(strategy)
    )


def load_teacher(path, expected):
    """The network in `path`, checked to take the images and tell the classes that `expected` does."""
    try:
        network = load(path)
    except UserError as error:
        raise UserError(f"{error}; train_teacher --fresh makes it anew") from error
    check_task(network, expected.num_classes, expected.image_shape, path)
    return network
