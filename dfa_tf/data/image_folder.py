"""A folder or a table of images as a data set of TensorFlow Datasets."""

import dataclasses
import hashlib
import os
import pathlib
import re

import tensorflow_datasets as tfds

from dfa_tf.data.class_folders import class_folders
from dfa_tf.data.image_files import image_size, read_image
from dfa_tf.data.label_table import SUFFIX, label_table
from dfa_tf.data.labelled_files import LabelledFiles, with_test_split
from dfa_tf.errors import UserError
from dfa_tf.progress import with_progress

PREFIX = "folder:"
VERSION = "1.2.0"  # of the prepared data: 1.1.0 had no random access, 1.0.0 photos not upright


@dataclasses.dataclass(eq=False)
class ImageFolderConfig(tfds.core.BuilderConfig):
    """Contents of an `ImageFolder`.

    Args:
        found: The image files.
        size: (height, width) of all images; (None, None) if sizes differ.
    """

    found: LabelledFiles | None = dataclasses.field(default=None, repr=False)
    size: tuple[int | None, int | None] = (None, None)


with tfds.core.registered.skip_registration():

    class ImageFolder(tfds.core.GeneratorBasedBuilder):
        """Images of an `ImageFolderConfig`. Each file is checked when it is read."""

        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            config = self.builder_config
            return tfds.core.DatasetInfo(
                builder=self,
                description="\n".join([f"Images of {config.found.root}", *config.found.notes]),
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(*config.size, 3)),
                        "label": tfds.features.ClassLabel(names=config.found.classes),
                    }
                ),
                supervised_keys=("image", "label"),
                metadata=tfds.core.MetadataDict(),  # maps each split to a digest of its files
            )

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split, files)
                for split, files in self.builder_config.found.files.items()
            }

        def _generate_examples(self, split, files):
            digest = hashlib.sha256()
            for path, label in with_progress(f"preparing {split}", files, len(files), lambda _: 1):
                encoded, _ = read_image(path)
                digest.update(hashlib.sha256(encoded).digest())
                yield self.builder_config.found.name(path), {"image": encoded, "label": label}
            self.info.metadata[split] = digest.hexdigest()[:8]


def image_folder(
    source: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    test_fraction: float | None = None,
) -> tfds.core.DatasetBuilder:
    """Builds the TFDS builder of a folder or a table of images.

    Args:
        source: A folder, an archive of one, see `class_folders`, or a CSV file, see `label_table`.
        data_dir: Folder of prepared data sets, TFDS's own by default. Each state of `source` is
            prepared there once.
        test_fraction: See `with_test_split`.

    Returns:
        A builder, whose data may already be prepared. `notes` reads what the user should know.

    Raises:
        UserError: If `source` does not have one of these layouts, or an image is damaged.
    """
    if not str(source):
        raise UserError("dataset.name: expected 'folder:PATH', got 'folder:'; add the path")
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    images = pathlib.Path(source).expanduser().resolve()
    if str(source) and data_dir.resolve().is_relative_to(images):
        raise UserError(
            f"--data_dir: expected a folder outside of the images in {images}, got {data_dir}"
        )
    if str(source).lower().endswith(SUFFIX):
        found = label_table(source)
    else:
        found = class_folders(source, data_dir / "downloads" / "extracted")
    found = with_test_split(found, test_fraction)
    slug = re.sub(r"\W+", "_", found.root.name).strip("_") or "images"
    name = f"{slug}_{found.state}"
    prepared = data_dir / "image_folder" / name / VERSION
    if (prepared / "dataset_info.json").exists():
        return tfds.builder_from_directory(prepared)
    config = ImageFolderConfig(name=name, found=found, size=_common_size(found))
    return ImageFolder(config=config, data_dir=data_dir)


def notes(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Returns the notes on the splits of an image folder, each a line."""
    return tuple(builder.info.description.splitlines()[1:])


def _common_size(found):
    """Returns the (height, width) of all images, or (None, None) if sizes differ."""
    sizes = set()
    for files in found.files.values():
        for path, _ in files:
            sizes.add(image_size(path))
            if len(sizes) > 1:
                return None, None
    return sizes.pop()
