import numpy as np
import pytest

from experiments.benchmarks import growth
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.many_categories import ShiftedCategories


def test_shifted_categories_are_shifted_images_of_the_source(mnist5k):
    categories = ShiftedCategories(mnist5k, 1000)
    assert len(set(categories.names)) == 1000
    assert categories.names[:2] == ("0 at 0,0", "1 at 0,0")
    shifted = categories.read("test", "7 at 2,11")
    original = mnist5k.read("test", "7")
    np.testing.assert_array_equal(shifted[:, 2:, 11:], original[:, :-2, :-11])
    np.testing.assert_array_equal(np.sort(shifted.ravel()), np.sort(original.ravel()))
    shifts = {name.partition(" at ")[2] for name in categories.names}
    assert len(shifts) == 100


def test_read_alternating_takes_categories_in_turns(mnist5k):
    categories = ShiftedCategories(mnist5k, 1000)
    images, names = categories.read_alternating(categories.names[:3], 7)
    assert list(names) == [categories.names[index] for index in (0, 1, 2, 0, 1, 2, 0)]
    np.testing.assert_array_equal(images[4], categories.read("test", categories.names[1])[1])


@pytest.mark.slow
def test_growth_measures_every_number_of_categories(small_config, mnist5k):
    benchmark_config = BenchmarkConfig(0, small_config, lambda: mnist5k, {})
    settings = {"mixed_mode": "playback", "prior_components": 0, "sample_style": "mean", "random_features": 32}
    sizes = {"counts": (2, 4, 6), "candidates": 3, "images": (24, 12)}
    figures = growth.growth(benchmark_config, settings=settings, **sizes)
    assert [row["categories"] for row in figures["rows"]] == [2, 4, 6]
    few, _, many = figures["rows"]
    assert "images_a_second_in_two_stages" not in few
    assert all(value >= 0 for value in many.values())
    assert 0 < many["recall"] <= 1
    assert figures["step_ratio"] == many["seconds_a_step"] / few["seconds_a_step"]
    assert figures["compilations_of_the_step"] == 3  # no replay, stacks of up to four categories, of up to eight
    assert figures["images_a_second_default_network"] > 0
