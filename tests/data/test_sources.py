"""Data sets by name: digits, TFDS data sets, and the real CIFAR-100 if it is available."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dfa_tf import data
from dfa_tf.errors import UserError
from tests.conftest import CIFAR100


def test_digits_are_real_images_that_need_no_download():
    digits = data.load("digits")
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    assert digits.image_shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")
    train = {image.tobytes() for image in digits.train.images}
    assert len(train) > 1290
    assert min(np.bincount(digits.test.labels)) >= 48
    assert digits.mean[0] == pytest.approx(digits.train.images.mean() / 255)
    assert digits.std[0] == pytest.approx(digits.train.images.std() / 255)
    assert not digits.augmentation.flip


SPLITS = {"train": 12, "test": 5}  # numbers of images


def _prepare(folder, sizes, supervised=True, splits=SPLITS, without_labels=()):
    """Prepares a TFDS data set "tiny_pictures" with images of these sizes."""
    draws = np.random.default_rng(0)

    def split(name, count):
        def generate():
            for k in range(count):
                size = sizes[k % len(sizes)]
                image = draws.integers(0, 256, (*size, 3), dtype=np.uint8)
                yield {"image": image, "label": -1 if name in without_labels else k % 3}

        signature = {
            "image": tf.TensorSpec((None, None, 3), tf.uint8),
            "label": tf.TensorSpec((), tf.int64),
        }
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    one_size = sizes[0] if len(set(sizes)) == 1 else (None, None)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(*one_size, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_pictures",
        version="1.0.0",
        features=features,
        split_datasets={name: split(name, count) for name, count in splits.items()},
        data_dir=folder,
        disable_shuffling=True,
    )
    if supervised:
        info = folder / "tiny_pictures" / "1.0.0" / "dataset_info.json"
        content = json.loads(info.read_text())
        items = [{"featureKey": "image"}, {"featureKey": "label"}]
        content["supervisedKeys"] = {"tuple": {"items": items}}
        info.write_text(json.dumps(content))


@pytest.mark.parametrize("in_memory", [True, False])
def test_data_set_without_a_test_split_is_divided_by_class(tmp_path, in_memory):
    """As tf_flowers, which has the split train alone."""
    _prepare(tmp_path, [(6, 6)], splits={"train": 30})
    found = [
        data.load("tiny_pictures", tmp_path, in_memory=in_memory, test_fraction=fraction)
        for fraction in (None, 0.2, 0.5)
    ]
    assert [(len(each.train), len(each.test)) for each in found] == [(24, 6), (24, 6), (15, 15)]
    default, again, _ = found
    assert default.test.description == again.test.description
    assert sorted(default.test.labels) == [0, 0, 1, 1, 2, 2]
    images = [next(iter(part.in_order(30)))[0].numpy() for part in (default.train, default.test)]
    assert len({image.tobytes() for image in np.concatenate(images)}) == 30
    assert any("dataset.test_fraction" in note for note in default.notes)


def test_fraction_is_refused_for_a_data_set_with_a_test_split(tmp_path):
    _prepare(tmp_path, [(6, 6)])
    with pytest.raises(UserError, match=r"dataset\.test_fraction"):
        data.load("tiny_pictures", tmp_path, test_fraction=0.2)


@pytest.mark.parametrize("in_memory", [True, False])
def test_tfds_data_set_is_read_completely(tmp_path, in_memory):
    _prepare(tmp_path, [(6, 6)])
    dataset = data.load("tiny_pictures", data_dir=str(tmp_path), in_memory=in_memory)
    assert (len(dataset.train), len(dataset.test)) == (12, 5)
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.image_shape == (6, 6, 3)
    assert dataset.train.labels.tolist() == [k % 3 for k in range(12)]
    images, _ = next(dataset.train.in_order(12).as_numpy_iterator())
    np.testing.assert_allclose(dataset.mean, images.mean((0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(dataset.std, images.std((0, 1, 2)) / 255, rtol=1e-6)
    assert dataset.augmentation == data.Augmentation(pad=4, flip=True)


def test_images_of_several_sizes_need_image_size(tmp_path):
    _prepare(tmp_path, [(6, 6), (9, 7)])
    with pytest.raises(UserError, match=r"dataset\.image_size"):
        data.load("tiny_pictures", data_dir=str(tmp_path))
    dataset = data.load("tiny_pictures", data_dir=str(tmp_path), image_size=(8, 8))
    assert dataset.image_shape == (8, 8, 3)
    assert dataset.train.images.dtype == np.uint8


def test_pad_overrides_the_default_augmentation():
    assert data.load("digits", pad=2).augmentation == data.Augmentation(pad=2, flip=False)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("name", 5), ("data_dir", 5), ("source", 5), ("train_with_validation", 1)),
        *(
            ("image_size", 8),
            ("image_size", (8,)),
            ("image_size", (8, 0)),
            ("image_size", (8, 8.0)),
        ),
        *(("in_memory", "yes"), ("pad", -1), ("pad", 1.5), ("flip", 1), ("flip", "no")),
        *(("validation_fraction", "0.3"), ("train_fraction", 0), ("train_fraction", 1.5)),
    ],
)
def test_invalid_setting_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=rf"dataset\.{setting}: "):
        data.load(**{"name": "digits", setting: value})


def test_digits_cannot_be_resized():
    with pytest.raises(UserError, match=r"dataset\.image_size: "):
        data.load("digits", image_size=(16, 16))


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5, -0.1])
def test_validation_fraction_outside_of_0_to_1_is_refused(fraction):
    with pytest.raises(UserError, match=r"dataset\.validation_fraction: "):
        data.load("digits", validation_fraction=fraction).search_split(seed=0)


def test_train_fraction_too_small_for_the_classes_is_refused():
    with pytest.raises(UserError, match=r"dataset\.train_fraction: "):
        data.load("digits", train_fraction=0.001)


def test_unknown_name_is_reported_with_close_matches():
    with pytest.raises(UserError, match=r"dataset\.name: .*cifar1000.*cifar100\b"):
        data.load("cifar1000")


def test_unprepared_data_set_is_reported_at_once_without_a_network(tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UserError, match=r"cifar10 .*--data_dir"):
        data.load("cifar10", data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_data_set_without_image_and_label_is_refused(tmp_path):
    _prepare(tmp_path, [(6, 6)], supervised=False)
    with pytest.raises(UserError, match=r"dataset\.name: tiny_pictures"):
        data.load("tiny_pictures", data_dir=str(tmp_path))


@pytest.mark.skipif(not CIFAR100.is_dir(), reason="the real CIFAR-100 is not available")
def test_real_cifar100_has_its_official_counts_and_a_7_to_3_split():
    dataset = data.load("cifar100", data_dir=str(CIFAR100))
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (50_000, 10_000, 100)
    assert np.bincount(dataset.train.labels).tolist() == [500] * 100
    assert np.bincount(dataset.test.labels).tolist() == [100] * 100
    train, validation = dataset.search_split(seed=0)
    assert np.bincount(train.labels).tolist() == [350] * 100
    assert np.bincount(validation.labels).tolist() == [150] * 100
    assert dataset.mean == (125.3 / 255, 123.0 / 255, 113.9 / 255)  # as in the literature


def test_split_without_labels_is_not_the_test_split(tmp_path):
    """As the test split of ImageNet."""
    splits = {"train": 12, "validation": 6, "test": 5}
    _prepare(tmp_path, [(8, 8)], splits=splits, without_labels=["test"])
    pictures = data.load("tiny_pictures", data_dir=tmp_path)
    assert len(pictures.test) == 6
    assert pictures.test.labels.min() == 0
