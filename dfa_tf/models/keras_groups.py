"""The groups of a Keras model (DFA §3.1), found in the calls of its layers."""

import dataclasses
import itertools
from collections.abc import Sequence

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.keras_graph import Call

CONCATENATE = "Concatenate"
MERGES = ("Add", CONCATENATE, "Average", "Subtract", "Maximum")
DEPTHWISE = "DepthwiseConv2D"
CONVOLUTIONS = ("Conv2D", DEPTHWISE, "SeparableConv2D", "Conv2DTranspose")
ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU")
NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")

Maps = list[keras.KerasTensor]


@dataclasses.dataclass
class BlockEnd:
    """The end of a block.

    Attributes:
        kind: The kind of the merge or the last convolution.
        call: The call whose output is the feature: this operation or its normalization.
    """

    kind: str
    call: Call

    @property
    def map(self) -> keras.KerasTensor:
        """The feature."""
        return self.call.output


def find_groups(calls: Sequence[Call], start: keras.KerasTensor) -> list[Maps]:
    """Finds the groups as `from_keras` describes them.

    Args:
        calls: The calls of a model's layers, in order.
        start: The tensor that the first layer receives.

    Returns:
        The features of each group. A model without convolutions has no groups.
    """
    groups = []
    for _, block_ends in itertools.groupby(_block_ends(calls, start), _spatial_size):
        ends = list(block_ends)
        merges = [k for k, end in enumerate(ends) if end.kind in MERGES]
        if merges:
            ends = ends[: merges[-1] + 1]
        elif any(end.kind == DEPTHWISE for end in ends):
            ends = _ends_of_separable_blocks(ends, calls)
        groups.append(_dense_block(ends) or [end.map for end in ends if _is_like(end, ends[-1])])
    return groups


def _is_like(end, other):
    return end.map.shape == other.map.shape


def _ends_of_separable_blocks(ends, calls):
    """Returns the ends of blocks of depthwise and pointwise convolutions.

    An inverted residual ends in a projection, the only convolution without an activation
    [Sandler et al., 2018, §3.3]. Other blocks end in their pointwise convolution.
    """
    activated = {id(x) for call in calls if call.kind in ACTIVATIONS for x in call.inputs}
    # A product is the output of squeeze-and-excitation, in the middle of a block.
    pointwise = [e for e in ends if e.kind != DEPTHWISE and e.call.kind != "Multiply"] or ends
    linear = [end for end in pointwise if id(end.map) not in activated and not _is_activated(end)]
    return linear or pointwise


def _is_activated(end):
    """Returns whether the operation applies an activation of its own."""
    activation = getattr(end.call.operation, "activation", None)
    return activation not in (None, keras.activations.linear)


def _dense_block(ends):
    """Returns the maps of a block of DenseNet, padded with zeros to the channels of the last one.

    Each layer concatenates its output to the map before it [Huang et al., 2017, Eqn 2], so an
    earlier map is the first part of the last one. None for other groups.
    """
    dense = list(itertools.dropwhile(lambda end: end.kind != CONCATENATE, ends))
    channels = [end.map.shape[-1] for end in dense]
    is_dense = len(dense) > 1 and all(
        end.kind == CONCATENATE and id(before.map) in {id(x) for x in end.call.inputs}
        for before, end in itertools.pairwise(dense)
    )
    if not is_dense:
        return None
    return [
        PadChannels(
            channels[-1] - count, name=f"{end.call.operation.name}_padded", dtype=end.map.dtype
        )(end.map)
        for end, count in zip(dense[:-1], channels[:-1], strict=True)
    ] + [dense[-1].map]


def named_groups(
    calls: Sequence[Call], start: keras.KerasTensor, groups: Sequence[Sequence[str]], model: str
) -> list[Maps]:
    """Returns the outputs of named layers as the features of each group.

    Args:
        calls: The calls of a model's layers, in order.
        start: The tensor that the first layer receives.
        groups: The layers' names, group by group.
        model: The model's name, for messages.

    Raises:
        UserError: If a layer does not exist, if the features of a group differ in shape, or if
            the network cannot be split after the last one.
    """
    by_name = {call.operation.name: call for call in calls}
    cuts = {call.operation.name for call in _cuts(calls, start)}
    found = []
    for names in groups:
        if not names:
            raise UserError("keras_file.groups: expected names of layers in each group, got []")
        for name in names:
            if name not in by_name:
                raise UserError(f"keras_file.groups: {model} has no layer named {name!r}")
        maps = [by_name[name].output for name in names]
        for name, each in zip(names, maps, strict=True):
            if len(each.shape) != 4 or each.shape != maps[-1].shape:
                raise UserError(
                    f"keras_file.groups: expected maps of one shape, got {tuple(each.shape[1:])} from {name} "
                    f"and {tuple(maps[-1].shape[1:])} from {names[-1]} of {model}"
                )
        if names[-1] not in cuts:
            raise UserError(
                f"keras_file.groups: {names[-1]} of {model} cannot end a group because later layers also "
                "read other maps; name another layer"
            )
        found.append(maps)
    return found


def map_before_head(calls: Sequence[Call], start: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the map that the head receives: the input of global pooling or flattening.

    The embedding is the spatial average of this map, also for a head that flattens it.
    """
    last = start
    for call in _cuts(calls, start):
        if _begins_head(call):
            break
        last = call.output
    return last


def _block_ends(calls, start):
    """Returns the `BlockEnd`s after which the model can be split."""
    ends, follows_block_end = [], False
    convolution = None  # the last one since the previous cut
    cuts = {id(call) for call in _cuts(calls, start)}
    for call in calls:
        is_cut = id(call) in cuts
        if _begins_head(call):
            if is_cut:
                break
            continue
        if call.kind in CONVOLUTIONS:
            convolution = call.kind
        if not is_cut:
            continue
        if convolution:
            ends.append(BlockEnd(call.kind if call.kind in MERGES else convolution, call))
            # The normalization after a dense block belongs to the transition that follows.
            follows_block_end = call.kind != CONCATENATE
        elif follows_block_end and call.kind in NORMALIZATIONS:
            ends[-1].call = call
        else:
            follows_block_end = False
        convolution = None
    return ends


def _cuts(calls, start):
    """Returns the calls whose output is the only tensor that later calls read."""
    last_use = {id(tensor): k for k, call in enumerate(calls) for tensor in call.inputs}
    live, cuts = {id(start)}, []
    for k, call in enumerate(calls):
        live = {tensor for tensor in live if last_use.get(tensor, -1) > k}
        if last_use.get(id(call.output), -1) > k or k == len(calls) - 1:
            live.add(id(call.output))
        if live == {id(call.output)}:
            cuts.append(call)
    return cuts


def _begins_head(call):
    return len(call.output.shape) != 4 or call.kind.startswith("Global")


def _spatial_size(end):
    return tuple(end.map.shape[1:3])


@keras.saving.register_keras_serializable("dfa_tf")
class PadChannels(keras.layers.Layer):
    """Appends channels of zeros to a map `[B, H, W, C]`.

    Args:
        channels: Number of channels to append.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self._channels = channels

    def call(self, x):
        """Returns the map `[B, H, W, C + channels]`."""
        return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, self._channels]])

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"channels": self._channels}
