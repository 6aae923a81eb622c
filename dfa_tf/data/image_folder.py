"""Any folder of images as a set of TensorFlow Datasets, prepared once."""

import dataclasses
import hashlib
import pathlib
import re

import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from dfa_tf.data.class_folders import ClassFolders, class_folders, encoded_image
from dfa_tf.errors import UserError

PREFIX = "folder:"


@dataclasses.dataclass(eq=False)
class Contents(tfds.core.BuilderConfig):
    """folders: what the set is made of. size: (height, width) of all images, None where it varies."""

    folders: ClassFolders | None = dataclasses.field(default=None, repr=False)
    size: tuple = (None, None)


with tfds.core.registered.skip_registration():

    class ImageFolder(tfds.core.GeneratorBasedBuilder):
        """The images of a Contents, checked as they are read."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            contents = self.builder_config
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"Images of {contents.folders.root}",
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(*contents.size, 3)),
                        "label": tfds.features.ClassLabel(names=contents.folders.classes),
                    }
                ),
                supervised_keys=("image", "label"),
                metadata=tfds.core.MetadataDict(),  # a digest of each part's files
            )

        def _split_generators(self, dl_manager):
            folders = self.builder_config.folders
            return {
                split: self._generate_examples(split, folders.root, files)
                for split, files in folders.files.items()
            }

        def _generate_examples(self, split, root, files):
            digest = hashlib.sha256()
            for path, label in files:
                encoded, _ = encoded_image(path)
                digest.update(hashlib.sha256(encoded).digest())
                yield str(path.relative_to(root)), {"image": encoded, "label": label}
            self.info.metadata[split] = digest.hexdigest()[:8]


def image_folder(source, data_dir=None):
    """The builder of the folder or archive `source`, see `class_folders`.

    data_dir: where it is prepared, once for each state of the folder; TFDS's by default.
    Raises UserError, naming the place, for what is no folder of images by class.
    """
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folders = class_folders(source, data_dir / "downloads" / "extracted")
    slug = re.sub(r"\W+", "_", folders.root.name).strip("_") or "images"
    name = f"{slug}_{folders.state}"
    place = data_dir / "image_folder" / name / "1.0.0"
    if (place / "dataset_info.json").exists():
        return tfds.builder_from_directory(place)
    contents = Contents(name=name, folders=folders, size=_common_size(folders))
    return ImageFolder(config=contents, data_dir=data_dir)


def _common_size(folders):
    """(height, width) that all images have, (None, None) where they differ."""
    sizes = set()
    for files in folders.files.values():
        for path, _ in files:
            try:
                with Image.open(path) as image:
                    sizes.add((image.height, image.width))
            except (OSError, UnidentifiedImageError) as error:
                raise UserError(f"{path} is damaged, or no image") from error
            if len(sizes) > 1:
                return None, None
    return sizes.pop()
