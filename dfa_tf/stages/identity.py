"""Texts that identify what a stage depends on: its settings, its examples and its networks."""

import dataclasses
import hashlib
import json

from dfa_tf.data.examples import AnyExamples
from dfa_tf.models.network import Network
from dfa_tf.training.runtime import Runtime


def recorded_settings(stage: str, *bundles, **values) -> dict[str, str]:
    """Returns the settings of a stage that was called from Python, in place of gin bindings.

    Args:
        stage: Name of the stage.
        *bundles: Dataclasses of settings, recorded field by field.
        **values: Further settings.

    Returns:
        `{name: text}`, as `StageFolder` expects.
    """
    fields = {
        f.name: getattr(bundle, f.name) for bundle in bundles for f in dataclasses.fields(bundle)
    }
    return {f"{stage}.{name}": repr(value) for name, value in (fields | values).items()}


def validation_inputs(validation: AnyExamples | None, runtime: Runtime) -> dict[str, str]:
    """Returns what determines which network of a run is the best one, as inputs of the stage.

    Args:
        validation: The validation examples that choose the network; None if the last one is kept.
        runtime: The settings of the evaluations.

    Returns:
        `{name: text}`, as `StageFolder` expects; empty if the last network is kept.
    """
    if validation is None:
        return {}
    evaluate_every = repr(float(runtime.evaluate_every))
    return {"validation": validation.description, "runtime.evaluate_every": evaluate_every}


def fingerprint(network: Network) -> str:
    """Returns text that identifies a trained network: its name, and a digest of layout and weights.

    The seed of the weights before the training does not count.
    """
    spec = network.spec
    spec["arguments"].pop("seed", None)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    digest.update(network.weights_digest.encode())
    return f"{network.name} {digest.hexdigest()[:12]}"


def starting_point(network: Network) -> str:
    """Returns text that identifies a network as the start of a training.

    Initial weights follow from the spec, which contains their seed. Their digest would differ
    between machines. Other weights, such as those of a file, are identified by their digest.
    """
    description = network.description
    return description if network.is_initial else f"{description} {network.weights_digest[:12]}"
