"""TensorBoard events."""

import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.figure
import tensorflow as tf

from dfa_tf.errors import first_line
from dfa_tf.figures import make_literal
from dfa_tf.progress import print_line


class Summaries:
    """Writes TensorBoard events.

    Args:
        folder: Folder of the event file; None to write nothing.
    """

    def __init__(self, folder: pathlib.Path | None):
        self._writes = folder is not None
        self._writer = (
            tf.summary.create_file_writer(str(folder))
            if folder
            else tf.summary.create_noop_writer()
        )

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Writes the scalars `{name: value}`."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Writes a text as preformatted lines."""
        with self._writer.as_default(step):
            tf.summary.text(name, "\n".join("    " + line for line in text.splitlines()))
        self._writer.flush()

    def figure(self, name: str, make: Callable[[], matplotlib.figure.Figure], step: int) -> None:
        """Writes a matplotlib figure as an image. A figure that cannot be drawn is left out."""
        if not self._writes:
            return
        png = io.BytesIO()
        try:
            figure = make()
            make_literal(figure)
            figure.savefig(png, format="png", dpi=100)
        except Exception as error:
            print_line(f"{name}: cannot be drawn ({first_line(error)})")
            return
        with self._writer.as_default(step):
            tf.summary.image(name, tf.image.decode_png(png.getvalue(), 4)[tf.newaxis])
        self._writer.flush()
