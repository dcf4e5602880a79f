"""Values that are computed again where they are read, instead of kept: the bits, the memory, what is left alone."""

import duograd as dg
import numpy as np
import pytest
from duograd.graph.passes import fuse
from duograd.nn import functional as F


def tensors(*shapes):
    rng = np.random.default_rng(0)
    return [dg.tensor(rng.standard_normal(s).astype(np.float32)) for s in shapes]


def norm_step(x, weight, bias, w):
    """A layer norm between products, whose way back reads the normalised value twice."""

    def objective(x, weight, bias, w):
        y = dg.relu(x @ w)
        return ((F.layer_norm(y, (y.shape[-1],), weight, bias) @ w) ** 2).sum()

    return dg.grad(objective, argnums=(0, 1, 2, 3))(x, weight, bias, w)


CASES = {
    "layer norm": (norm_step, ((24, 32), (32,), (32,), (32, 32))),
}


def compiled(fn, args):
    made = dg.function(fn)
    results = made(*args)
    (runner,) = made.variants[0].runners()
    return results, runner.compiled


@pytest.mark.parametrize("case", CASES)
def test_what_is_computed_again_has_the_same_bits_and_takes_less(case, monkeypatch):
    fn, shapes = CASES[case]
    args = tensors(*shapes)
    eager = fn(*args)
    results, chosen = compiled(fn, args)
    assert any("computed again" in note for note in chosen.optimised.notes)
    monkeypatch.setattr(fuse, "choose", lambda groups, rules: [])
    _, kept = compiled(lambda *args: fn(*args), args)
    assert not any("computed again" in note for note in kept.optimised.notes)
    assert chosen.arena_bytes <= kept.arena_bytes
    assert chosen.unplanned_bytes < kept.unplanned_bytes
    for one, other in zip(results, eager):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_dear_values_and_values_of_dead_ones_are_kept():
    """exp costs more than its way through memory; what two large values would have to be kept for is kept itself."""

    def dear(x, w):
        y = dg.exp(x @ w)
        return y / y.sum(-1, keepdims=True) + y.sum(0), (y * 2).sum(0)

    def two(x, w):
        a, b = x @ w, (x + 1) @ w
        y = a * b
        return (y - y.sum(0)).sum(-1), y.max(-1) + y.sum(-1)

    for fn in (dear, two):
        args = tensors((16, 32), (32, 32))
        results, found = compiled(fn, args)
        assert not any("computed again" in note for note in found.optimised.notes)
        for one, other in zip(results, fn(*args)):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_state_that_the_call_changes_is_not_read_again_after_it():
    (state,) = tensors((16, 32))

    def step(x, w):
        y = state * 2 + x
        s = (y - y.sum(0, keepdims=True)).sum(-1, keepdims=True)
        state.copy_(state + 1)
        return (y * s @ w).sum(0), (y * s).max(-1)

    args = tensors((16, 32), (32, 8))
    before = state.numpy().copy()
    expected = step(*args)
    state.copy_(dg.tensor(before))
    for one, other in zip(dg.function(step)(*args), expected):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
