import jax
import jax.numpy as jnp

from lifelong_cvae.benchmarks.timing import medians


def test_functions_take_turns_after_each_has_run_once():
    calls = []

    def function(name):
        calls.append(name)
        return jnp.ones(3)

    seconds = medians({name: lambda name=name: function(name) for name in "ab"}, rounds=3)
    assert calls == list("ab" * 4)
    assert list(seconds) == ["a", "b"]
    assert all(value >= 0 for value in jax.tree.leaves(seconds))
