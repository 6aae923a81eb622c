"""CINIC-10's builder: TFDS's conformance checks on generated images, and invalid sources."""

import pathlib
import shutil
import tempfile

import pytest
import requests
import tensorflow_datasets as tfds

from dfa_tf import data
from dfa_tf.data import cinic10, tfds_dataset
from dfa_tf.data.cinic10 import CLASSES, Cinic10
from dfa_tf.errors import UserError
from tests.conftest import ROOT
from tests.data.drawn import draw

SAMPLE = ROOT.parent / "shared" / "data" / "cinic10_sample.tar.gz"
COUNTS = {"train": 2, "valid": 2, "test": 2}

with tfds.core.registered.skip_registration():

    class SmallCinic10(Cinic10):
        """CINIC-10 with two images per class and split."""

        name = "cinic10"
        images_per_class = 2


class TestBuilder(tfds.testing.DatasetBuilderTestCase):
    """TFDS's conformance checks, on generated images."""

    DATASET_CLASS = SmallCinic10
    SPLITS = {"train": 20, "validation": 20, "test": 20}  # noqa: RUF012
    SKIP_CHECKSUMS = True

    @classmethod
    def setUpClass(cls):
        cls.EXAMPLE_DIR = pathlib.Path(tempfile.mkdtemp())
        draw(cls.EXAMPLE_DIR, CLASSES, COUNTS, size=(32, 32))
        # TFDS's test case replaces the download. The reachability check must not need a network.
        cls.head, requests.head = requests.head, lambda *_, **__: None
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        requests.head = cls.head
        shutil.rmtree(cls.EXAMPLE_DIR)
        super().tearDownClass()


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "CINIC-10", CLASSES, COUNTS, size=(32, 32))
    (tmp_path / "CINIC-10" / "README.md").write_text("as in the archive")
    return tmp_path / "CINIC-10"


def _prepare(tmp_path, source=None):
    builder = SmallCinic10(source=source, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    return builder


def test_folder_and_archive_give_the_same_examples(folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", folder)
    examples = []
    for k, source in enumerate((folder, archive)):
        builder = _prepare(tmp_path / str(k), source)
        pairs = tfds.as_numpy(builder.as_dataset(split="train+validation+test"))
        examples.append([(pair["label"], pair["image"].tobytes()) for pair in pairs])
    assert examples[0] == examples[1]
    assert len(examples[0]) == 60


def test_archive_in_tfds_manual_folder_is_used(folder, tmp_path):
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    shutil.make_archive(str(manual / "CINIC-10"), "gztar", folder)
    assert _prepare(tmp_path).info.splits["validation"].num_examples == 20


def test_wrong_image_count_is_reported_with_its_folder(folder, tmp_path):
    (folder / "valid/frog/0001.png").unlink()
    with pytest.raises(UserError, match=r"valid/frog: .*\b2\b.*\b1\b"):
        _prepare(tmp_path, folder)


def test_class_outside_of_the_ten_is_refused(folder, tmp_path):
    for split in COUNTS:
        (folder / split / "frog").rename(folder / split / "zebra")
    with pytest.raises(UserError, match=r"train/frog: .*missing"):
        _prepare(tmp_path, folder)


def test_image_of_another_size_is_refused(folder, tmp_path):
    draw(folder, ("ship",), {"test": 1}, size=(32, 31))
    with pytest.raises(UserError, match=r"test/ship/0000\.png: .*32x31"):
        _prepare(tmp_path, folder)


def test_unreachable_source_is_refused(tmp_path, monkeypatch):
    def head(*_, **__):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    with pytest.raises(UserError, match=r"dataset\.source"):
        data.load("cinic10", data_dir=tmp_path)


def test_statistics_are_the_authors_values():
    assert tfds_dataset.STATISTICS["cinic10"] == cinic10.STATISTICS
    assert cinic10.STATISTICS[0] == (0.47889522, 0.47227842, 0.43047404)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample of CINIC-10 is not available")
def test_sample_of_real_images_loads_as_a_folder_but_not_as_cinic10(tmp_path):
    with pytest.raises(UserError, match=r"9,000.*\b22\d\b.*dataset\.name='folder:"):
        data.load("cinic10", source=str(SAMPLE), data_dir=tmp_path)
    sample = data.load(f"folder:{SAMPLE}", data_dir=tmp_path)
    assert sample.class_names == CLASSES
    assert [len(part) for part in (*sample.search_split(0), sample.test)] == [2282, 2281, 2274]
    assert sample.mean == pytest.approx(cinic10.STATISTICS[0], abs=0.01)
    assert sample.std == pytest.approx(cinic10.STATISTICS[1], abs=0.01)
