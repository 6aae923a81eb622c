"""Prepared data sets: read by index, and their labels stored beside them."""

import itertools
import json
import re

import numpy as np
import pytest

from dfa_tf import data
from tests.data.drawn import draw

CLASSES = ("dark", "grey", "light")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder / "images", CLASSES, {"train": 9, "validation": 2, "test": 3})
    return folder


def _load(drawn, **settings):
    return data.load(f"folder:{drawn / 'images'}", drawn / "data", **settings)


def _labels_files(drawn):
    return sorted((drawn / "data" / "image_folder").rglob("labels.*.npy"))


def test_folder_on_disk_has_the_batches_of_the_folder_in_memory(drawn):
    memory, disk = (_load(drawn, in_memory=held) for held in (True, False))
    assert isinstance(memory.train, data.Examples)
    assert isinstance(disk.train, data.IndexedExamples)
    for split in ("train", "test"):
        one, other = getattr(memory, split), getattr(disk, split)
        assert one.description == other.description
        batches = zip(one.shuffled(5, 2, 1), other.shuffled(5, 2, 1), strict=False)
        for (mine, my_labels), (theirs, their_labels) in itertools.islice(batches, 6):
            np.testing.assert_array_equal(mine, theirs)
            np.testing.assert_array_equal(my_labels, their_labels)
    assert np.bincount(disk.train.labels).tolist() == [9, 9, 9]
    assert [len(part) for part in disk.official_splits] == [27, 6]


def test_labels_are_read_once(drawn):
    expected = _load(drawn, in_memory=False).test.labels
    files = _labels_files(drawn)
    assert [file.name for file in files] == ["labels.test.npy", "labels.train+validation.npy"]
    times = [file.stat().st_mtime_ns for file in files]
    np.testing.assert_array_equal(_load(drawn, in_memory=False).test.labels, expected)
    assert [file.stat().st_mtime_ns for file in files] == times


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: content.replace(b"<i4", b"<f4"),
        lambda content: content[:10] + b"\x4c" + content[11:],  # a TokenError of Python
        lambda content: content[:-4] + b"\xff\xff\xff\x7f",  # a class that does not exist
    ],
    ids=["cut short", "empty", "floats", "header", "unknown class"],
)
def test_damaged_labels_are_read_again(drawn, damage):
    expected = _load(drawn, in_memory=False).test.labels
    file = _labels_files(drawn)[0]
    content = file.read_bytes()
    file.write_bytes(damage(content))
    np.testing.assert_array_equal(_load(drawn, in_memory=False).test.labels, expected)
    assert file.read_bytes() == content


def test_read_only_folder_needs_no_stored_labels(drawn, monkeypatch):
    expected = _load(drawn, in_memory=False).test.labels

    def refuse(path):
        raise PermissionError(path)

    for file in _labels_files(drawn):
        file.unlink()
    monkeypatch.setattr("dfa_tf.files.replacing", refuse)
    np.testing.assert_array_equal(_load(drawn, in_memory=False).test.labels, expected)
    assert not _labels_files(drawn)


@pytest.mark.parametrize("damage", [None, "{", '{"mean": 1}', "[]", '{"other": [[NaN]]}'])
def test_statistics_are_measured_once(drawn, damage, monkeypatch):
    expected = _load(drawn, in_memory=True)
    (first,) = {_load(drawn, in_memory=False).mean}
    np.testing.assert_allclose(first, expected.mean, rtol=1e-12)
    (file,) = (drawn / "data" / "image_folder").rglob("statistics.json")
    if damage is not None:
        file.write_text(damage)
        assert _load(drawn, in_memory=False).std == expected.std
    other = _load(drawn, in_memory=False, train_fraction=0.5)
    monkeypatch.setattr("dfa_tf.data.tfds_dataset.pixel_statistics", None)
    again = _load(drawn, in_memory=False)
    assert (again.mean, again.std) == (expected.mean, expected.std)
    assert other.mean == again.mean  # those of all training images


def test_senseless_statistics_are_measured_again(drawn):
    expected = _load(drawn, in_memory=False)
    (file,) = (drawn / "data" / "image_folder").rglob("statistics.json")
    stored = json.loads(file.read_text())
    for senseless in ([[5000] * 3, [0.2] * 3], [["123"] * 3] * 2, [[0.5], [0.5]]):
        file.write_text(json.dumps(dict.fromkeys(stored, senseless)))
        assert _load(drawn, in_memory=False).mean == expected.mean


def test_damaged_records_name_their_folder(tmp_path):
    draw(tmp_path / "images", CLASSES, {"train": 20, "test": 3})
    dataset = data.load(f"folder:{tmp_path / 'images'}", tmp_path / "data", in_memory=False)
    for records in (tmp_path / "data" / "image_folder").rglob("*-train.array_record*"):
        content = records.read_bytes()
        records.write_bytes(content[:100] + bytes(len(content) - 100))
    with pytest.raises(Exception, match=f"UserError: {re.escape(str(records.parent))}"):
        list(dataset.train.in_order(10))
