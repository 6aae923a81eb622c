"""What a person would rather look at than read."""

from dfa_tf.figures.accuracy import accuracy_bars, accuracy_curves
from dfa_tf.figures.alpha import alpha_heatmap, alpha_heatmaps, alpha_trajectories

__all__ = [
    "accuracy_bars",
    "accuracy_curves",
    "alpha_heatmap",
    "alpha_heatmaps",
    "alpha_trajectories",
    "save",
]


def save(figure, folder, name, dpi=150):
    """Writes FOLDER/name.png and .pdf."""
    from dfa_tf.files import replacing

    for suffix in ("png", "pdf"):
        with replacing(folder / f"{name}.{suffix}") as part:
            figure.savefig(part, dpi=dpi)
