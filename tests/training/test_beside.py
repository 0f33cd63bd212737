"""Work beside training: its settings, result and errors."""

import threading

import jax
import jax.numpy as jnp
import pytest

from lifelong_cvae.training.beside import run_beside


def test_run_beside_runs_while_the_context_goes_on():
    go_on = threading.Event()
    with run_beside(lambda: go_on.wait(60)) as result:
        go_on.set()
    assert result.result()


def test_run_beside_has_the_default_device_and_own_types():
    device = jax.devices()[0]
    with (
        jax.default_device(device),
        jax.enable_x64(True),
        run_beside(lambda: (jax.config.jax_default_device, jnp.ones(1).dtype)) as result,
    ):
        assert jnp.ones(1).dtype == "float64"
    assert result.result() == (device, "float32")


def test_run_beside_does_not_wait_after_an_error():
    go_on = threading.Event()
    with pytest.raises(KeyError), run_beside(go_on.wait) as result:
        raise KeyError
    assert not result.done()
    go_on.set()


def test_run_beside_raises_an_error_of_the_function_by_its_result():
    with run_beside(lambda: int("x")) as result:
        pass
    with pytest.raises(ValueError, match="'x'"):
        result.result()
