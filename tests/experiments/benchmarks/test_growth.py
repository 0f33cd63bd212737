import numpy as np
import pytest

from experiments.benchmarks import growth
from experiments.benchmarks.config import BenchmarkConfig
from experiments.benchmarks.many_categories import Crowd


def test_a_crowd_is_a_sources_images_in_other_places(mnist5k):
    crowd = Crowd(mnist5k, 1000)
    assert len(set(crowd.names)) == 1000
    assert crowd.names[:2] == ("0 at 0,0", "1 at 0,0")
    moved = crowd.read("test", "7 at 2,11")
    original = mnist5k.read("test", "7")
    np.testing.assert_array_equal(moved[:, 2:, 11:], original[:, :-2, :-11])
    np.testing.assert_array_equal(np.sort(moved.ravel()), np.sort(original.ravel()))
    places = {name.partition(" at ")[2] for name in crowd.names}
    assert len(places) == 100
    images, names = crowd.mixed(crowd.names[:3], 7)
    assert list(names) == [crowd.names[index] for index in (0, 1, 2, 0, 1, 2, 0)]
    np.testing.assert_array_equal(images[4], crowd.read("test", crowd.names[1])[1])


@pytest.mark.slow
def test_growth_is_measured_for_every_number_of_categories(small_config, mnist5k):
    setting = BenchmarkConfig(0, small_config, lambda: mnist5k, {})
    settings = {"mixed_mode": "playback", "prior_components": 0, "sample_style": "mean"}
    counts = {"counts": (2, 4, 6), "candidates": 3, "images": (24, 12)}
    figures = growth.growth(setting, settings=settings, **counts)
    assert [row["categories"] for row in figures["rows"]] == [2, 4, 6]
    few, _, many = figures["rows"]
    assert "images_a_second_in_two_stages" not in few
    assert all(value >= 0 for value in many.values())
    assert 0 < many["recall"] <= 1
    assert figures["step_ratio"] == many["seconds_a_step"] / few["seconds_a_step"]
    assert figures["compilations_of_the_step"] == 3  # nothing to remember, up to four, up to eight
    assert figures["images_a_second_default_network"] > 0
