"""What TensorBoard shows."""

import io

import tensorflow as tf


class Summaries:
    """Writes TensorBoard events into `folder`; None for nowhere."""

    def __init__(self, folder):
        self._writer = (
            tf.summary.create_file_writer(str(folder))
            if folder
            else tf.summary.create_noop_writer()
        )

    def scalars(self, values, step):
        """{name: number}."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def text(self, name, text, step=0):
        """A text, shown as it is, line by line."""
        with self._writer.as_default(step):
            tf.summary.text(name, "\n".join("    " + line for line in text.splitlines()))
        self._writer.flush()

    def figure(self, name, figure, step):
        """A matplotlib figure, as a picture."""
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100)
        with self._writer.as_default(step):
            tf.summary.image(name, tf.image.decode_png(png.getvalue(), 4)[tf.newaxis])
        self._writer.flush()
