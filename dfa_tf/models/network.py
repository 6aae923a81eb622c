"""A classifier that shows the features of its groups and can be entered after any of them."""

import dataclasses
import functools
import hashlib
import inspect
import json

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import Affine

# Keras dtype policies. Not float16: its range would need the loss to be scaled.
PRECISIONS = ("float32", "mixed_bfloat16")
LONGEST_SPEC = 1000  # letters of JSON that are told as they are


@dataclasses.dataclass(frozen=True)
class Group:
    """The layers that share one spatial size (DFA §3.1), as tensors of the network's graph.

    features: the pre-ReLU map after each block, [B, H, W, C] each, all of one shape.
    stream: what the next group takes in, [B, H, W, C]. In a pre-activation network this is the
        residual stream before normalization; elsewhere it is the last feature itself.
    """

    name: str
    features: tuple
    stream: keras.KerasTensor

    @property
    def feature_names(self):
        return [f"{self.name}_block{j}" for j in range(1, len(self.features) + 1)]

    @property
    def feature_shape(self):
        """(height, width, channels) of each of the group's features."""
        return tuple(self.features[-1].shape[1:])


@keras.saving.register_keras_serializable("dfa_tf")
class Network(keras.Model):
    """A functional Keras model from raw pixels to logits and features.

    network(images, training=False) returns
        {"logits": [B, classes] float32, "features": {"group1": [T_1, ..., T_N], ...}}
    for images [B, H, W, C] with values 0..255 (uint8 or float): the normalization by mean and
    standard deviation is the network's first layer.

    spec: {"builder": registered name of a function, "arguments": {...}}; the function builds the
        network again, so a `.keras` file holds this spec and the weights and needs no config.
    features_model(group), tail_model(group, entry): the Keras models that `features` and `tail` run.
    """

    def __init__(self, image, groups, logits, spec, precision="float32", folds=None, **kwargs):
        features = {group.name: list(group.features) for group in groups}
        super().__init__(image, {"logits": logits, "features": features}, **kwargs)
        # JSON keeps Keras from wrapping the nested containers for its own tracking.
        self._spec = json.dumps(spec)
        self.precision = precision
        self._folds = json.dumps(folds or {})
        groups = {group.name: group for group in groups}
        # In closures, because Keras would save a model held in an attribute a second time.
        self.group = lambda name: _find_group(groups, name, self.name)
        self.features_model = functools.cache(
            # In a dict, because Keras would unpack a list of one.
            lambda name: keras.Model(image, {"features": list(self.group(name).features)})
        )
        self.tail_model = functools.cache(
            lambda name, entry: keras.Model(_entrance(self.group(name), entry), logits)
        )
        self.group_names = tuple(groups)

    @property
    def spec(self):
        """What rebuilds this network, weights aside: a fresh dict at each call."""
        return json.loads(self._spec)

    @property
    def description(self):
        """What tells it from networks of another layout: the spec, or its digest where it is long."""
        if len(self._spec) <= LONGEST_SPEC:
            return self._spec
        return f"{self.name} {hashlib.sha256(self._spec.encode()).hexdigest()[:16]}"

    @property
    def image_shape(self):
        """(height, width, channels) of the images it takes."""
        return tuple(self.input.shape[1:])

    @property
    def num_classes(self):
        return self.output["logits"].shape[-1]

    def features(self, group, images, training=False):
        """The features [T_1, ..., T_N] of one group, running the network only as far as that.

        images: [B, H, W, C], 0..255. Returns N tensors [B, h, w, c], as the full call would.
        """
        return self.features_model(group)(images, training=training)["features"]

    def tail(self, group, x, training=False, entry="feature"):
        """Logits [B, classes] from a map that enters after `group`, through the same layers.

        x: [B, h, w, c], what stands in for the group's last feature (entry="feature") or for
            the stream that the next group takes in (entry="stream"). The two differ in a
            pre-activation network only, by the normalization that follows the group.
        """
        return self.tail_model(group, entry)(x, training=training)

    def prepare_tail(self, group, entry="feature"):
        """Builds the graph that `tail` runs: call it before tracing where threads may race."""
        self.tail_model(group, entry)

    def copy(self, precision=None):
        """The same network with variables of its own, of equal values.

        precision: of the copy, one of PRECISIONS; the variables are float32 either way.
        Raises UserError for another precision.
        """
        check_precision(precision or self.precision)
        twin = from_spec(self.spec, precision or self.precision)
        twin.set_weights(self.get_weights())
        return twin

    def folded(self, precision=None):
        """The network for inference alone: each normalization is made one with the convolution
        before it or the ReLU after it, kernels are held in the dtype they are used in.

        Its answers and features are this network's with training=False, up to rounding; it is no
        network to train, copy or save. Arguments and errors as of `copy`.
        """
        precision = precision or self.precision
        check_precision(precision)
        twin = from_spec(self.spec, precision, folded=True)
        folds = json.loads(self._folds)
        for layer in twin.layers:
            own = self.get_layer(layer.name)
            norm = self.get_layer(folds[layer.name]) if layer.name in folds else own
            if isinstance(layer, Affine):
                layer.set_weights(norm.affine())
            elif norm is not own:
                scale, offset = norm.affine()
                kernel, *bias = own.get_weights()
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    kernel = kernel * scale[:, None]
                else:
                    kernel = kernel * scale
                layer.set_weights([kernel, offset + (bias[0] * scale if bias else 0)])
            else:
                layer.set_weights(own.get_weights())
        _finalize(twin)
        twin.trainable = False
        return twin

    def set_weights(self, weights):
        """As Keras' own; layers that derive something from theirs do so anew."""
        super().set_weights(weights)
        _finalize(self)

    def get_config(self):
        return {"spec": self.spec, "precision": self.precision}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return from_spec(config["spec"], config["precision"])


def _finalize(network):
    """Has `keras.layers.Normalization` and the like take in the weights that they were given."""
    for layer in network.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def from_spec(spec, precision="float32", **more):
    """Builds the network that `spec` describes, freshly initialised. more: for its builder."""
    build = keras.saving.get_registered_object(spec["builder"])
    if build is None:
        raise UserError(f"no network is registered as {spec['builder']!r}")
    return build(**spec["arguments"], precision=precision, **more)


def spec_of(builder, given):
    """The spec of the network that `builder` makes of the arguments `given`.

    builder: a function registered with Keras. given: its arguments by name; others are left out,
    as are those that change no weight.
    """
    names = [n for n in inspect.signature(builder).parameters if n not in ("precision", "folded")]
    return {
        "builder": keras.saving.get_registered_name(builder),
        "arguments": json.loads(json.dumps({name: given[name] for name in names})),
    }


def check_precision(precision):
    """Raises UserError unless `precision` is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise UserError(f"precision is {' or '.join(PRECISIONS)}, not {precision!r}")


def _find_group(groups, name, network):
    if name not in groups:
        raise ValueError(f"{network} has no group {name!r}; its groups are {', '.join(groups)}")
    return groups[name]


def _entrance(group, entry):
    if entry == "feature":
        return group.features[-1]
    if entry == "stream":
        return group.stream
    raise ValueError(f"entry is 'feature' or 'stream', not {entry!r}")
