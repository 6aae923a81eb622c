"""Workdirs as the commands leave them."""

import json

from dfa_tf.alpha import Alpha, GroupAlpha


def write_workdir(folder, accuracy=None, *, method="kd", aggregation=None, seed=0, **changes):
    """Writes a workdir with a distillation, which is unfinished without an accuracy.

    Args:
        folder: The workdir.
        accuracy: Test accuracy after the last epoch, a fraction.
        method: Name of the method.
        aggregation: Source of alpha.
        seed: Seed of the run.
        **changes: Further entries of metrics.json.

    Returns:
        The workdir.
    """
    stage = folder / "distill"
    (stage / "checkpoints").mkdir(parents=True)
    (stage / "config.gin").write_text("")
    if accuracy is None:
        (stage / "checkpoints" / "step-40.index").write_text("")
        return folder
    metrics = {
        "seed": seed,
        "steps": 100,
        "epochs": 2,
        "train_examples": 640,
        "last": {"accuracy": accuracy, "loss": 1.0},
        "best": {"accuracy": accuracy + 0.01, "step": 50},
        "curve": [[50, accuracy + 0.01, 1.0], [100, accuracy, 1.0]],
        "seconds": 30.0,
        "images_per_second": 200.0,
        "parameters": 1234,
        "dataset": "cifar100",
        "teacher": "WRN_28_2",
        "student": "WRN_16_1",
        "method": method,
        "aggregation": aggregation,
        "pretraining": [],
    }
    (stage / "metrics.json").write_text(json.dumps(metrics | changes))
    (stage / "student.keras").write_text("")
    return folder


def write_bindings(folder, **bindings):
    """Writes the config that a distillation recorded: `kd__temperature=4.0` binds kd.temperature."""
    lines = ["# What distill was run with.", "# flag --seed = 3", 'keras_file.path = "/a/b"']
    lines += [f"{name.replace('__', '.')} = {value}" for name, value in bindings.items()]
    (folder / "distill" / "config.gin").write_text("\n".join(lines))


def write_search(folder, last_weight, seed=0):
    """Writes a workdir whose search ended with this weight for the last of two features."""
    write_workdir(folder, 0.5, method="dfa", aggregation="search", seed=seed)
    weights = [1 - last_weight, last_weight]
    group = GroupAlpha(
        name="group1",
        features=["group1_block1", "group1_block2"],
        beta=[0.0, 0.0],
        alpha=weights,
        history=[[0, [0.01, 0.99]], [10, weights]],
        mean_loss_gradient=[0.002, -0.002],
        mean_decay=[-0.001, 0.003],
    )
    (folder / "search").mkdir()
    Alpha("cifar100", "T", "S", seed, 10, [group]).save(folder / "search/alpha.json")
    (folder / "search/metrics.json").write_text('{"seconds": 1.0, "steps": 10, "epochs": 2}')
