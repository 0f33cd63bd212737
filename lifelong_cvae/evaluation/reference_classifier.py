"""Reference classifier: a small convolutional network that evaluates imagined images.

It is trained on real images only, on all categories at once, and no generative model uses it. Its predictions measure
whether imagined images show their category (`agreement`), and its last hidden layer provides the features for distances
between sets of images.

Convolutions are written as matrix products over patches, which is several times faster than XLA's on a CPU.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from lifelong_cvae.data import Source
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import atomic_write
from lifelong_cvae.images import Shape, flatten_images, padded_batches, to_float, unify_types

FEATURES = 84
LAYERS = ((24, 6), (48, 4))  # channels and side of the patches of each convolution, stride 2
EPOCHS = 4
# Small data sets are trained for more epochs, to reach this number of steps within the limit on epochs.
MIN_STEPS = 600
MAX_EPOCHS = 100
BATCH = 128
LEARNING_RATE = 2e-3
MAX_BATCH = 1024
MIN_BATCH = 64


class ClassifierNetwork(nn.Module):
    """Maps images `[batch, h, w, c]` to features `[batch, FEATURES]` and logits `[batch, categories]`."""

    categories: int

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = images - 0.5
        for channels, side in LAYERS:
            hidden = nn.relu(nn.Dense(channels)(_patches(hidden, side)))
        features = nn.relu(nn.Dense(FEATURES)(hidden.reshape(len(hidden), -1)))
        return features, nn.Dense(self.categories)(features)


class ReferenceClassifier(flax.struct.PyTreeNode):
    """A trained reference classifier.

    Attributes:
        params: parameters of `ClassifierNetwork`.
        names: categories in the order of the logits.
        image_shape: (height, width, channels).
    """

    params: Any
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    image_shape: Shape = flax.struct.field(pytree_node=False)

    def features(self, images: Any) -> np.ndarray:
        """Computes features, float32 `[n, FEATURES]`, of images `[n, h, w, c]`, uint8 or float in [0, 1]."""
        return self.features_and_predictions(images)[0]

    def predict(self, images: Any) -> np.ndarray:
        """Predicts the category of each image, strings `[n]`."""
        return self.features_and_predictions(images)[1]

    def agreement(self, images: Mapping[str, Any]) -> dict[str, float]:
        """Computes the fraction of each category's images that are predicted as this category."""
        return {name: float((self.predict(values) == name).mean()) for name, values in images.items()}

    def features_and_predictions(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """Computes features and predicted categories of images in one pass."""
        rows = flatten_images(images, self.image_shape)
        outputs = [
            [np.asarray(output[: len(rows) - start]) for output in _forward(self, batch)]
            for start, batch in padded_batches(rows, MIN_BATCH, MAX_BATCH)
        ]
        features, logits = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        return features, np.asarray(self.names)[logits.argmax(axis=1)]

    def fitting_capacity(self, images: Mapping[str, Any], real: Mapping[str, Any], *, rng: jax.Array) -> float:
        """Computes the accuracy on real images of a classifier trained on imagined ones, as a fraction.

        It has the network and training of this one. Source: Lesort et al. 2019 (arXiv 1806.10840).

        Args:
            images: images by category to train on, `[n, h, w, c]`.
            real: images by category to test on, `[m, h, w, c]`. The accuracy is over all of them together.
            rng: key of the training.
        """
        accuracies = train_classifier(images, self.image_shape, rng=rng).agreement(real)
        return sum(accuracies[name] * len(real[name]) for name in real) / sum(map(len, real.values()))


def train_classifier(images: Mapping[str, Any], image_shape: Shape, *, rng: jax.Array) -> ReferenceClassifier:
    """Trains a reference classifier.

    Args:
        images: images by category, uint8 or float in [0, 1], `[n, h, w, c]`.
        image_shape: (height, width, channels).
        rng: key of initial parameters and batches.
    """
    parts = [flatten_images(values, image_shape) for values in images.values()]
    labels = jnp.asarray(np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
    rows = jnp.asarray(np.concatenate(parts))
    network = ClassifierNetwork(len(parts))
    init_rng, step_rng = jax.random.split(rng)
    params = jax.jit(network.init)(init_rng, jnp.zeros((1, *image_shape)))
    batch_size = min(BATCH, len(rows))
    max_steps = MAX_EPOCHS * math.ceil(len(rows) / batch_size)
    steps = max(EPOCHS * len(rows) // BATCH, min(MIN_STEPS, max_steps))
    sizes = {"shape": image_shape, "steps": steps, "batch_size": batch_size}
    params = _fit(params, rows, labels, step_rng, network=network, **sizes)
    return ReferenceClassifier(params, tuple(images), image_shape)


def load_or_train(source: Source, folder: Path) -> ReferenceClassifier:
    """Loads the reference classifier of a source from `folder`, or trains and saves it.

    Raises:
        InputError: the file cannot be read.
    """
    file = folder / file_name(source)
    if file.exists():
        return _read(file, source)
    images = unify_types({name: source.read("train", name) for name in source.categories})
    classifier = train_classifier(images, source.image_shape, rng=jax.random.key(0))
    _write(classifier, file)
    return classifier


def file_name(source: Source) -> str:
    """Returns the file name of a source's reference classifier.

    The name depends on all images of the source and on the number of training images that are not held out.
    """
    return f"judge-{source.fingerprint[:16]}-{sum(source.counts['train'].values())}.npz"


def _write(classifier: ReferenceClassifier, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as draft:
        np.savez(draft, **{"/".join(path): leaf for path, leaf in flatten_dict(classifier.params).items()})


def _read(file: Path, source: Source) -> ReferenceClassifier:
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            flat = {tuple(path.split("/")): jnp.asarray(arrays[path]) for path in arrays.files}
    except Exception as error:  # zip and numpy raise many types for damaged files
        raise InputError(f"{file} cannot be read: delete it to train the reference classifier again") from error
    return ReferenceClassifier(unflatten_dict(flat), source.categories, source.image_shape)


def _patches(images: jax.Array, side: int) -> jax.Array:
    """Extracts zero-padded patches with stride 2, `[batch, h / 2, w / 2, side * side * channels]`."""
    height, width = images.shape[1:3]
    before = (side - 2) // 2
    images = jnp.pad(images, [(0, 0), (before, side), (before, side), (0, 0)])
    rows, columns = 2 * ((height + 1) // 2), 2 * ((width + 1) // 2)
    shifted = [images[:, i : i + rows : 2, j : j + columns : 2] for i in range(side) for j in range(side)]
    return jnp.concatenate(shifted, axis=-1)


@jax.jit
def _forward(classifier: ReferenceClassifier, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    images = to_float(rows).reshape(-1, *classifier.image_shape)
    return ClassifierNetwork(len(classifier.names)).apply(classifier.params, images)


@partial(jax.jit, static_argnames=("network", "shape", "steps", "batch_size"))
def _fit(
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    rng: jax.Array,
    *,
    network: ClassifierNetwork,
    shape: Shape,
    steps: int,
    batch_size: int,
) -> Any:
    """Trains on images `[n, pixels]` with Adam, and returns the parameters."""
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def loss(params: Any, rows: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply(params, to_float(rows).reshape(-1, *shape))[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry: Any, key: jax.Array):
        params, opt_state = carry
        index = jax.random.randint(key, (batch_size,), 0, len(images))
        updates, opt_state = optimizer.update(jax.grad(loss)(params, images[index], labels[index]), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(rng, steps))[0][0]
