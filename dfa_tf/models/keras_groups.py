"""The groups of a Keras model (DFA §3.1), found in the calls of its layers."""

import itertools
from collections.abc import Sequence

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.keras_graph import Call

MERGES = ("Add", "Concatenate", "Average", "Subtract", "Maximum")
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose")
NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")

Maps = list[keras.KerasTensor]


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
        merges = [k for k, call in enumerate(ends) if call.kind in MERGES]
        ends = ends[: merges[-1] + 1] if merges else ends
        shape = ends[-1].output.shape
        groups.append([call.output for call in ends if call.output.shape == shape])
    return groups


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
    """Returns the calls that end a block and after which the model can be split."""
    ends, follows_block_end = [], False
    has_convolution = False  # since the previous cut
    cuts = {id(call) for call in _cuts(calls, start)}
    for call in calls:
        is_cut = id(call) in cuts
        if _begins_head(call):
            if is_cut:
                break
            continue
        has_convolution |= call.kind in CONVOLUTIONS
        if not is_cut:
            continue
        if has_convolution:
            ends.append(call)
            follows_block_end = True
        elif follows_block_end and call.kind in NORMALIZATIONS:
            ends[-1] = call
        else:
            follows_block_end = False
        has_convolution = False
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


def _spatial_size(call):
    return tuple(call.output.shape[1:3])
