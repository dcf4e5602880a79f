"""Dicts and sets whose keys are tensors, as in an optimiser of the user's own: both modes, several calls."""

import collections

import duograd as dg
import pytest


def _seen(x):
    if isinstance(x, dg.Tensor):
        return x.tolist(), x.requires_grad
    if isinstance(x, dict):
        return [(k, _seen(v)) for k, v in x.items()]
    return [_seen(y) for y in x] if isinstance(x, (list, tuple)) else x


class Optimizer:
    """Momentum, with what it keeps of each parameter under the parameter itself."""

    def __init__(self, params, state):
        self.params, self.state, self.count = [*params], state, 0

    def step(self):
        self.count += 1
        with dg.no_grad():
            for p in self.params:
                if p.grad is not None:
                    before = self.state.get(p)
                    m = p.grad * 0.1 if before is None else before * 0.9 + p.grad * 0.1
                    self.state[p] = m
                    p -= m / (1 - 0.9**self.count)


class Nested(Optimizer):
    def step(self):
        with dg.no_grad():
            for p in self.params:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state["step"], state["m"] = 0, dg.zeros_like(p)
                    state["step"] += 1
                    state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
                    p.add_(state["m"], alpha=-0.1 / (1 - 0.9 ** state["step"]))


def _trained(make, between):
    def case(jit):
        dg.manual_seed(3)
        m, found = dg.nn.Linear(2, 2), []
        optimizer = make(m.parameters())

        def fn(x):
            m.zero_grad()
            loss = m(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        f = jit(fn)
        for k in range(7):
            found.append(_seen([f(dg.ones((1, 2))), *m.parameters(), [*optimizer.state.values()]]))
            between(k, m, optimizer)
        return found

    return case


def _change(k, m, optimizer):
    if k in (2, 4):
        m.bias.requires_grad_(k == 4)
    if k == 3:
        optimizer.state.clear()


def _written_by_keys(jit):
    a, b, kept = dg.ones(1), dg.ones(1) * 5, {}
    row, found = [a, b], []

    def fn(x):
        for k, p in enumerate(row):
            kept[p] = x * (k + 1)
        return sum(kept.values())

    f = jit(fn)
    for k in range(6):
        found.append(_seen([f(dg.ones(1)), [*kept.values()]]))
        if k == 2:
            row.reverse()
        if k == 3:
            kept.clear()
        if k == 4:
            row.pop()
    return found


def _walked_in_another_order(jit):
    a, b = dg.ones(1), dg.ones(1)  # equal, and two
    kept, found = {a: 1, b: 2}, []

    def fn(x):
        for k, v in kept.items():
            x = x * k + v
        return x

    f = jit(fn)
    for k in range(6):
        found.append(_seen(f(dg.ones(1))))
        if k in (1, 3):
            kept.clear()
            kept.update({b: 1, a: 2} if k == 1 else {dg.ones(1): 1, a: 2})
            b.mul_(3.0)
    return found


def _replaced(jit):
    a, b = dg.ones(2), dg.ones(2) * 2
    held, found = [{a: dg.ones(2), b: dg.ones(2) * 2}], []

    def fn(x):
        held[0] = {k: v + x * k for k, v in held[0].items()}
        return held[0][a]

    f = jit(fn)
    for k in range(6):
        found.append(_seen([f(dg.ones(2)), [*held[0].values()]]))
        if k == 2:
            held[0][b] = dg.zeros(2)
        if k == 3:
            held[0] = {b: held[0][b], a: held[0][a]}
        if k == 4:
            held[0][dg.ones(2)] = dg.ones(2)
    return found


CASES = {
    "flat": _trained(lambda p: Optimizer(p, {}), _change),
    "nested": _trained(lambda p: Nested(p, collections.defaultdict(dict)), _change),
    "written": _written_by_keys,
    "walked": _walked_in_another_order,
    "replaced": _replaced,
}


@pytest.mark.parametrize("case", CASES)
def test_keys_that_are_tensors_are_those_very_tensors(case):
    found = [
        _seen(CASES[case](lambda fn, mode=mode: dg.function(fn, mode=mode))) for mode in ("eager", "graph")
    ]
    assert found[0] == found[1]
