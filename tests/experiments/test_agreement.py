"""Agreement of devices, on a CPU that is one device and on one that is four."""

import json

import pytest


@pytest.mark.slow
def test_agreement_finds_no_difference_between_virtual_devices(launch, tmp_path):
    figures = {}
    for count in (1, 4):
        file = tmp_path / f"{count}.json"
        env = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        ended = launch("benchmark", "--what=agreement", f"--output={file}", env=env)
        assert ended.code == 0, ended.err
        figures[count] = json.loads(file.read_text())
    assert [len(values["differences"]) for values in figures.values()] == [1, 4]
    # One device and four distribute work over threads differently, so their sums round differently.
    assert figures[1]["evidence_deviation"] == pytest.approx(figures[4]["evidence_deviation"], rel=1e-5)
    for differences in (*figures[1]["differences"].values(), *figures[4]["differences"].values()):
        assert differences == {"evidence": 0, "imagined": 0, "evidence_after_learning": 0}
