"""Settings of the networks: a frozen, hashable dataclass."""

from dataclasses import dataclass

from lifelong_cvae.deprecated import accept_old_settings
from lifelong_cvae.errors import check, check_choice, check_not_negative, check_positive

CONDITIONINGS = ("neurons", "one_hot")
NOISE_SCALES = ("shared", "own")
LIKELIHOODS = ("gaussian", "bernoulli")
LOCALS = ("none", "patches", "convolution")
SAMPLE_STYLES = ("pixels", "texture", "contrast", "mean")


@accept_old_settings
@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of the networks, the same for every category.

    Attributes:
        conditioning: parameters that a category adds. `neurons`: neurons in every layer. `one_hot`: a vector in the
            first layer of encoder and decoder, the one-hot CVAE; category_widths, output_rank, local,
            prior_components, noise_rank and sample_style are then unused.
        mixed_widths: neurons of the mixed part per hidden layer of the encoder; the decoder mirrors them. Unused
            in mixed mode `none`.
        category_widths: neurons of a category per hidden layer, as many layers.
        output_rank: rank of a category's map from its last hidden layer to the pixels.
        local: decoder of local structure beside that map: `none`, `patches` or `convolution` (`layers.LocalDecoder`).
        latent_size: dimension of z.
        likelihood: `gaussian` or `bernoulli`.
        noise_scale: standard deviation of the Gaussian. `shared`: one constant. `own`: learned per pixel and
            category (per pixel with `one_hot`), log scale at least -2.5.
        log_scale: log of the shared standard deviation for pixels in [0, 1]; initial value of a learned one.
        prior_components: Gaussians in the mixture p(z|c) that is fitted after training. 0 keeps N(0, I).
        noise_rank: directions of low-rank residual noise (`low_rank_noise`), Gaussian likelihood only. 0: white noise.
        pixel_widths: neurons of a category's pixel models per hidden layer (`pixel_pyramid`), which learn edges and
            texture that the decoder leaves out. Empty: no pixel models.
        sample_temperature: factor on the deviation of z from the prior's mean in imagined images. Above 1 they are
            more varied.
        sample_style: images that `imagine` returns. `mean`: the decoder's mean. `contrast`: the mean with the
            contrast of real images. `texture`: with low-rank noise on top (`cvae.sample_image`). `pixels`: samples of
            the pixel models.
    """

    conditioning: str = "neurons"
    mixed_widths: tuple[int, ...] = (400, 400)
    category_widths: tuple[int, ...] = (80, 80)
    output_rank: int = 48
    local: str = "none"
    latent_size: int = 8
    likelihood: str = "gaussian"
    noise_scale: str = "shared"
    log_scale: float = -1.75
    prior_components: int = 50
    noise_rank: int = 50
    pixel_widths: tuple[int, ...] = ()
    sample_temperature: float = 1.0
    sample_style: str = "texture"

    def __post_init__(self):
        check_choice("conditioning", self.conditioning, CONDITIONINGS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        check_choice("noise_scale", self.noise_scale, NOISE_SCALES)
        check_choice("local", self.local, LOCALS)
        check_choice("sample_style", self.sample_style, SAMPLE_STYLES)
        for name in ("mixed_widths", "category_widths"):
            widths = getattr(self, name)
            check(len(widths) > 0, f"setting {name}: expected at least one layer, got none")
            check_positive(name, *widths)
        if self.pixel_widths:
            check_positive("pixel_widths", *self.pixel_widths)
            check_choice("conditioning", self.conditioning, ("neurons",))
        check(
            self.sample_style != "pixels" or bool(self.pixel_widths),
            "setting sample_style=pixels: expected pixel_widths, got none",
        )
        check(
            self.conditioning == "one_hot" or len(self.mixed_widths) == len(self.category_widths),
            "settings mixed_widths and category_widths: expected the same number of layers, "
            f"got {self.mixed_widths} and {self.category_widths}",
        )
        check_positive("output_rank", self.output_rank)
        check_positive("latent_size", self.latent_size)
        check_positive("sample_temperature", self.sample_temperature)
        check_not_negative("prior_components", self.prior_components)
        check_not_negative("noise_rank", self.noise_rank)
