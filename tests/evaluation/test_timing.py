import json

import pytest

import lifelong_cvae as lifelong
from lifelong_cvae.evaluation import timing


@pytest.mark.slow
def test_a_playback_step_is_timed_for_every_number_of_categories(small_config, rng):
    config = small_config.with_settings({"mixed_mode": "playback"})
    seconds = timing.playback_step(config, (8, 8), (1, 5), rng=rng)
    assert list(seconds) == ["1", "5"]
    assert all(0 < value < 10 for value in seconds.values())


def test_figures_are_written_with_what_measured_them(tmp_path, monkeypatch):
    monkeypatch.setitem(timing.BENCHMARKS, "playback", lambda rng: {"ratio": 1.5})
    values = timing.benchmark("playback", tmp_path / "b.json", seed=0)
    written = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert written == {"schema": 1, **values}
    assert written["ratio"] == 1.5
    assert {"what", "versions", "device"} <= set(written)
    with pytest.raises(lifelong.InputError, match="no such folder"):
        timing.benchmark("playback", tmp_path / "none" / "b.json", seed=0)
