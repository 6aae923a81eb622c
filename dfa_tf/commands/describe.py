"""`--describe`: the groups of teacher and student, before anything is trained."""

from dfa_tf.benchmark.flops import forward_flops
from dfa_tf.models.keras_graph import producer
from dfa_tf.models.network import Network
from dfa_tf.tables import table

SHOWN = 3  # names of layers in a row


def network_text(role: str, network: Network) -> str:
    """Returns a network's size and a table of its groups.

    Args:
        role: "teacher" or "student".
        network: The network.
    """
    height, width, channels = network.image_shape
    flops = forward_flops(network)
    title = (
        f"{role}: {network.name}, images {height}x{width}x{channels}, {network.num_classes} classes, "
        f"{network.count_params():,} parameters, {flops / 1e6:,.0f} million operations an image"
    )
    rows = [["group", "map", "features", "layers"]]
    for name in network.group_names:
        group = network.group(name)
        height, width, channels = group.feature_shape
        names = [producer(feature).name for feature in group.features]
        if len(names) > SHOWN:
            names = [*names[: SHOWN - 1], "...", names[-1]]
        rows.append(
            [name, f"{height}x{width}x{channels}", str(len(group.features)), " ".join(names)]
        )
    return f"{title}\n{table(rows)}"
