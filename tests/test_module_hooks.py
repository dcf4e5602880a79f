"""Hooks of modules and gradients that are kept, in both modes, beside PyTorch's."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn

MODES = ("eager", "graph")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: hooks are not compared with it")


def numbers(x):
    if x is None or isinstance(x, (str, int, float)):
        return x
    if isinstance(x, (tuple, list)):
        return [numbers(v) for v in x]
    return np.round(np.array(x.detach().tolist()), 4).tolist()


# ---------------------------------------------------------------- backward hooks


class Twice:
    """A module of both libraries: two results, arguments by position and by name."""

    def forward(self, x, n, y, *, bias=None):
        out = x * self.w + y * n
        return (out if bias is None else out + bias), x * 3

    @staticmethod
    def of(lib, tensor):
        made = type("Twice", (Twice, lib.nn.Module), {})()
        made.w = lib.nn.Parameter(tensor([2.0, 3.0]))
        return made


def watches(log, what):
    def hook(module, *grads):
        log.append((what, numbers(grads)))

    return hook


def scales(log):
    return lambda module, given, out: tuple(g if g is None else g * 2 for g in given)


def scales_results(log):
    return lambda module, out: tuple(g if g is None else g * 5 for g in out)


HOOKS = {
    "watches": [("full_backward_hook", lambda log: watches(log, "a"), {})],
    "watches before": [("full_backward_pre_hook", lambda log: watches(log, "p"), {})],
    "scales": [("full_backward_hook", scales, {}), ("full_backward_hook", lambda log: watches(log, "b"), {})],
    "scales results": [
        ("full_backward_pre_hook", scales_results, {}),
        ("full_backward_hook", lambda log: watches(log, "c"), {}),
    ],
    "in order": [
        ("full_backward_hook", lambda log: watches(log, "second"), {}),
        ("full_backward_hook", scales, {"prepend": True}),
        ("full_backward_pre_hook", lambda log: watches(log, "later"), {}),
        ("full_backward_pre_hook", scales_results, {"prepend": True}),
    ],
}  # fmt: skip
USES = {
    "one": lambda a, b: a.sum(),
    "both": lambda a, b: (a * b).sum(),
    "the other": lambda a, b: (b * b).sum(),
}


def gradients(lib, tensor, hooks, use, wanting, run):
    log = []
    module = Twice.of(lib, tensor)
    for kind, make, words in HOOKS[hooks]:
        getattr(module, f"register_{kind}")(make(log), **words)
    x, y, b = tensor([1.0, -1.0]), tensor([0.5, 2.0]), tensor([4.0, 5.0])
    for t, ask in zip((x, y, b), wanting):
        t.requires_grad_(ask)
    run(lambda: USES[use](*module(x, 2, y, bias=b)).backward())
    return numbers([x.grad, y.grad, b.grad, module.w.grad]), log


ALL, FIRST, NONE = (True, True, True), (True, False, False), (False, False, False)
WATCHED = [
    (hooks, use, wanting) for hooks in HOOKS for use in USES for wanting in (ALL, FIRST, NONE)
    # a hook may return no gradient where no argument requires one
    if wanting != NONE or (use != "the other" and hooks not in ("scales", "in order"))
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(("hooks", "use", "wanting"), WATCHED)
def test_backward_hooks_see_and_change_what_torch_shows(hooks, use, wanting, torch):
    want = gradients(torch, torch.tensor, hooks, use, wanting, lambda f: f())
    for mode in MODES:
        found = gradients(
            dg, dg.tensor, hooks, use, wanting, lambda f, mode=mode: dg.function(f, mode=mode)()
        )
        assert found == want


@pytest.mark.parametrize("mode", MODES)
def test_a_step_with_hooks_is_traced_once_and_sees_each_call(mode):
    model, log = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), []
    handle = model[0].register_full_backward_hook(lambda m, given, out: log.append(out[0].sum()))
    model[2].register_full_backward_hook(lambda m, given, out: (given[0] * 0.5,))
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

    @dg.function(mode=mode)
    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    dg.manual_seed(0)
    for _ in range(3):
        step(dg.randn(5, 3))
    assert len(log) == 3
    assert mode == "eager" or len(step.variants) == 1
    handle.remove()
    step(dg.randn(5, 3))
    assert len(log) == 3


def test_gradients_taken_outside_pass_the_hooks():
    both = []
    for mode in MODES:
        dg.manual_seed(1)
        model, log = nn.Linear(3, 2), []
        model.register_full_backward_hook(lambda m, given, out: (given[0] * 3,))
        model.register_full_backward_hook(lambda m, given, out, log=log: log.append(numbers(given)))
        f = dg.function(model, mode=mode)
        for _ in range(3):
            x = dg.randn(2, 3).requires_grad_()
            f(x).sum().backward()
            log.append(numbers(x.grad))
            (slope,) = dg.autograd.grad((f(x) ** 2).sum(), x)
            log.append(numbers(slope))
        both.append((log, numbers(model.weight.grad)))
    assert both[0] == both[1]
    assert len(both[0][0]) == 12


def test_wrong_returns_are_errors():
    for mode in MODES:
        x = dg.ones(2, 3).requires_grad_()
        for kind, hook, words in (
            ("full_backward_hook", lambda m, a, b: (None, None), "2 gradients for the 1 of grad_input"),
            ("full_backward_pre_hook", lambda m, a: (), "0 gradients for the 1 of grad_output"),
        ):
            model = nn.Linear(3, 2)
            getattr(model, f"register_{kind}")(hook)
            with pytest.raises(dg.errors.AutogradError, match=words):
                dg.function(lambda model=model, x=x: model(x).sum().backward(), mode=mode)()
        model = nn.Linear(3, 2)
        model.register_full_backward_hook(lambda m, a, b: (dg.ones(2, 3),))
        with pytest.raises(dg.errors.AutogradError, match="no argument of Linear requires"):
            dg.function(lambda model=model: model(dg.ones(2, 3)).sum().backward(), mode=mode)()
    with pytest.raises(dg.errors.ArgumentTypeError, match="give hook as a function"):
        model.register_forward_hook(3)


# ---------------------------------------------------------------- forward hooks


class Adds:
    def forward(self, x, *, by=1.0):
        if by is None:
            raise KeyError("by")
        return x + by

    @staticmethod
    def of(lib):
        return type("Adds", (Adds, lib.nn.Module), {})()


def forwards(lib, tensor, run):
    log, module = [], Adds.of(lib)
    see = lambda what: (
        lambda m, *rest: log.append((what, [sorted(r) if isinstance(r, dict) else numbers(r) for r in rest]))
    )
    module.register_forward_pre_hook(see("plain"))
    module.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {**kwargs, "by": kwargs["by"] * 2}), with_kwargs=True
    )
    module.register_forward_pre_hook(lambda m, args: args[0] * 10, prepend=True)
    module.register_forward_hook(see("after"), with_kwargs=True)
    module.register_forward_hook(
        lambda m, args, kwargs, out: out + kwargs["by"], with_kwargs=True, prepend=True
    )
    with module.register_forward_hook(see("scoped")):
        out = run(lambda x: module(x, by=3.0))(tensor([1.0, 2.0]))
    again = run(lambda x: module(x, by=4.0))(tensor([1.0, 2.0]))
    return numbers(out), numbers(again), log


def test_forward_hooks_are_those_of_torch(torch):
    want = forwards(torch, torch.tensor, lambda f: f)
    for mode in MODES:
        assert forwards(dg, dg.tensor, lambda f, mode=mode: dg.function(f, mode=mode)) == want


def fails(lib, tensor, run):
    log, module = [], Adds.of(lib)
    module.register_forward_hook(lambda m, args, out: log.append(("never", numbers(out))))
    module.register_forward_hook(lambda m, args, out: log.append(("always", numbers(out))), always_call=True)
    with pytest.raises(KeyError):
        run(lambda x: module(x, by=None))(tensor([1.0]))
    run(lambda x: module(x, by=2.0))(tensor([1.0]))
    return log


def test_a_hook_for_always_is_called_after_an_error(torch):
    want = fails(torch, torch.tensor, lambda f: f)
    assert fails(dg, dg.tensor, lambda f: f) == want
    assert [what for what, _ in want] == ["always", "never", "always"]


# ---------------------------------------------------------------- retain_grad


def kept(tensor, run, walks=1):
    x = tensor([1.0, 2.0, 3.0])
    x.requires_grad_()
    x.retain_grad()
    found = [x.retains_grad]

    def step():
        y = x * 2
        found.append(y.retains_grad)
        y.retain_grad()
        y.retain_grad()
        y.register_hook(lambda g: g * 10)
        z = (y * y).sum()
        for k in range(walks):
            z.backward(retain_graph=k < walks - 1)
        found.append(y.retains_grad)
        return y.grad

    for _ in range(3):
        found.append(numbers(run(step)()))
    return found, numbers(x.grad)


@pytest.mark.parametrize("walks", [1, 2])
def test_kept_gradients_are_those_of_torch(walks, torch):
    want = kept(torch.tensor, lambda f: f, walks)
    for mode in MODES:
        found = kept(dg.tensor, lambda f, mode=mode: dg.function(f, mode=mode), walks)
        assert found[1] == want[1]
        assert [v for v in found[0] if v.__class__ is list] == [v for v in want[0] if v.__class__ is list]


def test_a_tensor_that_is_handed_out_keeps_its_gradient():
    both = []
    for mode in MODES:
        x = dg.tensor([1.0, 2.0]).requires_grad_()

        @dg.function(mode=mode)
        def inside(x):
            y = x * 2
            y.retain_grad()
            return y, (y * y).sum()

        @dg.function(mode=mode)
        def given(x, y):
            y.retain_grad()
            return (x * y).sum()

        seen = []
        for _ in range(3):
            y, z = inside(x)
            z.backward()
            seen.append((numbers(y.grad), y.retains_grad))
            y = x * 3
            given(x, y).backward()
            seen.append((numbers(y.grad), y.retains_grad))
            y = dg.function(lambda x: x * x, mode=mode)(x)
            y.retain_grad()
            (y * 2).sum().backward()
            seen.append((numbers(y.grad), y.retains_grad))
        both.append((seen, numbers(x.grad)))
    assert both[0] == both[1]
    assert all(g is not None and keeps for g, keeps in both[0][0])


def test_what_needs_no_gradient_keeps_none():
    for mode in MODES:
        with pytest.raises(dg.errors.AutogradError, match=r"\[retain_grad\] float32\[2\] does not require"):
            dg.function(lambda: (dg.ones(2) * 2).retain_grad(), mode=mode)()


def test_a_hook_that_every_call_registers_and_takes_out_is_traced_once():
    """How many hooks a module had ever had was a guard."""
    m = dg.nn.Linear(3, 3)

    @dg.function
    def f(x):
        with m.register_forward_hook(lambda _, args, out: out * 2):
            y = m(x)
        return y, m(x)

    for _ in range(6):
        y, z = f(dg.randn(2, 3))
        assert y.tolist() == (z * 2).tolist()
    assert len(f.variants) <= 2, f.explain()


def test_a_handle_takes_out_no_other_hook():
    m, seen = dg.nn.Linear(1, 1), []
    first = m.register_forward_hook(lambda *_: seen.append(1))
    first.remove()
    m.register_forward_hook(lambda *_: seen.append(2))
    first.remove()
    m(dg.ones(1))
    assert seen == [2]
