"""The ImageNet configs, with synthetic JPEG files of 256 pixels and more in place of ImageNet."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from dfa_tf.alpha import fixed
from dfa_tf.commands.plan import OF_COMMANDS
from dfa_tf.config import ROLES, Config
from dfa_tf.data import IndexedExamples
from dfa_tf.stages.distill import distill
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training.optimizers import SGD
from dfa_tf.training.runtime import Runtime


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ImageNet's layout: a folder train and a folder val, with a folder for each class."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for k in range(2 * count):
            height, width = generator.integers(256, 400, 2)
            coarse = generator.integers(0, 256, (6, 6, 3), np.uint8)
            path = folder / split / f"n{k % 2}" / f"{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coarse).resize((int(width), int(height))).save(path)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet", "imagenet_mobilenet"])
def test_config_trains_two_steps_on_crops_of_jpeg_files(folder, tmp_path, name):
    bindings = [f"dataset.name = 'folder:{folder}'", "precision = 'float32'"]
    config = Config([f"gin/{name}.gin"], bindings)
    dataset = config.call("dataset", data_dir=tmp_path)
    assert isinstance(dataset.train, IndexedExamples)
    assert dataset.image_shape == (224, 224, 3)
    assert len(dataset.test) == 4  # ImageNet is tested on its validation images
    networks = {role: config.network(role, dataset.task, seed=1)[0] for role in ROLES}
    common = {
        "train": dataset.train,
        "test": dataset.test,
        "workdir": tmp_path / "run",
        "runtime": Runtime(quiet=True),
    }

    def settings(stage):
        assert config.value(stage, "batch_size") == 256
        found = config.stage(stage, epochs=8 / 12, batch_size=4)
        # The config's rate is for batches of 256. The same rate for each image: 0.1 * 4 / 256.
        found["training"] = dataclasses.replace(found["training"], optimizer=SGD(0.0016))
        return {key: value for key, value in found.items() if key not in OF_COMMANDS}

    teacher = train_teacher(network=networks["teacher"], **settings("train_teacher"), **common)
    student = distill(
        teacher=teacher,
        student=networks["student"],
        alpha=fixed("average", teacher),
        **settings("distill"),
        **common,
    )
    assert all(np.isfinite(weights).all() for weights in student.get_weights())
