"""A Keras model as the calls of its layers, and the groups that are found in them (DFA §3.1)."""

import dataclasses
import itertools

from dfa_tf.errors import UserError

MERGES = ("Add", "Concatenate", "Average", "Subtract", "Maximum")
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose")
NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation of the model's graph, in an order in which they can be run."""

    operation: object
    inputs: list
    output: object

    @property
    def kind(self):
        return type(self.operation).__name__


def found_groups(calls, start):
    """[maps of each group], see `from_keras`."""
    groups = []
    ends = itertools.groupby(_block_ends(calls, start), lambda call: tuple(call.output.shape[1:3]))
    for _, of_size in ends:
        of_size = list(of_size)
        sums = [k for k, call in enumerate(of_size) if call.kind in MERGES]
        of_size = of_size[: sums[-1] + 1] if sums else of_size
        last = of_size[-1].output
        groups.append([call.output for call in of_size if call.output.shape == last.shape])
    return groups


def _block_ends(calls, start):
    """The calls whose outputs alone carry all that follows and end a block, before the pooling."""
    ends, of_block = [], False
    segment_has_convolution = False
    for call, is_alone in zip(calls, _alone(calls, start), strict=True):
        if len(call.output.shape) != 4 or call.kind.startswith("Global"):
            if is_alone:
                break
            continue
        segment_has_convolution |= call.kind in CONVOLUTIONS
        if not is_alone:
            continue
        if segment_has_convolution:
            ends.append(call)
            of_block = True
        elif of_block and call.kind in NORMALIZATIONS:
            ends[-1] = call
        else:
            of_block = False
        segment_has_convolution = False
    return ends


def _alone(calls, start):
    """For each call whether, once it is made, nothing before its output is needed any more."""
    last_use = {id(tensor): k for k, call in enumerate(calls) for tensor in call.inputs}
    needed, alone = {id(start)}, []
    for k, call in enumerate(calls):
        needed = {tensor for tensor in needed if last_use.get(tensor, -1) > k}
        if last_use.get(id(call.output), -1) > k or k == len(calls) - 1:
            needed.add(id(call.output))
        alone.append(needed == {id(call.output)})
    return alone


def named_groups(calls, start, groups, model):
    """[maps of each group] whose layers are named, see `from_keras`."""
    by_name = {call.operation.name: call for call in calls}
    alone = {
        call.operation.name
        for call, is_alone in zip(calls, _alone(calls, start), strict=True)
        if is_alone
    }
    found = []
    for names in groups:
        for name in names:
            if name not in by_name:
                raise UserError(f"{model} has no layer {name}, which groups names")
        maps = [by_name[name].output for name in names]
        for name, each in zip(names, maps, strict=True):
            if len(each.shape) != 4 or each.shape != maps[-1].shape:
                raise UserError(
                    f"{name} of {model} gives {tuple(each.shape[1:])}, {names[-1]} {tuple(maps[-1].shape[1:])}: a group's features are maps of one shape"
                )
        if names[-1] not in alone:
            raise UserError(
                f"{names[-1]} of {model} cannot end a group: what follows needs other maps too"
            )
        found.append(maps)
    return found
