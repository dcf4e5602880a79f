"""Functions in eager mode that a graph function calls: they run at every call, gradients and effects included."""

import asyncio
import gc
import warnings

import duograd as dg
import numpy as np
import pytest


class Log:
    def __init__(self):
        self.rows, self.before, self.state = [], 0, dg.zeros((2,))


def story(build, calls=4):
    """What an onlooker sees of calls of a function built in each mode."""
    told = []
    for mode in ("eager", "graph"):
        log = Log()
        dg.manual_seed(5)
        f = dg.function(build(log), mode=mode)
        rows = []
        for k in range(calls):
            x = dg.tensor([1.0 + k, -2.0]).requires_grad_()
            out = f(x)
            if out.requires_grad:
                out.sum().backward()
            rows.append((out.tolist(), None if x.grad is None else x.grad.tolist()))
        told.append(
            (rows, [str(r) for r in log.rows], log.before, log.state.tolist(), dg.rand((1,)).tolist())
        )
    return told


def host(log):
    """NumPy inside, a gradient of its own, a row in the log at every call."""

    @dg.function(mode="eager")
    def g(x):
        log.rows.append((float(np.asarray(x.detach()).sum()), log.before))
        return dg.sin(x) * float(np.asarray(x.detach())[0])

    return g


def plain(log):
    g = host(log)

    def f(x):
        log.before += 1  # seen by g
        return g(x * 2) + x

    return f


def branching(log):
    g = host(log)
    return lambda x: g(x) if x.sum() > 0 else x * 3


def in_place(log):
    @dg.function(mode="eager")
    def g(state, y):
        state.add_(y.detach())
        return y * state.clone()

    return lambda x: g(log.state, x * 2)


def random(log):
    @dg.function(mode="eager")
    def g(x):
        log.rows.append(dg.rand((1,)).tolist())
        return x * dg.rand((2,))

    return lambda x: dg.rand((2,)) * g(x * dg.rand((2,)))


def nested_graph(log):
    inner = dg.function(lambda x: dg.exp(x) * 2)

    @dg.function(mode="eager")
    def g(x):
        log.rows.append(inner(x.detach()).tolist())
        return inner(x)

    return lambda x: g(x * 0.5) * 2


def several_outputs(log):
    @dg.function(mode="eager")
    def g(x):
        log.rows.append(len(log.rows))
        return {"a": x * 2, "b": (x + 1, len(log.rows))}

    def f(x):
        out = g(x)
        return out["a"] * out["b"][0] * out["b"][1]

    return f


def inner_backward(log):
    g = host(log)

    def f(x):
        y = x.detach().requires_grad_()
        (g(y) * y).sum().backward()
        return y.grad * x

    return f


def second_order(log):
    g = host(log)
    return lambda x: dg.grad(lambda t: dg.grad(lambda s: (g(s) * s).sum())(t).sum())(x) * x


def with_mode(log):
    inner = dg.function(lambda x: x * len(log.rows))

    def f(x):
        with dg.mode("eager"):
            log.rows.append(1)
            return inner(x) + 1

    return f


def one_call(log):
    inner = dg.function(lambda x: x * 2)

    def f(x):
        log.rows.append(1)
        return inner.eager(x) + inner(x)

    return f


BUILT = [
    plain,
    branching,
    in_place,
    random,
    nested_graph,
    several_outputs,
    inner_backward,
    second_order,
    with_mode,
    one_call,
]


@pytest.mark.parametrize("build", BUILT, ids=lambda b: b.__name__)
def test_a_function_in_eager_mode_runs_at_every_call(build):
    eager, graph = story(build)
    assert eager == graph


def test_an_exception_goes_through_and_the_next_call_is_right():
    fail = [True]

    @dg.function(mode="eager")
    def g(x):
        if fail[0]:
            raise ValueError("no")
        return x * 2

    f = dg.function(lambda x: g(x) + 1)
    with pytest.raises(ValueError, match="no"):
        f(dg.ones((2,)))
    fail[0] = False
    assert f(dg.ones((2,))).tolist() == [3, 3]


def test_modes_may_change():
    seen = []
    inner = dg.function(lambda x: (seen.append(1), x * 2)[1])
    f = dg.function(lambda x: inner(x) + 1)
    x = dg.ones((2,))
    f(x), f(x)
    assert len(f.variants) == 1
    inner.mode = "eager"
    f(x), f(x)
    assert "its Python runs at every call" in f.explain()
    inner.mode = "graph"
    f(x), f(x)
    assert len(seen) == 6
    assert "Python runs" not in f.explain()
    assert len(f.variants) == 1


def test_other_arguments_are_still_one_graph():
    g = dg.function(lambda x: float(x.numpy()[0]) * x, mode="eager")
    f = dg.function(lambda x, host=False: g(x) if host else x * 2)
    x = dg.ones((2,))
    assert f(x, host=True).tolist() == [1, 1]
    assert f(x).tolist() == [2, 2]
    assert len(f.variants) == 1
    assert not f.warmup(x, host=True)


def test_what_is_printed_is_printed_once(capsys):
    g = dg.function(lambda x: x * 2, mode="eager")

    @dg.function
    def f(x):
        dg.print("before {}", x.sum())
        if x.sum() > 0:
            return g(x)
        return x

    for _ in range(3):
        f(dg.ones((2,)))
    assert capsys.readouterr().out.count("before") == 3


@pytest.mark.usefixtures("own_garbage")
def test_a_coroutine_runs_its_python_and_leaves_none_behind():
    @dg.function
    async def f(x):
        return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [float(asyncio.run(f(dg.ones(())))) for _ in range(2)] == [2.0, 2.0]
        gc.collect()
    assert "coroutine" in f.explain()
