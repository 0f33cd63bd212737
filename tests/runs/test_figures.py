"""Figures of a run: the images in each row of each grid."""

import jax
import numpy as np
import pytest

from lifelong_cvae import plotting, sampling
from lifelong_cvae.runs import figures
from lifelong_cvae.state import category_rng
from tests.compiled import circulate, encode, sample_image, sample_prior


@pytest.fixture
def grids(monkeypatch):
    """File name to the rows of the grid that is drawn, in place of PNG files."""
    grids = {}
    monkeypatch.setattr(plotting, "image_grid", lambda rows, file, title="": grids.update({file.name: rows}))
    return grids


def test_plot_over_tasks_shows_same_latents_in_each_row(learner, grids, tmp_path, rng):
    (tmp_path / "figures").mkdir()
    younger = learner.replace(names=("2", "0"), visits=(0, 0))
    figures.save_imagined_grid(tmp_path, figures.sample_grid(younger, rng=rng), 1)
    figures.save_imagined_grid(tmp_path, figures.sample_grid(learner, rng=rng), 3)  # task 2 has no figure
    figures.plot_over_tasks(tmp_path, learner, 3)
    rows = grids["over_tasks.png"]
    assert list(rows) == ["after task 1", "after task 3"]
    first, last = rows.values()
    assert first.shape == last.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(first[:2], last[:2])
    assert (first[2] == 0).all()
    assert last[2].max() > 127
    np.testing.assert_allclose(last[0] / 255, grids["imagined_003.png"]["2"][0], atol=0.6 / 255)


def test_plot_circle_shows_real_and_imagined_image_after_each_turn(learner, mnist5k, grids, tmp_path, rng):
    figures.plot_circle(learner, mnist5k, "test", tmp_path / "circle.png", rng=rng)
    rows = grids["circle.png"]
    assert list(rows)[:2] == ["2, real", "2, imagined"]
    assert all(images.shape == (len(figures.TURNS), 28, 28, 1) for images in rows.values())
    real = rows["2, real"]
    np.testing.assert_allclose(real[0], mnist5k.read("test", "2")[0] / 255, atol=1e-6)
    imagined = sampling.imagine(learner, ["2"], 1, rng=rng)["2"][0]
    np.testing.assert_allclose(rows["2, imagined"][0], imagined, atol=1e-6)
    # The second column is one turn of the first, and turns change images.
    model, x = learner.model("2"), real[0].reshape(1, -1)
    keys = jax.random.split(category_rng(rng, "2", 0), max(figures.TURNS))
    z, mean = circulate(model, np.zeros((1, 4), np.float32), x, 1, rng=keys[0])
    np.testing.assert_allclose(real[1].reshape(1, -1), sample_image(model, z), atol=1e-4)
    # The mean goes on to the next turn, not the displayed image.
    z, mean = circulate(model, z, mean, 1, rng=keys[1])
    np.testing.assert_allclose(real[2].reshape(1, -1), sample_image(model, z), atol=1e-4)
    assert np.abs(real[1] - real[2]).max() > 0.01
    # The last column is after ten turns.
    for key in keys[2:]:
        z, mean = circulate(model, z, mean, 1, rng=key)
    assert figures.TURNS[-1] == len(keys) == 10
    np.testing.assert_allclose(real[-1].reshape(1, -1), sample_image(model, z), atol=1e-3)


def test_plot_latent_walk_spans_two_deviations_of_widest_direction(learner, grids, tmp_path):
    figures.plot_latent_walk(learner, tmp_path / "walk.png")
    rows = grids["walk.png"]
    assert list(rows) == list(learner.names)
    for name in learner.names:
        model = learner.model(name)
        z = np.asarray(sample_prior(model.prior, 20_000, rng=jax.random.key(3)))
        mean, direction = np.mean(z, axis=0), np.linalg.svd(np.cov(z, rowvar=False))[0][:, 0]
        reach = 2 * np.std(z @ direction) * direction
        ends = np.asarray(sample_image(model, np.float32([mean - reach, mean + reach])))
        shown = rows[name][[0, -1]].reshape(2, -1)
        # The sign of a direction is arbitrary.
        forward, backward = (np.abs(shown - expected).mean() for expected in (ends, ends[::-1]))
        assert min(forward, backward) < 0.02 < np.abs(shown[0] - shown[1]).mean()


def test_plot_interpolation_starts_and_ends_at_reconstructions(learner, grids, tmp_path, rng):
    figures.plot_interpolation(learner, tmp_path / "interpolation.png", rng=rng)
    rows = grids["interpolation.png"]
    assert list(rows) == ["2 to 0", "0 to 1", "1 to 2"]
    imagined = sampling.imagine(learner, learner.names, 1, rng=rng)
    for row, (first, second) in zip(rows.values(), ["20", "01", "12"], strict=True):
        assert row.shape == (figures.IMAGES_PER_ROW, 28, 28, 1)
        for name, image in ((first, row[0]), (second, row[-1])):
            model, x = learner.model(name), imagined[name].reshape(1, -1)
            expected = sample_image(model, encode(model, x).mean)
            np.testing.assert_allclose(image.reshape(1, -1), expected, atol=1e-4)
