"""Gradients taken inside a graph function of tensors from outside that have a history there."""

import duograd as dg
import pytest


def _lead(a, b, mode):
    return dg.function(lambda x: dg.autograd.grad((x * x).sum(), [a], allow_unused=True), mode=mode), (
        lambda: a * 2, lambda: b * 2, lambda: dg.ones(3).requires_grad_(), lambda: a[:2],
    )  # fmt: skip


def _both_ways(a, b, mode):
    return dg.function(lambda x: dg.autograd.grad((x * a).sum(), [a, x]), mode=mode), (
        lambda: dg.ones(3).requires_grad_(), lambda: a * 2, lambda: a.exp(),
    )  # fmt: skip


def _to_itself(a, b, mode):
    return dg.function(lambda x: dg.autograd.grad((x * b).sum(), [x]), mode=mode), (lambda: a * 2,)


def _changed_inside(a, b, mode):
    def fn(x):
        x.add_(a)
        return dg.autograd.grad((x * a).sum(), [a])

    return dg.function(fn, mode=mode), (lambda: dg.ones(3), lambda: a * 2)


def _carried(a, b, mode):
    held = [a * 2]

    def fn(x):
        found = dg.autograd.grad((held[0] * a * x).sum(), [a], retain_graph=True)
        held[0] = held[0] * a
        return found

    return dg.function(fn, mode=mode), (lambda: dg.ones(3),)


def _between(a, b, mode):
    y = a * 2
    z = y * 3
    return dg.function(lambda x: dg.autograd.grad((z * b * x).sum(), [y, b], retain_graph=True), mode=mode), (
        lambda: dg.ones(3),
    )


@pytest.mark.parametrize("case", [_lead, _both_ways, _to_itself, _changed_inside, _carried, _between])
def test_a_gradient_inside_goes_on_to_what_made_a_tensor_outside(case):
    seen = []
    for mode in ("eager", "graph"):
        a, b = dg.tensor([1.0, 2.0, 3.0]).requires_grad_(), dg.tensor([0.5, 1.0, 2.0]).requires_grad_()
        fn, makes = case(a, b, mode)
        seen.append([[None if g is None else g.tolist() for g in fn(make())] for make in makes * 3])
    assert seen[0] == seen[1]


def test_a_gradient_that_ends_at_an_argument_stays_in_the_graph():
    a = dg.ones(3).requires_grad_()
    fn = dg.function(lambda x: dg.autograd.grad((x * x).sum(), [x]))
    for _ in range(3):
        assert fn(a * 2)[0].tolist() == [4.0, 4.0, 4.0]
    assert "every call" not in fn.explain()


@pytest.mark.parametrize("of_leaf", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_a_gradient_inside_passes_the_hooks_that_its_target_has_by_now(given, of_leaf):
    seen = []
    for mode in ("eager", "graph"):
        a = dg.tensor([1.0, 2.0]).requires_grad_()
        t, rows = a if of_leaf else a * 2, []
        fn = dg.function(
            (lambda x: dg.autograd.grad((x * x).sum(), [x])[0])
            if given
            else (lambda x, t=t: dg.autograd.grad((t * t * x.detach()).sum(), [t])[0]),
            mode=mode,
        )
        for k in range(8):
            rows.append(fn(t).tolist())
            if k == 2:
                remove = t.register_hook(lambda g: g * 3)
            if k == 4:
                remove()
            if k == 5:
                t.register_hook(lambda g: g * 5)
        seen.append(rows)
    assert seen[0] == seen[1]
