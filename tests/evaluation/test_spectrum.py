"""Power spectra, against waves whose spectrum is known."""

import numpy as np
import pytest

from lifelong_cvae.evaluation import spectrum

SIDE = 32


def waves(cycles, amplitude=0.2, count=50, seed=0):
    """Images `[n, side, side]` of horizontal waves with random phases."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (count, 1, 1))
    x = np.arange(SIDE)[None, None] / SIDE
    return np.float32(np.broadcast_to(0.5 + amplitude * np.cos(2 * np.pi * cycles * x + phases), (count, SIDE, SIDE)))


def centered(images):
    return images - images.mean(axis=0)


@pytest.mark.parametrize(("cycles", "octave"), [(1, 0), (3, 1), (4, 2), (15, 3)])
def test_power_spectrum_of_a_wave_is_in_its_octave(cycles, octave):
    found = spectrum.power_spectrum(waves(cycles))
    assert found.octaves.argmax() == octave
    assert np.sort(found.octaves)[-2] < 1e-6 * found.octaves.max()
    assert found.frequencies[found.power.argmax()] == cycles


def test_power_spectrum_subtracts_the_mean_image():
    pattern = np.random.default_rng(0).uniform(0, 0.5, (SIDE, SIDE))
    moved = waves(5) / 2 + np.float32(pattern)
    np.testing.assert_allclose(
        spectrum.power_spectrum(moved).octaves[2], spectrum.power_spectrum(waves(5)).octaves[2] / 4, rtol=1e-3
    )


def test_power_spectrum_of_white_noise_is_flat_and_its_variance():
    noise = np.float32(0.5 + 0.1 * np.random.default_rng(0).standard_normal((400, SIDE, SIDE, 1)))
    found = spectrum.power_spectrum(noise)
    np.testing.assert_allclose(found.octaves, 0.01 * SIDE**2, rtol=0.1)
    np.testing.assert_allclose(found.power, 0.01 * SIDE**2, rtol=0.15)


def test_power_spectrum_of_color_is_that_of_the_luminance():
    channels = [waves(2, seed=seed) for seed in range(3)]
    gray = sum(weight * channel for weight, channel in zip(spectrum.LUMINANCE, channels, strict=True))
    for found, expected in zip(
        spectrum.power_spectrum(np.stack(channels, -1)), spectrum.power_spectrum(gray), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_power_spectrum_of_small_images_has_the_octaves_that_they_resolve():
    assert len(spectrum.power_spectrum(waves(1)[:, ::4, ::4]).octaves) == 2


def test_spectrum_metrics_are_ratios_to_real_images():
    real = sum(centered(waves(cycles, seed=cycles)) for cycles in (1, 3, 6, 12)) / 8 + 0.5
    values = spectrum.spectrum_metrics(0.5 + 1.1 * (real - 0.5), real)
    assert values["octaves"] == pytest.approx(dict.fromkeys(("1-2", "2-4", "4-8", "8-16"), 1.21), rel=1e-3)
    assert values["deviation"] == pytest.approx(0.21, rel=1e-2)
    np.testing.assert_allclose(values["power"], spectrum.power_spectrum(0.5 + 1.1 * (real - 0.5)).power)
    np.testing.assert_allclose(values["real_power"], spectrum.power_spectrum(real).power)
