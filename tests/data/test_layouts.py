"""Layouts of image folders and tables: which images are for training, validation and testing."""

import shutil

import numpy as np
import pytest

from dfa_tf import data
from dfa_tf.data.class_folders import class_folders
from dfa_tf.data.label_table import label_table
from dfa_tf.data.labelled_files import with_test_split
from dfa_tf.errors import UserError
from tests.data.drawn import draw

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def split_folder(tmp_path):
    """4 images of each class in train, 3 in val and 2 in test."""
    draw(tmp_path / "split", CLASSES, {"train": 4, "val": 3, "test": 2})
    return tmp_path / "split"


@pytest.fixture
def class_folder(tmp_path):
    """10 images of each class, without splits."""
    draw(tmp_path, CLASSES, {"photos": 10})
    return tmp_path / "photos"


def _load(folder, tmp_path, **more):
    return data.load(f"folder:{folder}", data_dir=tmp_path / "tfds", **more)


def _sizes(found):
    return {split: len(files) for split, files in found.files.items()}


def test_val_is_the_test_split_if_there_is_no_other(split_folder, tmp_path):
    shutil.rmtree(split_folder / "test")
    pictures = _load(split_folder, tmp_path)
    assert (len(pictures.train), len(pictures.test)) == (12, 9)
    assert pictures.official_splits is None  # a search splits the training images
    (note,) = pictures.notes
    assert str(split_folder) in note


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("training", "validation", "testing")])
def test_splits_have_several_accepted_names(split_folder, tmp_path, names):
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (split_folder / old).rename(split_folder / f"{new}_")
        (split_folder / f"{new}_").rename(split_folder / new)
    assert _sizes(class_folders(split_folder, tmp_path)) == {
        "train": 12,
        "validation": 9,
        "test": 6,
    }


def test_images_of_a_class_may_be_in_a_subfolder(split_folder, tmp_path):
    for split in ("train", "val"):
        folder = split_folder / split / "bee"
        images = list(folder.iterdir())
        (folder / "images").mkdir()
        for image in images:
            image.rename(folder / "images" / image.name)
        (folder / "bee_boxes.txt").write_text("0000.png 0 0 8 8")  # as in Tiny ImageNet
    found = class_folders(split_folder, tmp_path)
    assert _sizes(found)["train"] == 12
    assert (split_folder / "val/bee/images/0000.png", 1) in found.files["validation"]


@pytest.mark.parametrize(("fraction", "count"), [(None, 2), (0.3, 3), (0.01, 1), (0.99, 9)])
def test_folder_of_classes_is_split_by_class(class_folder, tmp_path, fraction, count):
    pictures = _load(class_folder, tmp_path, test_fraction=fraction)
    assert np.bincount(pictures.test.labels).tolist() == [count] * 3
    assert np.bincount(pictures.train.labels).tolist() == [10 - count] * 3
    assert any("dataset.test_fraction" in note for note in pictures.notes)


def test_split_by_class_stays_when_images_are_added(class_folder, tmp_path):
    def held_out():
        found = with_test_split(class_folders(class_folder, tmp_path), 0.3)
        return {found.name(path) for path, _ in found.files["test"]}

    before = held_out()
    assert held_out() == before
    draw(tmp_path, ("bee",), {"photos": 11})
    assert len(held_out() ^ before) <= 2  # one image moves at most
    assert {name for name in held_out() if "bee" not in name} == {
        name for name in before if "bee" not in name
    }


def test_class_with_a_single_image_cannot_be_split(class_folder, tmp_path):
    for path in sorted((class_folder / "cow").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="'cow'"):
        _load(class_folder, tmp_path)


@pytest.mark.parametrize("name", ["split", "digits"])
def test_fraction_is_refused_if_there_is_a_test_split(split_folder, tmp_path, name):
    name = f"folder:{split_folder}" if name == "split" else name
    with pytest.raises(UserError, match=r"dataset\.test_fraction"):
        data.load(name, data_dir=tmp_path / "tfds", test_fraction=0.5)


def test_folders_within_classes_are_refused(class_folder, tmp_path):
    (class_folder / "ant" / "more").mkdir()
    with pytest.raises(UserError, match=r"ant/more: .*train"):
        class_folders(class_folder, tmp_path)


def test_train_alone_is_refused_with_the_name_that_splits_it(split_folder, tmp_path):
    shutil.rmtree(split_folder / "val")
    shutil.rmtree(split_folder / "test")
    with pytest.raises(UserError, match=r"split/test: .*folder:.*split/train"):
        class_folders(split_folder, tmp_path)
    assert len(_load(split_folder / "train", tmp_path).test) == 3


def _table(path, rows, columns="path,label,split"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def test_table_names_paths_labels_and_splits(split_folder):
    table = _table(
        split_folder / "labels.csv",
        [
            "train/ant/0000.png,insect,train",
            '"train/cow/0000.png","mammal, large",train',
            "train/bee/0001.png,insect,Val",
            "test/ant/0000.png,insect,test",
        ],
    )
    found = label_table(table)
    assert found.classes == ("insect", "mammal, large")
    assert found.files == {
        "train": [
            (split_folder / "train/ant/0000.png", 0),
            (split_folder / "train/cow/0000.png", 1),
        ],
        "validation": [(split_folder / "train/bee/0001.png", 0)],
        "test": [(split_folder / "test/ant/0000.png", 0)],
    }


def test_table_without_splits_is_split_by_class(class_folder, tmp_path):
    rows = [f"{path},{path.parent.name}" for path in sorted(class_folder.rglob("*.png"))]
    table = _table(tmp_path / "labels.csv", rows, "path,label")
    pictures = _load(table, tmp_path)
    assert pictures.class_names == CLASSES
    assert np.bincount(pictures.test.labels).tolist() == [2, 2, 2]
    pixels = {image.tobytes() for image in pictures.train.images}
    assert not pixels & {image.tobytes() for image in pictures.test.images}


def test_numbers_as_labels_are_in_numerical_order(class_folder):
    rows = [f"ant/{k:04}.png,{k}" for k in range(10)] + ["bee/0000.png,10"]
    found = label_table(_table(class_folder / "labels.csv", rows, "path,label"))
    assert found.classes == tuple(map(str, range(11)))


@pytest.mark.parametrize(
    ("rows", "columns", "named"),
    [  # what the message names, after the table
        (["ant/0000.png,ant"], "file,label", "line 1: .*path"),
        (["ant/0000.png"], "path", "line 1: .*label"),
        (["ant/0000.png,a,train", "bee/0000.png,b"], "path,label,split", "line 3: "),
        (["ant/0000.png,a,train,x"], "path,label,split", "line 2: "),
        (["ant/0000.png,,train"], "path,label,split", "line 2: .*label"),
        ([",a,train"], "path,label,split", "line 2: .*path"),
        (["ant/0000.png,a,trian"], "path,label,split", "line 2: .*'trian'"),
        (["ant/gone.png,a,train"], "path,label,split", r"line 2: .*gone\.png"),
        (["ant/0000.png,a", "./ant/0000.png,b"], "path,label", r"line 3: .*0000\.png .*line 2"),
        (["notes.txt,a"], "path,label", r"notes\.txt: "),
        (["ant/0000.png,a,train", "bee/0000.png,b,test"], "path,label,split", "'b'"),
        (["ant/0000.png,a"], "path,label", "at least 2"),
        (['"ant/0000.png,a'], "path,label", "CSV"),
        ([], "path,label", "at least 2"),
    ],
)
def test_wrong_table_is_refused_by_line(class_folder, rows, columns, named):
    (class_folder / "notes.txt").write_text("moo")
    with pytest.raises(UserError, match=rf"labels\.csv: .*{named}") as error:
        label_table(_table(class_folder / "labels.csv", rows, columns))
    assert "\n" not in str(error.value)


def test_missing_or_binary_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: "):
        label_table(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"binary\.csv: "):
        label_table(tmp_path / "binary.csv")


def test_classes_of_different_sizes_are_reported(class_folder, tmp_path):
    assert not any("from" in note for note in _load(class_folder, tmp_path).notes)
    draw(tmp_path, ("bee",), {"photos": 20})
    notes = _load(class_folder, tmp_path).notes
    (note,) = (note for note in notes if "8 (ant) to 16 (bee)" in note)
    assert "distill.class_weights" in note
