"""Networks of the two kinds of conditioning, assembled from `layers`.

`neurons`: a category owns neurons in every hidden layer, beside the mixed ones, which never read them.

`one_hot`: everything is mixed except a vector w_c that is added in the first layer of encoder and decoder,
`W [x; onehot(c)] = W_x x + w_c`. This is the one-hot conditional VAE of Sohn, Lee and Yan 2015.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lifelong_cvae.images import Shape
from lifelong_cvae.model import low_rank_noise, mixture_prior, rejection
from lifelong_cvae.model.layers import (
    CategoryDecoder,
    CategoryEncoder,
    GaussianParams,
    LocalDecoder,
    MixedNeurons,
    OneHotLayers,
    mean_and_log_var,
)
from lifelong_cvae.model.pixel_pyramid import PixelPyramid
from lifelong_cvae.model.settings import NetworkConfig

# Without a floor, a learned scale shrinks on black borders until its category wins every comparison.
LOG_SCALE_FLOOR = -2.5
# Initial means of pixels that are always black or white are clipped to where the sigmoid still has a slope.
MEAN_IMAGE_RANGE = (0.005, 0.995)
HALVES = ("encoder", "decoder")
# Parts of a category's subtree other than its networks and scale. They are fitted or counted after a task, not trained.
PARTS_BESIDE_NETWORKS = ("prior", "low_rank_noise", "contrast", "rms_uncertainty", "thresholds", "images")


@dataclass(frozen=True)
class Networks:
    """Modules of a model and their computations. Static: hashable, equal by value.

    The base class of both kinds of conditioning. `GrowingNetworks` and `OneHotNetworks`
    add `init_mixed`, `init_category`, `mixed_activations`, `encode`, `decode` and `scale_params`.

    Attributes:
        likelihood: `gaussian` or `bernoulli`.
        noise_scale: `shared` or `own`.
        initial_log_scale: log of the Gaussian's scale; the initial value if the scale is learned.
        latent_size: size of z.
        pixels: values per image.
        compute_dtype: type that modules compute in, `float32` or `bfloat16`. Their inputs and outputs are float32.
        is_vector: whether the values are those of a standardized vector, not pixels in [0, 1].
        pixel_pyramid: networks of a category's pixel models; None if there are none.
        samples_pixels: whether sampled images come from pixel models (`cvae.sample_image`).
        sample_temperature: variety of imagined images (`config.NetworkConfig`).
    """

    likelihood: str
    noise_scale: str
    initial_log_scale: float
    latent_size: int
    pixels: int
    compute_dtype: str
    is_vector: bool
    pixel_pyramid: PixelPyramid | None
    samples_pixels: bool
    sample_temperature: float

    @property
    def fits_parts(self) -> bool:
        """True if categories own parts that are fitted after training."""
        return False

    @property
    def input_sizes(self) -> dict[str, int]:
        """Number of inputs of the encoder and of the decoder."""
        return dict(zip(HALVES, (self.pixels, self.latent_size), strict=True))

    def apply(self, module: nn.Module, params: Any, *inputs: Any, **options: Any) -> Any:
        """Applies a module in the type `compute_dtype`. Outputs are float32."""
        if self.compute_dtype == "float32":
            return module.apply(params, *inputs, **options)
        params, inputs = jax.tree.map(lambda leaf: leaf.astype(self.compute_dtype), (params, inputs))
        outputs = module.apply(params, *inputs, **options)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), outputs)

    def mean(self, outputs: jax.Array) -> jax.Array:
        """Returns the mean of p(x|z,c) from decoder outputs: pixels in [0, 1], or a standardized vector."""
        return outputs if self.is_vector else jax.nn.sigmoid(outputs)

    def initial_bias(self, mean: jax.Array) -> jax.Array:
        """Returns the bias of decoder outputs at which the mean is `mean`, `[pixels]`."""
        return mean if self.is_vector else jax.scipy.special.logit(jnp.clip(mean, *MEAN_IMAGE_RANGE))

    def init_scale(self) -> dict[str, jax.Array]:
        """Initializes the log of the Gaussian's scale per pixel; `{}` if the scale is not learned."""
        if self.likelihood != "gaussian" or self.noise_scale == "shared":
            return {}
        return {"log_scale": jnp.full((self.pixels,), self.initial_log_scale, jnp.float32)}

    def log_scale(self, mixed: Any, category: Any) -> jax.Array:
        """Returns the log of the Gaussian's scale, `[pixels]`: learned with a floor, or constant."""
        log_scale = self.scale_params(mixed, category).get("log_scale")
        if log_scale is None:
            return jnp.full((self.pixels,), self.initial_log_scale, jnp.float32)
        return jnp.maximum(log_scale, LOG_SCALE_FLOOR)


@dataclass(frozen=True)
class GrowingNetworks(Networks):
    """Networks of conditioning `neurons`.

    Attributes:
        mixed_encoder: mixed neurons of the encoder; None if there is no mixed part.
        mixed_decoder: mixed neurons of the decoder; None if there is no mixed part.
        local_decoder: decoder of local structure, or None. Its parameters belong to the mixed part, or to each
            category if there is no mixed part.
        category_encoder: neurons and output of a category's encoder.
        category_decoder: neurons and output of a category's decoder.
        prior_components: Gaussians in the fitted prior; 0 keeps N(0, I).
        noise_rank: directions of low-rank residual noise; 0 is white noise.
        texture: whether sampled images have texture (`cvae.sample_image`).
    """

    mixed_encoder: MixedNeurons | None
    mixed_decoder: MixedNeurons | None
    local_decoder: LocalDecoder | None
    category_encoder: CategoryEncoder
    category_decoder: CategoryDecoder
    prior_components: int
    noise_rank: int
    texture: bool

    @property
    def fits_parts(self) -> bool:
        """True: categories own a prior, residual noise and contrast."""
        return True

    def init_mixed(self, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes the parameters of the mixed part; `{}` if there is none."""
        if self.mixed_encoder is None:
            return {}
        modules = (self.mixed_encoder, self.mixed_decoder)
        mixed = {
            half: module.init(key, jnp.zeros((1, self.input_sizes[half])))
            for half, module, key in zip(HALVES, modules, jax.random.split(rng), strict=True)
        }
        return {**mixed, **self._init_local(rng)}

    def _init_local(self, rng: jax.Array) -> dict[str, Any]:
        if self.local_decoder is None:
            return {}
        features = jnp.zeros((1, self.local_decoder.inputs))
        return {"local": self.local_decoder.init(jax.random.fold_in(rng, 2), features)}

    def init_category(self, mixed: Any, mean_image: jax.Array, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes a category's parameters. The decoder starts with the mean `mean_image`, `[pixels]`."""
        encoder_rng, decoder_rng = jax.random.split(rng)
        x, z = jnp.zeros((1, self.pixels)), jnp.zeros((1, self.latent_size))
        decoder = self.category_decoder.init(decoder_rng, z, self.mixed_activations(mixed, "decoder", z))
        decoder["params"]["pixels"]["bias"] = self.initial_bias(mean_image)
        return {
            "encoder": self.category_encoder.init(encoder_rng, x, self.mixed_activations(mixed, "encoder", x)),
            "decoder": decoder,
            "scale": self.init_scale(),
            "prior": mixture_prior.standard_normal(self.latent_size, max(1, self.prior_components)),
            "low_rank_noise": low_rank_noise.empty(self.noise_rank, self.pixels) if self.noise_rank else {},
            "contrast": jnp.ones(()),
            "rms_uncertainty": jnp.ones((self.pixels,)) if self.texture else {},
            "thresholds": rejection.uncalibrated_thresholds(),
            "images": jnp.zeros(()),
            **({} if "decoder" in mixed else self._init_local(rng)),
            **self._init_pixels(rng),
        }

    def _init_pixels(self, rng: jax.Array) -> dict[str, Any]:
        if self.pixel_pyramid is None:
            return {}
        return {"pixels": self.pixel_pyramid.init(rng=jax.random.fold_in(rng, 3))}

    def mixed_activations(self, mixed: Any, half: str, inputs: jax.Array) -> list[jax.Array]:
        """Computes the mixed neurons of `encoder` or `decoder`, `[batch, width]` per layer."""
        module = getattr(self, f"mixed_{half}")
        return [] if module is None else self.apply(module, mixed[half], inputs)

    def encode(self, mixed: Any, category: Any, x: jax.Array, activations: list[jax.Array]) -> GaussianParams:
        """Computes the mean and log variance of q(z|x,c), each `[batch, latent]`."""
        return self.apply(self.category_encoder, category["encoder"], x, activations)

    def decode(self, mixed: Any, category: Any, z: jax.Array, activations: list[jax.Array]) -> jax.Array:
        """Decodes z `[batch, latent]` to logits `[batch, pixels]`."""
        logits, patch_features = self.apply(self.category_decoder, category["decoder"], z, activations)
        if patch_features is None:
            return logits
        local_params = mixed["local"] if "local" in mixed else category["local"]
        return logits + self.apply(self.local_decoder, local_params, patch_features)

    def scale_params(self, mixed: Any, category: Any) -> Any:
        """Returns the scale's parameters, which belong to the category."""
        return category["scale"]


@dataclass(frozen=True)
class OneHotNetworks(Networks):
    """Networks of conditioning `one_hot`: two vectors per category, prior N(0, I), mixed scale.

    Attributes:
        layers_encoder: layers of the encoder.
        layers_decoder: layers of the decoder.
    """

    layers_encoder: OneHotLayers
    layers_decoder: OneHotLayers

    def _layers(self, half: str) -> OneHotLayers:
        return getattr(self, f"layers_{half}")

    def init_mixed(self, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes the parameters of the mixed part."""
        mixed = {"scale": self.init_scale()}
        for half, key in zip(HALVES, jax.random.split(rng), strict=True):
            layers, inputs = self._layers(half), jnp.zeros((1, self.input_sizes[half]))
            mixed[half] = layers.init(key, inputs, jnp.zeros(layers.widths[0]), method="all_layers")
        return mixed

    def init_category(self, mixed: Any, mean_image: jax.Array, *, rng: jax.Array) -> dict[str, Any]:
        """Initializes a category's two vectors. All other parts are empty.

        The vectors have the variance of one more column of the first layer's weights.
        """
        keys = dict(zip(HALVES, jax.random.split(rng), strict=True))
        category: dict[str, Any] = {part: {} for part in ("scale", *PARTS_BESIDE_NETWORKS)}
        for half, key in keys.items():
            noise = jax.random.normal(key, (self._layers(half).widths[0],))
            category[half] = {"vector": noise * self.input_sizes[half] ** -0.5}
        return category

    def mixed_activations(self, mixed: Any, half: str, inputs: jax.Array) -> jax.Array:
        """Computes the first layer before the category's vector is added, `[batch, width]`."""
        return self.apply(self._layers(half), mixed[half], inputs, method="first_layer")

    def encode(self, mixed: Any, category: Any, x: jax.Array, activations: jax.Array) -> GaussianParams:
        """Computes the mean and log variance of q(z|x,c), each `[batch, latent]`."""
        vector = category["encoder"]["vector"]
        return mean_and_log_var(self.apply(self.layers_encoder, mixed["encoder"], activations, vector))

    def decode(self, mixed: Any, category: Any, z: jax.Array, activations: jax.Array) -> jax.Array:
        """Decodes z `[batch, latent]` to logits `[batch, pixels]`."""
        return self.apply(self.layers_decoder, mixed["decoder"], activations, category["decoder"]["vector"])

    def scale_params(self, mixed: Any, category: Any) -> Any:
        """Returns the scale's parameters, which belong to the mixed part."""
        return mixed["scale"]


def build_networks(
    config: NetworkConfig, image_shape: Shape, *, has_mixed: bool, compute_dtype: str = "float32"
) -> Networks:
    """Builds the networks for images of `image_shape` (height, width, channels), or for vectors (d,)."""
    pixels, is_vector = math.prod(image_shape), len(image_shape) == 1
    pyramid = PixelPyramid(image_shape, config.pixel_widths, config.latent_size)
    common = {
        "likelihood": config.likelihood,
        "noise_scale": config.noise_scale,
        "initial_log_scale": config.log_scale,
        "latent_size": config.latent_size,
        "pixels": pixels,
        "compute_dtype": compute_dtype,
        "is_vector": is_vector,
        "pixel_pyramid": pyramid if config.pixel_widths else None,
        "samples_pixels": config.sample_style == "pixels",
        "sample_temperature": config.sample_temperature,
    }
    widths, mirrored = config.mixed_widths, config.mixed_widths[::-1]
    if config.conditioning == "one_hot":
        return OneHotNetworks(
            **common,
            layers_encoder=OneHotLayers(widths, 2 * config.latent_size),
            layers_decoder=OneHotLayers(mirrored, pixels),
        )
    local_decoder = LocalDecoder(config.local, image_shape) if config.local != "none" else None
    patch_features = local_decoder.inputs if local_decoder else 0
    noise_rank = min(config.noise_rank, pixels) if config.likelihood == "gaussian" else 0
    return GrowingNetworks(
        **common,
        mixed_encoder=MixedNeurons(widths) if has_mixed else None,
        mixed_decoder=MixedNeurons(mirrored) if has_mixed else None,
        category_encoder=CategoryEncoder(config.category_widths, config.latent_size),
        category_decoder=CategoryDecoder(config.category_widths[::-1], config.output_rank, pixels, patch_features),
        local_decoder=local_decoder,
        prior_components=config.prior_components,
        noise_rank=noise_rank,
        texture=noise_rank > 0 and config.sample_style == "texture" and not is_vector,
    )
