import jax
import jax.numpy as jnp

from experiments.benchmarks.timing import median_seconds


def test_median_seconds_calls_functions_in_turns_after_one_call_of_each():
    calls = []

    def function(name):
        calls.append(name)
        return jnp.ones(3)

    seconds = median_seconds({name: lambda name=name: function(name) for name in "ab"}, rounds=3)
    assert calls == list("ab" * 4)
    assert list(seconds) == ["a", "b"]
    assert all(value >= 0 for value in jax.tree.leaves(seconds))
