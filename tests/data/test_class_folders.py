"""Folders of images by split and class: what is found there, and what is told by name."""

import io
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dfa_tf import data
from dfa_tf.data.class_folders import class_folders, encoded_image
from dfa_tf.errors import UserError
from tests.data.drawn import draw

COUNTS = {"train": 4, "valid": 3, "test": 2}


@pytest.fixture
def folder(tmp_path):
    """ant, bee and cow: 4, 3 and 2 images of each in train, valid and test."""
    draw(tmp_path / "pictures", ("ant", "bee", "cow"), COUNTS)
    return tmp_path / "pictures"


def _found(source, tmp_path):
    return class_folders(source, tmp_path / "scratch")


def test_files_are_found_by_split_and_class(folder, tmp_path):
    found = _found(folder, tmp_path)
    assert found.classes == ("ant", "bee", "cow")
    sizes = {split: len(files) for split, files in found.files.items()}
    assert sizes == {"train": 12, "validation": 9, "test": 6}
    assert found.files["test"][2] == (folder / "test/bee/0000.png", 1)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_validation_part_goes_by_its_other_names(folder, tmp_path, name):
    (folder / "valid").rename(folder / name)
    assert "validation" in _found(folder, tmp_path).files


@pytest.mark.parametrize("inside", [".", "CINIC-10"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_is_unpacked_once(folder, tmp_path, kind, inside):
    archive = tmp_path / f"pictures.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*.png")):
                file.write(path, f"{inside}/{path.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, inside)
    first = _found(archive, tmp_path)
    assert [len(files) for files in first.files.values()] == [6, 12, 9]
    place = first.root / "train/ant/0000.png"
    written = place.stat().st_mtime_ns
    assert _found(archive, tmp_path).root == first.root
    assert place.stat().st_mtime_ns == written


def test_archive_that_reaches_out_of_its_folder_is_refused(tmp_path):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as file:
        file.addfile(tarfile.TarInfo("../outside.png"), io.BytesIO())
    with pytest.raises(UserError, match=r"bad\.tar cannot be unpacked"):
        _found(archive, tmp_path)
    assert not (tmp_path / "outside.png").exists()


def _spoil(folder, how):
    """Does something wrong to the folder. Returns what is said of it."""
    if how == "class unexpected":
        (folder / "test/dog").mkdir()
        return "unexpected folder .*test/dog: the classes are ant, bee, cow"
    if how == "class missing":
        shutil.rmtree(folder / "valid/bee")
        return "missing folder .*valid/bee"
    if how == "split unexpected":
        (folder / "extra").mkdir()
        return "unexpected folder .*extra"
    if how == "split missing":
        shutil.rmtree(folder / "test")
        return "has no folder test"
    if how == "split twice":
        shutil.copytree(folder / "valid", folder / "val")
        return "the same split twice"
    if how == "class empty":
        shutil.rmtree(folder / "train/cow")
        (folder / "train/cow").mkdir()
        return "train/cow holds no image"
    if how == "no image":
        (folder / "train/cow/notes.txt").write_text("moo")
        return r"notes\.txt is no image"
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    return "train holds 0 folders"


@pytest.mark.parametrize(
    "how",
    [
        *("class unexpected", "class missing", "split unexpected", "split missing"),
        *("split twice", "class empty", "no image", "no classes"),
    ],
)
def test_what_is_wrong_is_told_by_name(folder, tmp_path, how):
    told = _spoil(folder, how)
    with pytest.raises(UserError, match=told):
        _found(folder, tmp_path)


def test_folder_or_archive_that_is_missing_or_cut_short_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no folder or archive"):
        _found(tmp_path / "gone", tmp_path)
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 no more")
    with pytest.raises(UserError, match=r"cut\.tar\.gz cannot be unpacked"):
        _found(tmp_path / "cut.tar.gz", tmp_path)


def test_hidden_files_are_passed_over(folder, tmp_path):
    (folder / "train/ant/.DS_Store").write_text("")
    (folder / "__MACOSX").mkdir()
    (folder / ".git").mkdir()
    assert len(_found(folder, tmp_path).files["train"]) == 12


def test_state_changes_with_a_file(folder, tmp_path):
    before = _found(folder, tmp_path).state
    assert _found(folder, tmp_path).state == before
    (folder / "train/ant/0000.png").write_bytes((folder / "train/bee/0000.png").read_bytes())
    assert _found(folder, tmp_path).state != before


def test_damaged_image_is_told_by_name(folder):
    path = folder / "train/ant/0001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"train/ant/0001\.png is damaged"):
        encoded_image(path)
    with pytest.raises(UserError, match=r"0009\.png cannot be read"):
        encoded_image(path.with_name("0009.png"))


def _pixels(folder, tmp_path, **more):
    """The first training image of "ant", as it is learnt from."""
    pictures = _load(folder, tmp_path, in_memory=True, **more)
    return pictures.train.images[pictures.train.labels == 0][0]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("gif", "P"), ("bmp", "P"), ("bmp", "RGB"), ("png", "P"), ("png", "L"), ("png", "RGBA")],
)
def test_images_are_what_they_look_like_whatever_their_format(tmp_path, suffix, mode):
    folder = tmp_path / "pictures"
    draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
    (folder / "train/ant/0000.png").unlink()
    colours = np.array([[[255, 0, 0], [0, 200, 0]], [[0, 0, 90], [250, 250, 250]]], np.uint8)
    image = Image.fromarray(colours.repeat(4, 0).repeat(4, 1)).convert(mode)
    image.save(folder / "train/ant" / f"picture.{suffix}")
    np.testing.assert_array_equal(_pixels(folder, tmp_path), np.asarray(image.convert("RGB")))


def test_animation_counts_as_its_first_picture_under_any_suffix(tmp_path):
    folder = tmp_path / "pictures"
    draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = folder / "train/ant/0000.png"
    first.save(path, "GIF", save_all=True, append_images=[second])
    assert _pixels(folder, tmp_path)[0, 0].tolist() == [255, 0, 0]


def test_folders_of_one_name_and_of_files_of_one_age_are_not_taken_for_each_other(tmp_path):
    found = []
    for place, level in (("here", 50), ("there", 150)):
        folder = tmp_path / place / "pictures"
        draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
        for path in folder.rglob("*.png"):
            Image.new("RGB", (8, 8), (level,) * 3).save(path, "BMP")
            os.utime(path, (0, 0))
        found.append(_pixels(folder, tmp_path).max())
    assert found == [50, 150]


def test_contents_tell_what_a_stage_has_learnt_from(folder, tmp_path):
    """Not the names and the labels alone: another test part is another set."""
    before = _load(folder, tmp_path).train.description
    path = folder / "test/ant/0000.png"
    path.write_bytes((folder / "test/bee/0000.png").read_bytes())
    after = _load(folder, tmp_path).train.description
    assert before != after
    shutil.copytree(folder, tmp_path / "copy")
    assert _load(tmp_path / "copy", tmp_path).train.description == after


def _load(folder, tmp_path, **more):
    return data.load(f"folder:{folder}", data_dir=tmp_path / "tfds", **more)


@pytest.mark.parametrize("in_memory", [True, False])
def test_folder_is_a_data_set_with_its_own_parts(folder, tmp_path, in_memory):
    pictures = _load(folder, tmp_path, in_memory=in_memory)
    assert pictures.class_names == ("ant", "bee", "cow")
    assert pictures.image_shape == (8, 8, 3)
    assert (len(pictures.train), len(pictures.test)) == (12, 6)
    train, validation = pictures.search_split(seed=0)
    assert (len(train), len(validation)) == (12, 9)
    for part, name in ((train, "train"), (validation, "valid"), (pictures.test, "test")):
        found = {
            (int(label), image.tobytes())
            for images, labels in part.in_order(4).as_numpy_iterator()
            for image, label in zip(images, labels, strict=True)
        }
        expected = {
            (k, tf.io.decode_png(path.read_bytes()).numpy().tobytes())
            for k, animal in enumerate(("ant", "bee", "cow"))
            for path in (folder / name / animal).iterdir()
        }
        assert found == expected


@pytest.mark.parametrize("in_memory", [True, False])
def test_students_may_learn_from_the_validation_part_too(folder, tmp_path, in_memory):
    pictures = _load(folder, tmp_path, in_memory=in_memory, train_with_validation=True)
    assert len(pictures.train) == 21
    assert [len(part) for part in pictures.search_split(seed=0)] == [12, 9]


def test_a_part_of_each_class_is_a_part_of_the_searchs_parts_too(folder, tmp_path):
    pictures = _load(folder, tmp_path, train_fraction=0.5)
    assert np.bincount(pictures.train.labels).tolist() == [2, 2, 2]
    assert [len(part) for part in pictures.search_split(seed=0)] == [6, 5]  # of 12 and 9


def test_folder_without_a_validation_part_is_cut_by_class(folder, tmp_path):
    shutil.rmtree(folder / "valid")
    train, validation = _load(folder, tmp_path, validation_fraction=0.25).search_split(seed=0)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(validation.labels).tolist() == [1, 1, 1]


def test_images_of_several_sizes_are_resized_to_the_configured_one(folder, tmp_path):
    draw(folder, ("ant",), {"train": 5}, size=(12, 20))
    with pytest.raises(UserError, match=r"bind dataset\.image_size"):
        _load(folder, tmp_path)
    pictures = _load(folder, tmp_path, image_size=(16, 16))
    assert pictures.image_shape == (16, 16, 3)
    assert np.bincount(pictures.train.labels).tolist() == [5, 4, 4]


def test_damaged_image_in_a_folder_is_told_and_nothing_is_left_prepared(folder, tmp_path):
    path = folder / "test/cow/0000.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"test/cow/0000\.png is damaged"):
        _load(folder, tmp_path)
    path.write_bytes(whole)
    assert len(_load(folder, tmp_path).test) == 6


def test_folder_that_has_changed_is_read_again(folder, tmp_path):
    assert len(_load(folder, tmp_path).train) == 12
    (folder / "train/ant/0003.png").unlink()
    assert len(_load(folder, tmp_path).train) == 11


def test_source_is_of_cinic10_alone(folder, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.source is of cinic10"):
        _load(folder, tmp_path, source="x")
    with pytest.raises(UserError, match=r"dataset\.source"):
        data.load("digits", source="x")
