"""CINIC-10 [Darlow et al. 2018] for TensorFlow Datasets, which has no builder of it."""

import pathlib

import requests
import tensorflow_datasets as tfds

from dfa_tf.data.class_folders import class_folders, encoded_image
from dfa_tf.errors import UserError

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
ARCHIVE = "CINIC-10.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer")
CLASSES += ("dog", "frog", "horse", "ship", "truck")
# As its authors give them: mean and deviation per channel, as fractions of 255.
STATISTICS = (
    (0.47889522, 0.47227842, 0.43047404),
    (0.24205776, 0.23828046, 0.25874835),
)


class Cinic10(tfds.core.GeneratorBasedBuilder):
    """270,000 images of 32x32 in ten classes, from CIFAR-10 and ImageNet: train, validation, test.

    source: the archive, or the folder it was unpacked to. Without one, CINIC-10.tar.gz or CINIC-10
    in DATA_DIR/downloads/manual is taken where it is there, else the archive is downloaded.
    Preparing raises UserError for a source that is damaged or not complete, by name.
    """

    VERSION = tfds.core.Version("1.0.0")
    images_per_class = 9000  # of each split

    def __init__(self, *, source=None, **kwargs):
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
        source = self._source or self._manual(downloads) or self._downloaded(dl_manager)
        found = class_folders(source, downloads / "extracted")
        self._check(found)
        return {
            split: self._generate_examples(found.root, files)
            for split, files in found.files.items()
        }

    def _generate_examples(self, root, files):
        for path, place in files:
            encoded, size = encoded_image(path)
            if size != (32, 32):
                raise UserError(f"{path} is an image of {size[0]}x{size[1]}, CINIC-10's are 32x32")
            yield str(path.relative_to(root)), {"image": encoded, "label": CLASSES[place]}

    def _manual(self, downloads):
        for name in (ARCHIVE, "CINIC-10"):
            if (downloads / "manual" / name).exists():
                return downloads / "manual" / name
        return None

    def _downloaded(self, dl_manager):
        try:
            requests.head(URL, timeout=15, allow_redirects=True)
        except requests.exceptions.RequestException as error:
            raise UserError(
                f"CINIC-10 is not prepared in {self.data_dir_root} and {URL} cannot be reached: name the archive or its folder with dataset.source"
            ) from error
        return dl_manager.download(URL)

    def _check(self, found):
        if found.classes != CLASSES:
            odd = sorted(set(found.classes) ^ set(CLASSES))[0]
            what = "unexpected" if odd in found.classes else "missing"
            raise UserError(f"{what} folder {found.root / 'train' / odd}: CINIC-10 has ten others")
        if "validation" not in found.files:
            raise UserError(f"{found.root} has no folder valid, which CINIC-10 has")
        for files in found.files.values():
            for place in range(len(CLASSES)):
                paths = [path for path, of in files if of == place]
                if len(paths) != self.images_per_class:
                    raise UserError(
                        f"{paths[0].parent} holds {len(paths):,} images, CINIC-10 {self.images_per_class:,}: get the whole, or learn this part as dataset.name='folder:{found.root}'"
                    )
