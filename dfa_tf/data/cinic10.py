"""CINIC-10 [Darlow et al. 2018] as a builder for TensorFlow Datasets, which does not include it."""

import os
import pathlib

import requests
import tensorflow_datasets as tfds

from dfa_tf.data.class_folders import class_folders
from dfa_tf.data.image_files import read_image
from dfa_tf.errors import UserError
from dfa_tf.progress import with_progress

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
ARCHIVE = "CINIC-10.tar.gz"
CLASSES: tuple[str, ...] = ("airplane", "automobile", "bird", "cat", "deer")
CLASSES += ("dog", "frog", "horse", "ship", "truck")
# Mean and standard deviation per channel, as fractions of 255, from the authors' repository.
STATISTICS = (
    (0.47889522, 0.47227842, 0.43047404),
    (0.24205776, 0.23828046, 0.25874835),
)


class Cinic10(tfds.core.GeneratorBasedBuilder):
    """270,000 images of 32x32 pixels in ten classes, from CIFAR-10 and ImageNet.

    The splits are train, validation and test. Preparing the data raises `UserError` if a folder
    is missing or unexpected, a class does not have 9,000 images, or an image is damaged.

    Args:
        source: The archive, or the folder it was unpacked to. None to use CINIC-10.tar.gz or
            CINIC-10 in DATA_DIR/downloads/manual, or to download the archive if both are missing.
        **kwargs: Arguments of `tfds.core.DatasetBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    images_per_class = 9000  # in each split

    def __init__(self, *, source: str | os.PathLike | None = None, **kwargs):
        self._source = source
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="CIFAR-10's classes from CIFAR-10 and ImageNet, in three equal parts.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/BayesWatch/cinic-10",
            citation="""@article{darlow2018cinic,
              title={CINIC-10 is not ImageNet or CIFAR-10},
              author={Darlow, Luke N and Crowley, Elliot J and Antoniou, Antreas and Storkey, Amos J},
              journal={arXiv preprint arXiv:1810.03505}, year={2018}}""",
        )

    def _split_generators(self, dl_manager):
        downloads = pathlib.Path(self.data_dir_root) / "downloads"
        source = self._source or self._manual_download(downloads) or self._download(dl_manager)
        folders = class_folders(source, downloads / "extracted")
        self._check(folders)
        return {
            split: self._generate_examples(folders.root, files)
            for split, files in folders.files.items()
        }

    def _generate_examples(self, root, files):
        for path, label in with_progress("preparing", files, len(files), lambda _: 1):
            encoded, (height, width) = read_image(path)
            if (height, width) != (32, 32):
                raise UserError(
                    f"{path}: expected an image of 32x32 pixels, got {height}x{width}; replace the file"
                )
            yield str(path.relative_to(root)), {"image": encoded, "label": CLASSES[label]}

    def _manual_download(self, downloads):
        for name in (ARCHIVE, "CINIC-10"):
            if (downloads / "manual" / name).exists():
                return downloads / "manual" / name
        return None

    def _download(self, dl_manager):
        try:
            requests.head(URL, timeout=15, allow_redirects=True)
        except requests.exceptions.RequestException as error:
            raise UserError(
                f"cinic10 is not prepared in {self.data_dir_root} and {URL} cannot be reached; set dataset.source to the archive or its folder"
            ) from error
        return dl_manager.download(URL)

    def _check(self, folders):
        if folders.classes != CLASSES:
            name = sorted(set(folders.classes) ^ set(CLASSES))[0]
            problem = "unexpected folder" if name in folders.classes else "folder is missing"
            raise UserError(
                f"{folders.root / 'train' / name}: {problem}; the classes of CINIC-10 are {', '.join(CLASSES)}"
            )
        for split, name in (("validation", "valid"), ("test", "test")):
            if split not in folders.files:
                raise UserError(
                    f"{folders.root / name}: folder is missing; CINIC-10 has train, valid and test"
                )
        for files in folders.files.values():
            for label in range(len(CLASSES)):
                paths = [path for path, file_label in files if file_label == label]
                if len(paths) != self.images_per_class:
                    raise UserError(
                        f"{paths[0].parent}: expected {self.images_per_class:,} images, got {len(paths):,}; get the full CINIC-10, or use the images as dataset.name='folder:{folders.root}'"
                    )
