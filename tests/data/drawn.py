"""Image folders for tests."""

import numpy as np
import tensorflow as tf


def draw(folder, classes, counts, size=(8, 8)):
    """Writes FOLDER/SPLIT/CLASS/0000.png and so on: noise whose brightness depends on the class.

    Args:
        folder: Folder to write to.
        classes: Class names.
        counts: Maps each split to its number of images per class.
        size: (height, width).
    """
    draws = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            level = 40 + 150 * label / len(classes)
            for k in range(count):
                pixels = np.clip(draws.normal(level, 20, (*size, 3)), 0, 255).astype(np.uint8)
                path = folder / split / name / f"{k:04}.png"
                path.write_bytes(tf.io.encode_png(pixels).numpy())
