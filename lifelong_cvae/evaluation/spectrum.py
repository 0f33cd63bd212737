"""Power spectra of images: how much fine structure imagined images have, beside real ones."""

from typing import Any, NamedTuple

import numpy as np

from lifelong_cvae.images import check_image_shape, flatten_images, to_float

# Octaves in cycles per image: from the first number up to the second.
OCTAVES = ((1, 2), (2, 4), (4, 8), (8, 16))
# Weights of red, green and blue in the luminance (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


class Spectrum(NamedTuple):
    """Radially averaged power spectrum.

    Attributes:
        frequencies: cycles per image, whole numbers from 1 on, `[n]`.
        power: mean squared magnitude of the Fourier coefficients at about this frequency, `[n]`.
        octaves: mean power of the coefficients in each of `OCTAVES`; those beyond the images' resolution are missing.
    """

    frequencies: np.ndarray
    power: np.ndarray
    octaves: np.ndarray


def power_spectrum(images: Any) -> Spectrum:
    """Computes the spectrum of the luminance, after the mean image is subtracted.

    Args:
        images: uint8 or float in [0, 1], `[n, h, w, c]`. Of another number of channels than three the mean is used.
    """
    shape = check_image_shape(np.shape(images)[1:])
    pixels = to_float(flatten_images(images, shape)).reshape(-1, *shape)
    gray = pixels @ np.float32(LUMINANCE) if shape[-1] == 3 else pixels.mean(axis=-1)
    power = np.square(np.abs(np.fft.fft2(gray - gray.mean(axis=0)))).mean(axis=0)
    down, across = (size * np.fft.fftfreq(size) for size in shape[:2])
    radius = np.hypot(down[:, None], across[None])
    frequencies = np.arange(1, min(shape[:2]) // 2 + 1)
    octaves = [power[(radius >= low) & (radius < high)] for low, high in OCTAVES if low < min(shape[:2]) / 2]
    return Spectrum(
        frequencies,
        np.asarray([power[np.round(radius) == frequency].mean() for frequency in frequencies]),
        np.asarray([values.mean() for values in octaves]),
    )


def spectrum_metrics(images: Any, real: Any) -> dict[str, Any]:
    """Compares the spectra of images and of real ones.

    Returns:
        `octaves`: ratio of the power in each of `OCTAVES` to that of real images; `deviation`: the largest distance of
        such a ratio from 1; `frequencies`, `power` and `real_power` as in `Spectrum`.
    """
    spectrum, of_real = power_spectrum(images), power_spectrum(real)
    ratios = spectrum.octaves / of_real.octaves
    return {
        "octaves": {f"{low}-{high}": float(ratio) for (low, high), ratio in zip(OCTAVES, ratios, strict=False)},
        "deviation": float(np.abs(ratios - 1).max()),
        "frequencies": spectrum.frequencies.tolist(),
        "power": spectrum.power.tolist(),
        "real_power": of_real.power.tolist(),
    }


def reconstruction_metrics(reconstructed: Any, real: Any) -> dict[str, Any]:
    """Compares reconstructions with the images that they reconstruct, in the same order.

    Returns:
        `squared_error`: mean over all pixels in [0, 1]; `spectrum`: `spectrum_metrics`.
    """
    shape = check_image_shape(np.shape(real)[1:])
    first, second = (to_float(flatten_images(images, shape)) for images in (reconstructed, real))
    return {"squared_error": float(np.square(first - second).mean()), "spectrum": spectrum_metrics(reconstructed, real)}
