"""Folders of images by split and class: their contents, and errors that name the wrong file."""

import concurrent.futures
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dfa_tf import data
from dfa_tf.data.class_folders import class_folders
from dfa_tf.data.image_files import image_size, read_image
from dfa_tf.data.image_folder import VERSION
from dfa_tf.errors import UserError
from tests.conftest import ROOT
from tests.data.drawn import draw

COUNTS = {"train": 4, "valid": 3, "test": 2}


@pytest.fixture
def folder(tmp_path):
    """Classes ant, bee and cow with 4, 3 and 2 images each in train, valid and test."""
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
def test_validation_folder_has_several_accepted_names(folder, tmp_path, name):
    (folder / "valid").rename(folder / name)
    assert "validation" in _found(folder, tmp_path).files


@pytest.mark.parametrize("inside", [".", "CINIC-10"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_archive_is_unpacked_once(folder, tmp_path, kind, inside):
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
    image = first.root / "train/ant/0000.png"
    written = image.stat().st_mtime_ns
    assert _found(archive, tmp_path).root == first.root
    assert image.stat().st_mtime_ns == written
    (tmp_path / "other").mkdir()
    assert _found(archive, tmp_path / "other" / ".." / "data").classes == first.classes


def _tar(path, *members):
    with tarfile.open(path, "w") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def _member(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize("name", ["../outside.png", "train/../../outside.png", "{tmp}/outside.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archive_with_members_outside_its_folder_is_refused(tmp_path, kind, name):
    name = name.format(tmp=tmp_path)
    if kind == "tar":
        archive = _tar(tmp_path / "bad.tar", _member(name))
    else:
        archive = tmp_path / "bad.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, "x")
    with pytest.raises(UserError, match=rf"bad\.{kind}: .*outside\.png"):
        _found(archive, tmp_path / "inner")
    assert not list(tmp_path.rglob("outside.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archive_with_links_or_devices_is_refused(tmp_path, kind):
    """A chain of links leaves the folder on Pythons with CVE-2025-4517, whatever the filter."""
    members = [_member("link", kind, ".."), _member("link/outside.png")]
    archive = _tar(tmp_path / "bad.tar", *members)
    with pytest.raises(UserError, match=r"bad\.tar: .*'link'"):
        _found(archive, tmp_path / "inner")
    assert not list(tmp_path.rglob("outside.png"))
    assert not list((tmp_path / "inner").rglob("part_*"))


def test_long_chain_of_links_is_refused(tmp_path):
    """The form of the attack on CVE-2025-4517: paths longer than PATH_MAX resolve elsewhere."""
    folder, members = "d" * 247, []
    steps = "abcdefghijklmnop"
    path = ""
    for step in steps:
        members += [_member(f"{path}{folder}", tarfile.DIRTYPE)]
        members += [_member(f"{path}{step}", tarfile.SYMTYPE, folder)]
        path += f"{folder}/"
    link = "/".join(steps) + "/" + "l" * 254
    members += [_member(link, tarfile.SYMTYPE, "../" * len(steps))]
    members += [
        _member("escape", tarfile.SYMTYPE, f"{link}/../../.."),
        _member("escape/outside.png"),
    ]
    with pytest.raises(UserError, match=r"bad\.tar"):
        _found(_tar(tmp_path / "bad.tar", *members), tmp_path / "inner")
    assert not list(tmp_path.rglob("outside.png"))


def test_archive_is_unpacked_by_one_of_several_processes(folder, tmp_path):
    """The others wait and use its result. What a killed process left is deleted."""
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder))
    (tmp_path / "scratch" / "part_killed").mkdir(parents=True)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: _found(archive, tmp_path), range(20)))
    assert {each.root for each in found} == {found[0].root}
    assert all([len(files) for files in each.files.values()] == [6, 12, 9] for each in found)
    assert [path.name for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == [
        found[0].root.name
    ]


@pytest.mark.slow
def test_folder_is_prepared_by_one_of_two_processes(folder, tmp_path):
    """Both read the same data. What a killed process left is deleted."""
    code = "import sys; from dfa_tf import data\nprint(len(data.load(*sys.argv[1:]).train))\n"
    command = [sys.executable, "-c", code, f"folder:{folder}", str(tmp_path / "data")]
    for _ in range(2):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
        texts = [process.communicate(timeout=200) for process in processes]
        assert [out.split()[-1] for out, _ in texts] == ["12", "12"], texts
        assert sum("preparing dataset" in out for out, _ in texts) == 1
        (prepared,) = (tmp_path / "data/image_folder").glob(f"*/{VERSION}*")
        shutil.rmtree(prepared)
        (prepared.parent / f"{VERSION}.incompleteABC").mkdir()  # of a killed process


@pytest.mark.parametrize("name", ["a\nb", " ", "dog ", "\tcat", "bell\a"])
def test_class_name_that_would_shift_the_labels_is_refused(folder, tmp_path, name):
    for split in COUNTS:
        (folder / split / "bee").rename(folder / split / name)
    with pytest.raises(UserError, match="pictures/train: ") as error:
        _found(folder, tmp_path)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


def test_pipe_among_the_images_is_refused(folder, tmp_path):
    os.mkfifo(folder / "train/ant/x.png")
    with pytest.raises(UserError, match=r"train/ant/x\.png"):
        data.load(f"folder:{folder}", tmp_path / "data")


def test_decompression_bomb_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(UserError, match=r"\.png: .*damaged"):
        data.load(f"folder:{folder}", tmp_path / "data")


@pytest.mark.parametrize("inside", [".", "train", "prepared"])
def test_data_dir_among_the_images_is_refused(folder, inside):
    with pytest.raises(UserError, match="--data_dir"):
        data.load(f"folder:{folder}", folder / inside)
    assert not (folder / "image_folder").exists()


@pytest.mark.slow
def test_reading_needs_at_most_twice_the_size_of_the_images(tmp_path):
    """200 images of 500 x 500 pixels are 143 MiB."""
    for split, count in (("train", 90), ("test", 10)):
        for name in ("a", "b"):
            (tmp_path / "big" / split / name).mkdir(parents=True)
            image = Image.new("RGB", (500, 500), "red" if name == "a" else "blue")
            for k in range(count):
                image.save(tmp_path / "big" / split / name / f"{k}.png")
    code = (
        "import sys; from dfa_tf import data, system\n"
        "data.load(*sys.argv[1:3], in_memory=False)\n"  # prepares the data
        "before = system.peak_memory_since_reset(); system.reset_peak_memory()\n"
        "before = system.peak_memory_since_reset()\n"
        "data.load(*sys.argv[1:3], in_memory=True)\n"
        "print(system.peak_memory_since_reset() - before)\n"
    )
    command = [sys.executable, "-c", code, f"folder:{tmp_path / 'big'}", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.split()[-1]) < 2 * 200 * 500 * 500 * 3


def _invalidate(folder, how):
    """Makes the folder invalid. Returns the path that the error names."""
    if how == "class unexpected":
        (folder / "test/dog").mkdir()
        return "test/dog: .*unexpected.*ant, bee, cow"
    if how == "class missing":
        shutil.rmtree(folder / "valid/bee")
        return "valid/bee: .*missing"
    if how == "split unexpected":
        (folder / "extra").mkdir()
        return "extra: .*unexpected"
    if how == "split missing":
        shutil.rmtree(folder / "train")
        return "pictures/train: .*missing"
    if how == "split twice":
        shutil.copytree(folder / "valid", folder / "val")
        return "val(id)?: .*pictures/val(id)?;"
    if how == "class empty":
        shutil.rmtree(folder / "train/cow")
        (folder / "train/cow").mkdir()
        return "train/cow: "
    if how == "not an image":
        (folder / "train/cow/notes.txt").write_text("moo")
        return r"train/cow/notes\.txt: "
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    return r"pictures/train: .*\b0\b"


@pytest.mark.parametrize(
    "how",
    [
        *("class unexpected", "class missing", "split unexpected", "split missing"),
        *("split twice", "class empty", "not an image", "no classes"),
    ],
)
def test_error_names_the_invalid_folder_or_file(folder, tmp_path, how):
    name = _invalidate(folder, how)
    with pytest.raises(UserError, match=name):
        _found(folder, tmp_path)


@pytest.mark.parametrize(
    ("image_format", "suffix"), [("MPO", "jpg"), ("WEBP", "jpg"), ("TIFF", "png")]
)
def test_turned_photo_of_another_format_is_turned_upright(tmp_path, image_format, suffix):
    """Phones write MPO files: a JPEG image with further ones in the file."""
    picture = Image.new("RGB", (60, 40), "black")
    picture.paste("white", (0, 0, 60, 10))  # the upper edge, which is on the left when turned
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    more = {"save_all": True, "append_images": [picture]} if image_format == "MPO" else {}
    picture.save(tmp_path / f"photo.{suffix}", image_format, exif=exif, **more)
    encoded, size = read_image(tmp_path / f"photo.{suffix}")
    assert size == image_size(tmp_path / f"photo.{suffix}") == (60, 40)
    pixels = tf.io.decode_image(encoded).numpy()
    assert pixels[:, -8:].mean() > 240
    assert pixels[:, :28].mean() < 15


@pytest.mark.parametrize("orientation", [1, 3])
def test_grayscale_of_16_bits_keeps_its_brightness(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.full((8, 9), 0x8000, np.uint16))
    image.save(tmp_path / "deep.png", exif=exif)
    encoded, _ = read_image(tmp_path / "deep.png")
    assert (tf.io.decode_image(encoded, 3).numpy() == 0x80).all()


def test_link_to_a_missing_image_is_named(folder, tmp_path):
    (folder / "train/cow/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: .*link"):
        data.load(f"folder:{folder}", tmp_path / "data")


def test_zip_file_of_another_kind_is_not_unpacked(tmp_path):
    """A .keras file is a zip file, too."""
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(UserError, match=r"net\.keras: .*\.zip"):
        _found(tmp_path / "net.keras", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_missing_folder_and_truncated_archive_are_refused(tmp_path):
    with pytest.raises(UserError, match="gone: "):
        _found(tmp_path / "gone", tmp_path)
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 no more")
    with pytest.raises(UserError, match=r"cut\.tar\.gz: "):
        _found(tmp_path / "cut.tar.gz", tmp_path)


def test_hidden_files_are_ignored(folder, tmp_path):
    (folder / "train/ant/.DS_Store").write_text("")
    (folder / "__MACOSX").mkdir()
    (folder / ".git").mkdir()
    assert len(_found(folder, tmp_path).files["train"]) == 12


def test_state_changes_when_a_file_changes(folder, tmp_path):
    before = _found(folder, tmp_path).state
    assert _found(folder, tmp_path).state == before
    (folder / "train/ant/0000.png").write_bytes((folder / "train/bee/0000.png").read_bytes())
    assert _found(folder, tmp_path).state != before


def test_error_names_the_damaged_or_missing_image(folder):
    path = folder / "train/ant/0001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"train/ant/0001\.png: .*damaged"):
        read_image(path)
    with pytest.raises(UserError, match=r"0009\.png: cannot be read"):
        read_image(path.with_name("0009.png"))


def _pixels(folder, tmp_path, **more):
    """The first training image of "ant", as it is trained on."""
    pictures = _load(folder, tmp_path, in_memory=True, **more)
    return pictures.train.images[pictures.train.labels == 0][0]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("gif", "P"), ("bmp", "P"), ("bmp", "RGB"), ("png", "P"), ("png", "L"), ("png", "RGBA")],
)
def test_images_of_all_formats_decode_to_their_rgb_pixels(tmp_path, suffix, mode):
    folder = tmp_path / "pictures"
    draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
    (folder / "train/ant/0000.png").unlink()
    colours = np.array([[[255, 0, 0], [0, 200, 0]], [[0, 0, 90], [250, 250, 250]]], np.uint8)
    image = Image.fromarray(colours.repeat(4, 0).repeat(4, 1)).convert(mode)
    image.save(folder / "train/ant" / f"picture.{suffix}")
    np.testing.assert_array_equal(_pixels(folder, tmp_path), np.asarray(image.convert("RGB")))


def test_animation_counts_as_its_first_frame_whatever_its_suffix(tmp_path):
    folder = tmp_path / "pictures"
    draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = folder / "train/ant/0000.png"
    first.save(path, "GIF", save_all=True, append_images=[second])
    assert _pixels(folder, tmp_path)[0, 0].tolist() == [255, 0, 0]


def test_folders_with_equal_names_and_file_times_are_distinguished(tmp_path):
    found = []
    for parent, level in (("here", 50), ("there", 150)):
        folder = tmp_path / parent / "pictures"
        draw(folder, ("ant", "bee"), {"train": 1, "test": 1})
        for path in folder.rglob("*.png"):
            Image.new("RGB", (8, 8), (level,) * 3).save(path, "BMP")
            os.utime(path, (0, 0))
        found.append(_pixels(folder, tmp_path).max())
    assert found == [50, 150]


def test_description_depends_on_the_contents_of_all_splits(folder, tmp_path):
    """It depends on pixels, not only on names and labels, and not on the folder's path."""
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
def test_folder_is_a_data_set_with_its_own_splits(folder, tmp_path, in_memory):
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
def test_train_with_validation_adds_the_validation_split(folder, tmp_path, in_memory):
    pictures = _load(folder, tmp_path, in_memory=in_memory, train_with_validation=True)
    assert len(pictures.train) == 21
    assert [len(part) for part in pictures.search_split(seed=0)] == [12, 9]


def test_train_fraction_applies_to_the_search_splits_too(folder, tmp_path):
    pictures = _load(folder, tmp_path, train_fraction=0.5)
    assert np.bincount(pictures.train.labels).tolist() == [2, 2, 2]
    assert [len(part) for part in pictures.search_split(seed=0)] == [6, 5]  # of 12 and 9


def test_folder_without_a_validation_part_is_cut_by_class(folder, tmp_path):
    shutil.rmtree(folder / "valid")
    train, validation = _load(folder, tmp_path, validation_fraction=0.25).search_split(seed=0)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(validation.labels).tolist() == [1, 1, 1]


def test_images_of_several_sizes_are_resized_to_image_size(folder, tmp_path):
    draw(folder, ("ant",), {"train": 5}, size=(12, 20))
    with pytest.raises(UserError, match=r"dataset\.image_size"):
        _load(folder, tmp_path)
    pictures = _load(folder, tmp_path, image_size=(16, 16))
    assert pictures.image_shape == (16, 16, 3)
    assert np.bincount(pictures.train.labels).tolist() == [5, 4, 4]


def test_damaged_image_is_refused_and_can_be_replaced(folder, tmp_path):
    path = folder / "test/cow/0000.png"
    complete = path.read_bytes()
    path.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(UserError, match=r"test/cow/0000\.png: .*damaged"):
        _load(folder, tmp_path)
    path.write_bytes(complete)
    assert len(_load(folder, tmp_path).test) == 6


def test_changed_folder_is_read_again(folder, tmp_path):
    assert len(_load(folder, tmp_path).train) == 12
    (folder / "train/ant/0003.png").unlink()
    assert len(_load(folder, tmp_path).train) == 11


def test_source_is_refused_except_for_cinic10(folder, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.source"):
        _load(folder, tmp_path, source="x")
    with pytest.raises(UserError, match=r"dataset\.source"):
        data.load("digits", source="x")
