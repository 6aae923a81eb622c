"""A classifier that exposes the features of its groups and can be entered after each group."""

import dataclasses
import functools
import hashlib
import inspect
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.models.keras_graph import producer
from dfa_tf.models.layers import Affine
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.validation import check_value

# Keras dtype policies. Trainings in float16 need a loss scale, see `training.optimizers`.
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
TailInput = Literal["feature", "stream"]
MAX_DESCRIPTION = 1000  # characters of JSON; longer specs are described by their digest


@dataclasses.dataclass(frozen=True)
class Group:
    """The layers that share one spatial size (DFA §3.1), as tensors of the network's graph.

    Attributes:
        name: "group1" for the first group of a network.
        features: The pre-ReLU map `[B, H, W, C]` after each block, all of one shape.
        stream: The map `[B, H, W, C]` that the next group receives. In a pre-activation network
            this is the residual stream before normalization, elsewhere the last feature itself.
    """

    name: str
    features: tuple[keras.KerasTensor, ...]
    stream: keras.KerasTensor

    @property
    def feature_names(self) -> list[str]:
        """The features' names: "group1_block1", "group1_block2" and so on."""
        return [f"{self.name}_block{j}" for j in range(1, len(self.features) + 1)]

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """The shape (height, width, channels) of each feature."""
        return tuple(self.features[-1].shape[1:])

    @property
    def normalization(self) -> BatchNormalization | None:
        """The batch normalization that outputs the last feature, or None."""
        layer = producer(self.features[-1])
        return layer if isinstance(layer, BatchNormalization) else None


@keras.saving.register_keras_serializable("dfa_tf")
class Network(keras.Model):
    """A functional Keras model from raw pixels to logits and features.

    `network(images, training=False)` returns

        {"logits": [B, classes] float32, "features": {"group1": [T_1, ..., T_N], ...}}

    for images `[B, H, W, C]` with values 0..255 (uint8 or float): the first layer normalizes them
    by mean and standard deviation.

    `features_model(group)`, `features_up_to_model(group)` and `tail_model(group, tail_input)` return
    the Keras models that `features`, `features_up_to` and `tail` run. Each is built once.
    `pooled_shape` is the shape (height, width, channels) of the pooled map, `embedding_size` the
    number of channels that the classifier receives. `stem_shape` is the shape of the stem, or None.

    Args:
        image: The input tensor `[B, H, W, C]`.
        groups: The groups, in order.
        pooled_map: The map `[B, H, W, C]`, after its ReLU, whose spatial average the classifier
            receives.
        logits: The float32 tensor `[B, classes]`.
        spec: `{"builder": registered name of a function, "arguments": {...}}`. The function builds
            the network again. A `.keras` file contains this spec and the weights.
        precision: Keras dtype policy of the layers.
        folds: `{layer: normalization}` by name: which normalization `folded` folds into which
            layer.
        stem: The map `[B, H, W, C]` that the first group receives, before any normalization; None
            if the network does not expose it.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        image: keras.KerasTensor,
        groups: Sequence[Group],
        pooled_map: keras.KerasTensor,
        logits: keras.KerasTensor,
        spec: Mapping[str, Any],
        precision: Precision = "float32",
        folds: Mapping[str, str] | None = None,
        stem: keras.KerasTensor | None = None,
        **kwargs: Any,
    ):
        outputs = {
            "logits": logits,
            "features": {group.name: list(group.features) for group in groups},
        }
        super().__init__(image, outputs, **kwargs)
        # JSON prevents Keras from wrapping the nested containers for its own tracking.
        self._spec = json.dumps(spec)
        self.precision = precision
        self._folds = json.dumps(folds or {})
        by_name = {group.name: group for group in groups}
        # In closures, because Keras would save a model held in an attribute a second time.
        self.group = lambda name: _find_group(by_name, name, self.name)
        self.features_model = functools.cache(
            # In a dict, because Keras would unpack a list of one.
            lambda name: keras.Model(image, {"features": list(self.group(name).features)})
        )
        self.features_up_to_model = functools.cache(
            lambda name: keras.Model(
                image, {g.name: list(g.features) for g in _groups_up_to(groups, name)}
            )
        )
        further = {"pooled_map": pooled_map} | ({} if stem is None else {"stem": stem})
        self._full_outputs_model = functools.cache(lambda: keras.Model(image, outputs | further))
        self.tail_model = functools.cache(
            lambda name, tail_input: keras.Model(_entrance(self.group(name), tail_input), logits)
        )
        self.group_names = tuple(by_name)
        self.embedding_size = pooled_map.shape[-1]
        self.pooled_shape = tuple(pooled_map.shape[1:])
        self.stem_shape = None if stem is None else tuple(stem.shape[1:])
        # Keras layers draw without a known seed, so their initial weights are like any others.
        self._initial_digest = self.weights_digest if "seed" in spec["arguments"] else ""

    @property
    def spec(self) -> dict:
        """The spec that rebuilds this network without its weights. Each access returns a copy."""
        return json.loads(self._spec)

    @property
    def description(self) -> str:
        """The spec, or the name and a digest of the spec if it is long."""
        if len(self._spec) <= MAX_DESCRIPTION:
            return self._spec
        return f"{self.name} {hashlib.sha256(self._spec.encode()).hexdigest()[:16]}"

    @property
    def weights_digest(self) -> str:
        """A digest of all weights."""
        digest = hashlib.sha256()
        for weight in self.get_weights():
            digest.update(weight.tobytes())
        return digest.hexdigest()

    @property
    def is_initial(self) -> bool:
        """Whether the weights are those that the builder draws from the seed in the spec."""
        return self.weights_digest == self._initial_digest

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (height, width, channels) of the input images."""
        return tuple(self.input.shape[1:])

    @property
    def classifier(self) -> keras.layers.Dense | None:
        """The dense layer that maps the embedding to the logits, or None."""
        layer = producer(self.output["logits"])
        is_dense = isinstance(layer, keras.layers.Dense) and layer.use_bias
        return layer if is_dense and layer.kernel.shape[0] == self.embedding_size else None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.output["logits"].shape[-1]

    def features(self, group: str, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Returns the features of one group and computes nothing behind it.

        Args:
            group: The group's name.
            images: Tensor `[B, H, W, C]` with values 0..255.
            training: Whether batch normalization uses the statistics of the batch.

        Returns:
            The features `[T_1, ..., T_N]`, each `[B, h, w, c]`, as a call would.
        """
        return self.features_model(group)(images, training=training)["features"]

    def features_up_to(
        self, group: str, images: tf.Tensor, training: bool = False
    ) -> dict[str, list[tf.Tensor]]:
        """Returns the features of all groups up to one, from one pass that ends there.

        Args:
            group: Name of the last group.
            images: Tensor `[B, H, W, C]` with values 0..255.
            training: Whether batch normalization uses the statistics of the batch.

        Returns:
            `{"group1": [T_1, ..., T_N], ...}`, each feature `[B, h, w, c]`, as a call would.
        """
        return self.features_up_to_model(group)(images, training=training)

    def full_outputs(self, images: tf.Tensor, training: bool = False) -> dict[str, Any]:
        """Returns the outputs of a call together with the pooled map and, if exposed, the stem.

        Args:
            images: Tensor `[B, H, W, C]` with values 0..255.
            training: Whether batch normalization uses the statistics of the batch.

        Returns:
            `{"logits": [B, classes], "features": {"group1": [T_1, ..., T_N], ...},
            "pooled_map": [B, h, w, c]}`. The classifier receives the spatial average of the pooled
            map, which is taken after the last ReLU. A network that exposes its stem adds
            `"stem": [B, h, w, c]`.
        """
        return self._full_outputs_model()(images, training=training)

    def tail(
        self, group: str, x: tf.Tensor, training: bool = False, tail_input: TailInput = "feature"
    ) -> tf.Tensor:
        """Returns the logits `[B, classes]` for a map that enters the network after a group.

        Args:
            group: The group's name.
            x: Tensor `[B, h, w, c]` that replaces the network's own map.
            training: Whether batch normalization uses the statistics of the batch.
            tail_input: The map that `x` replaces: the group's last feature ("feature") or the
                stream that the next group receives ("stream"). They differ in a pre-activation
                network only, by the normalization that follows the group.
        """
        return self.tail_model(group, tail_input)(x, training=training)

    def prepare_tail(self, group: str, tail_input: TailInput = "feature") -> None:
        """Builds the model that `tail` runs. Call it before threads trace `tail` in parallel."""
        self.tail_model(group, tail_input)

    def copy(self, precision: Precision | None = None, **changes: Any) -> "Network":
        """Returns a network with equal weights in variables of its own.

        Args:
            precision: Keras dtype policy of the copy, by default this network's. The variables are
                float32 in both precisions.
            **changes: Arguments of the network's builder to change. They must not change the
                shapes of the weights.

        Raises:
            UserError: If the precision is unknown.
        """
        spec = self.spec
        spec["arguments"] |= changes
        twin = from_spec(spec, self._checked(precision))
        twin.set_weights(self.get_weights())
        return twin

    def folded(self, precision: Precision | None = None) -> "Network":
        """Returns the network in a form for inference only.

        Each normalization is folded into the preceding convolution or the following ReLU. Kernels
        are stored in the dtype in which they are used. The outputs are those of this network with
        `training=False`, up to rounding. The result cannot be trained, copied or saved.

        Args:
            precision: See `copy`.

        Raises:
            UserError: If the precision is unknown.
        """
        twin = from_spec(self.spec, self._checked(precision), folded=True)
        folds = json.loads(self._folds)
        for layer in twin.layers:
            original = self.get_layer(layer.name)
            norm = self.get_layer(folds[layer.name]) if layer.name in folds else original
            if isinstance(layer, Affine):
                layer.set_weights(norm.affine())
            elif norm is not original:
                scale, offset = norm.affine()
                kernel, *bias = original.get_weights()
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    kernel = kernel * scale[:, None]
                else:
                    kernel = kernel * scale
                layer.set_weights([kernel, offset + (bias[0] * scale if bias else 0)])
            else:
                layer.set_weights(original.get_weights())
        _finalize(twin)
        twin.trainable = False
        return twin

    def _checked(self, precision):
        check_value("precision", precision, Precision | None)
        return precision or self.precision

    def set_weights(self, weights: Sequence) -> None:
        """Sets all weights, and updates what layers derive from theirs."""
        super().set_weights(weights)
        _finalize(self)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"spec": self.spec, "precision": self.precision}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "Network":
        """Builds the network again, with new weights."""
        return from_spec(config["spec"], config["precision"])


def _finalize(network):
    """Updates what `keras.layers.Normalization` and similar layers derive from their weights."""
    for layer in network.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def from_spec(
    spec: Mapping[str, Any], precision: Precision = "float32", **builder_arguments
) -> Network:
    """Builds the network of a spec with new weights.

    Args:
        spec: See `Network`.
        precision: Keras dtype policy.
        **builder_arguments: Further arguments of the builder.

    Raises:
        UserError: If no builder is registered under the spec's name.
    """
    build = keras.saving.get_registered_object(spec["builder"])
    if build is None:
        raise UserError(
            f"{spec['builder']}: no network builder is registered under this name; import its module"
        )
    return build(**spec["arguments"], precision=precision, **builder_arguments)


def spec_of(builder: Callable[..., Network], *arguments) -> dict[str, Any]:
    """Returns the spec of the network that a builder builds.

    Args:
        builder: A function registered with Keras.
        *arguments: Its arguments in the order of its signature, without `precision` and `folded`,
            which change no weight.
    """
    names = [n for n in inspect.signature(builder).parameters if n not in ("precision", "folded")]
    by_name = dict(zip(names, arguments, strict=True))
    return {
        "builder": keras.saving.get_registered_name(builder),
        # As a file would return them; `operator.index` converts integers of NumPy.
        "arguments": json.loads(json.dumps(by_name, default=operator.index)),
    }


def _find_group(groups, name, network):
    if name not in groups:
        raise ValueError(f"{network}: expected one of the groups {', '.join(groups)}, got {name!r}")
    return groups[name]


def _groups_up_to(groups, name):
    return groups[: [group.name for group in groups].index(name) + 1]


def _entrance(group, tail_input):
    check_value("tail_input", tail_input, TailInput)
    return group.features[-1] if tail_input == "feature" else group.stream
