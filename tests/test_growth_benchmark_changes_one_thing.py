"""benchmarks.growth: every case is a config that loads, and differs from the others in what its axis says."""

import pytest

from benchmarks.growth import ATTENTION, CONV_STACK, axes, config_flags, overtaking
from musicssl_jax.config import load
from musicssl_jax.models.objective import make_objective


@pytest.mark.parametrize("size", ["base", "demo"])
def test_every_case_is_a_training(size):
    for axis in axes(size):
        configs = [load(config_flags(axis, value, size, "cpu"))[0] for value in axis.values]
        for config in configs:
            make_objective(config)
        assert len({config.to_json_best_effort() for config in configs}) == len(configs)


def test_attention_overtakes_between_the_lengths_where_it_does():
    def row(seconds, conv, attention):
        return {"value": seconds, "parts": {CONV_STACK: conv, ATTENTION: attention}}

    # Half of it at 10 s and twice of it at 20 s: in logarithms the middle is even.
    assert overtaking([row(20, 2.0, 4.0), row(10, 1.0, 0.5)]) == pytest.approx(200**0.5)
    assert overtaking([row(10, 1.0, 0.5), row(20, 2.0, 1.5)]) == float("inf")
    assert overtaking([{"value": 5, "parts": {}}]) == float("inf")
