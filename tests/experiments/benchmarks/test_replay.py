import pytest

from experiments.benchmarks import replay


@pytest.mark.slow
def test_step_seconds_times_every_number_of_categories(small_config, rng):
    config = small_config.with_settings({"mixed_mode": "playback"})
    seconds = replay.step_seconds(config, (8, 8), (1, 5), rng=rng)
    assert list(seconds) == ["1", "5"]
    assert all(0 < value < 10 for value in seconds.values())
