"""The figures of an accelerator: every part is written once it ends, whatever happens to the others."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks import accelerator, thousand
from experiments.benchmarks.accelerator import Part
from experiments.benchmarks.config import BenchmarkConfig


def part(name, code, **values):
    def read(seconds):
        return values if "what" in values else {"whole command, s": seconds, **values}

    return Part(name, ["-c", code], read)


def test_run_parts_saves_after_each_part_and_goes_on_after_errors(capsys):
    saved = []
    parts = [
        part("run", "", **{"accuracy, %": 99.0}),
        part("failing", "import sys; sys.exit('error: no such device')"),
        part("roofline", "", what="roofline", ratio=0.5),
        part("hanging", "import time; time.sleep(60)"),
        part("late", ""),
    ]
    figures = accelerator.run_parts(parts, lambda values: saved.append(json.dumps(values)), limit=4)
    (row,) = figures["rows"]
    assert (row["what"], row["accuracy, %"]) == ("run", 99.0)
    assert 0 < row["whole command, s"] < 4
    assert figures["roofline"] == {"what": "roofline", "ratio": 0.5}
    assert figures["errors"].keys() == {"failing", "hanging", "late"}
    assert figures["errors"]["failing"] == "error: no such device"
    assert "did not end within" in figures["errors"]["hanging"]
    assert figures["errors"]["late"] == "not started: no time was left"
    assert len(saved) == 4
    assert json.loads(saved[1])["rows"] == figures["rows"]
    assert "4/5 hanging" in capsys.readouterr().err


def test_parts_are_commands_that_their_launchers_accept(small_config, tmp_path):
    config = BenchmarkConfig(3, small_config, lambda: None, {"dataset": "idx:folder", "set": ["epochs=1"]})
    parts = accelerator.parts(tmp_path, config)
    assert [part.name for part in parts][:3] == ["learn, nothing compiled", "learn, compiled before", "thousand"]
    assert all({"--dataset=idx:folder", "--set=epochs=1"} <= {*part.command} for part in parts)
    for part in (parts[3], parts[-1]):
        module, flags = part.command[1], part.command[2:]
        parse = f"import {module}; from experiments import launcher; launcher.run(lambda: None)"
        subprocess.run([sys.executable, "-c", parse, *flags], check=True, cwd=accelerator.ROOT)


def test_read_run_returns_the_figures_of_a_run(tmp_path):
    (tmp_path / "result.json").write_text(
        '{"schema": 1, "seconds_total": 30.0, "accuracy": 0.99, "accuracy_elbo": 0.98}'
    )
    (tmp_path / "metrics.jsonl").write_text('{"seconds": 2.0}\n{"seconds": 3.5}\n')
    figures = accelerator._read_run(tmp_path, 41.5)
    assert figures["whole command, s"] == 41.5
    assert (figures["run, s"], figures["learning, s"], figures["slowest task, s"]) == (30.0, 5.5, 3.5)
    assert (figures["accuracy, %"], figures["by ELBO, %"]) == (99.0, 98.0)


@pytest.mark.slow
def test_thousand_learns_shifted_categories_in_one_task(small_config, mnist5k):
    config = small_config.with_settings({"num_filters": 8, "random_features": 64})
    figures = thousand.thousand(BenchmarkConfig(0, config, lambda: mnist5k, {}), categories=9, images=40)
    assert (figures["categories"], figures["images_of_each"]) == (9, 40)
    assert figures["accuracy"] > 0.5
    assert figures["learning_seconds"] > 0


@pytest.mark.slow
def test_accelerator_measures_a_whole_run(small_config, tmp_path):
    config = BenchmarkConfig(0, small_config, lambda: None, {})
    figures = accelerator.run_parts(accelerator.parts(tmp_path, config)[:1], lambda _: None)
    assert figures["rows"][0]["accuracy, %"] > 95
    assert not figures["errors"]
