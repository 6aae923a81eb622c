"""A folder of images as a data set of TensorFlow Datasets."""

import dataclasses
import hashlib
import os
import pathlib
import re

import tensorflow_datasets as tfds

from dfa_tf.data.class_folders import ClassFolders, class_folders
from dfa_tf.data.image_files import image_size, read_image
from dfa_tf.errors import UserError

PREFIX = "folder:"


@dataclasses.dataclass(eq=False)
class ImageFolderConfig(tfds.core.BuilderConfig):
    """Contents of an `ImageFolder`.

    Args:
        folders: The image files.
        size: (height, width) of all images; (None, None) if sizes differ.
    """

    folders: ClassFolders | None = dataclasses.field(default=None, repr=False)
    size: tuple[int | None, int | None] = (None, None)


with tfds.core.registered.skip_registration():

    class ImageFolder(tfds.core.GeneratorBasedBuilder):
        """Images of an `ImageFolderConfig`. Each file is checked when it is read."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            config = self.builder_config
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"Images of {config.folders.root}",
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(*config.size, 3)),
                        "label": tfds.features.ClassLabel(names=config.folders.classes),
                    }
                ),
                supervised_keys=("image", "label"),
                metadata=tfds.core.MetadataDict(),  # maps each split to a digest of its files
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
                encoded, _ = read_image(path)
                digest.update(hashlib.sha256(encoded).digest())
                yield str(path.relative_to(root)), {"image": encoded, "label": label}
            self.info.metadata[split] = digest.hexdigest()[:8]


def image_folder(
    source: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """Builds the TFDS builder of a folder of images.

    Args:
        source: The folder, or an archive of one, see `class_folders`.
        data_dir: Folder of prepared data sets, TFDS's own by default. Each state of `source` is
            prepared there once.

    Returns:
        A builder, whose data may already be prepared.

    Raises:
        UserError: If `source` is not a folder of images by split and class, or an image is
            damaged.
    """
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    images = pathlib.Path(source).expanduser().resolve()
    if str(source) and data_dir.resolve().is_relative_to(images):
        raise UserError(
            f"--data_dir: expected a folder outside of the images in {images}, got {data_dir}"
        )
    folders = class_folders(source, data_dir / "downloads" / "extracted")
    slug = re.sub(r"\W+", "_", folders.root.name).strip("_") or "images"
    name = f"{slug}_{folders.state}"
    prepared = data_dir / "image_folder" / name / "1.0.0"
    if (prepared / "dataset_info.json").exists():
        return tfds.builder_from_directory(prepared)
    config = ImageFolderConfig(name=name, folders=folders, size=_common_size(folders))
    return ImageFolder(config=config, data_dir=data_dir)


def _common_size(folders):
    """Returns the (height, width) of all images, or (None, None) if sizes differ."""
    sizes = set()
    for files in folders.files.values():
        for path, _ in files:
            sizes.add(image_size(path))
            if len(sizes) > 1:
                return None, None
    return sizes.pop()
