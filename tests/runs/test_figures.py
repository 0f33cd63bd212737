import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lifelong_cvae import plotting, sampling
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.runs import figures
from lifelong_cvae.state import category_rng


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn instead of files: name to the rows of the grid."""
    grids = {}
    monkeypatch.setattr(plotting, "image_grid", lambda rows, file, title="": grids.update({file.name: rows}))
    return grids


def test_a_row_for_each_task_shows_the_same_latents(learner, drawn, tmp_path, rng):
    (tmp_path / "figures").mkdir()
    younger = learner.replace(names=("2", "0"), visits=(0, 0))
    figures.save_imagined_grid(tmp_path, figures.sample_grid(younger, rng=rng), 1)
    figures.save_imagined_grid(tmp_path, figures.sample_grid(learner, rng=rng), 3)  # nothing was drawn after task 2
    figures.plot_over_tasks(tmp_path, learner, 3)
    rows = drawn["over_tasks.png"]
    assert list(rows) == ["after task 1", "after task 3"]
    first, last = rows.values()
    assert first.shape == last.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(first[:2], last[:2])
    assert (first[2] == 0).all()
    assert last[2].max() > 127
    np.testing.assert_allclose(last[0] / 255, drawn["imagined_003.png"]["2"][0], atol=0.6 / 255)


def test_the_circle_is_drawn_turn_by_turn_from_a_real_and_an_imagined_image(learner, mnist5k, drawn, tmp_path, rng):
    figures.plot_circle(learner, mnist5k, "test", tmp_path / "circle.png", rng=rng)
    rows = drawn["circle.png"]
    assert list(rows)[:2] == ["2, real", "2, imagined"]
    assert all(images.shape == (len(figures.TURNS), 28, 28, 1) for images in rows.values())
    real = rows["2, real"]
    np.testing.assert_allclose(real[0], mnist5k.read("test", "2")[0] / 255, atol=1e-6)
    # The second column is one turn of the first, and turns change images.
    path, x = learner.model("2"), real[0].reshape(1, -1)
    keys = [jax.random.fold_in(category_rng(rng, "2", 0), turn) for turn in range(2)]
    z, mean = cvae.circulate(path, np.zeros((1, 4), np.float32), x, 1, rng=keys[0])
    np.testing.assert_allclose(real[1].reshape(1, -1), cvae.sample_image(path, z), atol=1e-4)
    # It is the mean that goes on.
    z, _ = cvae.circulate(path, z, mean, 1, rng=keys[1])
    np.testing.assert_allclose(real[2].reshape(1, -1), cvae.sample_image(path, z), atol=1e-4)
    assert np.abs(real[1] - real[2]).max() > 0.01


def test_a_walk_leads_along_the_widest_direction_and_reaches_two_deviations(learner, drawn, tmp_path):
    figures.plot_latent_walk(learner, tmp_path / "walk.png")
    rows = drawn["walk.png"]
    assert list(rows) == list(learner.names)
    for name in learner.names:
        path = learner.model(name)
        z = mixture_prior.sample(path.prior, 20_000, rng=jax.random.key(3))
        mean, axis = np.mean(z, axis=0), np.linalg.svd(np.cov(np.asarray(z), rowvar=False))[0][:, 0]
        reach = 2 * np.std(z @ axis)
        ends = np.asarray(cvae.sample_image(path, jnp.asarray([mean - reach * axis, mean + reach * axis])))
        shown = rows[name][[0, -1]].reshape(2, -1)
        forth, back = (np.abs(shown - e).mean() for e in (ends, ends[::-1]))
        assert min(forth, back) < 0.02 < np.abs(shown[0] - shown[1]).mean()


def test_an_interpolation_begins_in_one_category_and_ends_in_the_next(learner, drawn, tmp_path, rng):
    figures.plot_interpolation(learner, tmp_path / "interpolation.png", rng=rng)
    rows = drawn["interpolation.png"]
    assert list(rows) == ["2 to 0", "0 to 1", "1 to 2"]
    imagined = sampling.imagine(learner, learner.names, 1, rng=rng)
    for row, (first, second) in zip(rows.values(), ["20", "01", "12"], strict=True):
        assert row.shape == (figures.IMAGES_PER_ROW, 28, 28, 1)
        for name, image in ((first, row[0]), (second, row[-1])):
            path, x = learner.model(name), imagined[name].reshape(1, -1)
            expected = cvae.sample_image(path, cvae.encode(path, x).mean)
            np.testing.assert_allclose(image.reshape(1, -1), expected, atol=1e-4)
