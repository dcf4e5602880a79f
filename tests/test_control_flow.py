"""cond, while_loop and scan: both modes bit for bit, against JAX, differentiated, mapped, nested; errors."""

import duograd as dg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from duograd.core import control_flat, tree

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3)).astype(np.float32) * 0.5
XS = RNG.normal(size=(5, 3)).astype(np.float32)


def same(fn, *args):
    """Run in eager mode and twice in graph mode; the bits must agree. Returns the eager result's arrays."""
    graph = dg.function(fn)
    runs = []
    for run in (fn, *[graph] * 5):  # the last ones take the quick way in
        dg.manual_seed(3)
        runs.append([y.detach().numpy() for y in tree.leaves(run(*args)) if y is not None])
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert len(graph.variants) == 1
    assert len(graph.variants[0].runners()) == 1, "one graph"
    return runs[0]


def cell(m, w, h, x):
    h = m.tanh(m.matmul(h, w) + x)
    return h, h * 2


def scanned(w, xs, reverse=False):
    c, ys = dg.scan(lambda h, x: cell(dg, w, h, x), dg.zeros((3,)), xs, reverse=reverse)
    return (ys * ys).sum() + c.sum()


def scanned_jax(w, xs, reverse=False):
    c, ys = jax.lax.scan(lambda h, x: cell(jnp, w, h, x), jnp.zeros((3,)), xs, reverse=reverse)
    return (ys * ys).sum() + c.sum()


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_and_its_derivatives_equal_those_of_jax(reverse, close):
    w, xs = dg.tensor(W), dg.tensor(XS)
    ours = same(lambda w, xs: dg.value_and_grad(lambda *p: scanned(*p, reverse), (0, 1))(w, xs), w, xs)
    theirs = jax.value_and_grad(lambda *p: scanned_jax(*p, reverse), (0, 1))(W, XS)
    for a, b in zip(ours, jax.tree.leaves(theirs), strict=True):
        close(a, np.asarray(b), 10.0)
    if reverse:  # a product with the Hessian
        (ours,) = same(dg.grad(lambda w: (dg.grad(lambda w: scanned(w, xs, reverse))(w) * w).sum()), w)
        theirs = jax.grad(lambda w: (jax.grad(lambda w: scanned_jax(w, XS, reverse))(w) * w).sum())(W)
        close(ours, np.asarray(theirs), 50.0)


def test_scan_under_jvp_and_vmap(close):
    v, xs = np.ones((3, 3), np.float32), np.stack([XS, -XS])
    ours = same(
        lambda w, v: dg.jvp(lambda w: scanned(w, dg.tensor(XS)), (w,), (v,)), dg.tensor(W), dg.tensor(v)
    )
    theirs = jax.jvp(lambda w: scanned_jax(w, XS), (W,), (v,))
    for a, b in zip(ours, theirs, strict=True):
        close(a, np.asarray(b), 10.0)
    inside = same(lambda xs: dg.vmap(dg.grad(lambda xs: scanned(dg.tensor(W), xs)))(xs), dg.tensor(xs))
    outside = same(dg.grad(lambda xs: dg.vmap(lambda xs: scanned(dg.tensor(W), xs))(xs).sum()), dg.tensor(xs))
    theirs = np.asarray(jax.vmap(jax.grad(lambda xs: scanned_jax(W, xs)))(xs))
    close(inside[0], theirs, 10.0)
    close(outside[0], theirs, 10.0)


def test_scan_trees_numbers_lengths_and_views():
    def f(xs):
        carry, ys = dg.scan(lambda c, x: ({"n": c["n"] + 1, "s": c["s"] + x["a"].sum()}, [x["a"] * 2, None]),
                            {"n": 0, "s": 0.0}, {"a": xs.T})  # fmt: skip
        twice, none = dg.scan(lambda c, _: (c * 2, None), xs[0, :1].broadcast_to((2,)), length=3)
        empty = dg.scan(lambda c, x: (c + x.sum(), x), dg.tensor(1.0), xs[:0])
        assert none is None
        return carry["n"], carry["s"], ys[0], twice, *empty

    n, s, ys, twice, kept, rows = same(f, dg.tensor(XS))
    assert (n, ys.shape, kept, rows.shape) == (3, (3, 5), 1.0, (0, 3))
    np.testing.assert_allclose(s, XS.sum(), rtol=1e-5)
    np.testing.assert_array_equal(twice, XS[0, :1].repeat(2) * 8)


def newton(a):
    return dg.while_loop(lambda s: abs(s * s - a) > 1e-6, lambda s: 0.5 * (s + a / s), a * 0.5 + 0.1)


def test_while_loop_value_gradient_and_vmap(close):
    a = dg.tensor(7.0, dtype=dg.float64)
    (root,) = same(newton, a)
    assert abs(root - 7**0.5) < 1e-6
    (g,) = same(dg.grad(newton), a)
    assert abs(g - 0.5 / 7**0.5) < 1e-6
    many = same(dg.vmap(newton), dg.tensor([1.0, 7.0, 30.0], dtype=dg.float64))[0]
    assert many[1] == root
    assert same(lambda n: dg.while_loop(lambda i: i < n, lambda i: i * 2, 200), dg.tensor(100)) == [200]


@pytest.mark.parametrize("turns", [0, 3, 70])
def test_while_loop_gradients_equal_those_of_the_unrolled_loop(turns, close):
    w = dg.tensor(W, dtype=dg.float64)

    def body(h, w):
        return dg.tanh(h @ w + 0.1)

    def looped(w, n):
        start = (0, dg.zeros((3,), dtype=dg.float64))
        return dg.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, body(s[1], w)), start)[1].sum()

    def unrolled(w):
        h = dg.zeros((3,), dtype=dg.float64)
        for _ in range(turns):
            h = body(h, w)
        return h.sum()

    (g,) = same(dg.grad(looped), w, dg.tensor(turns))
    close(g, dg.grad(unrolled)(w).numpy(), 10.0)
    if turns == 3:

        def second(f):
            return dg.grad(lambda w: (dg.grad(f)(w) * w).sum())

        close(second(lambda w: looped(w, dg.tensor(turns)))(w).numpy(), second(unrolled)(w).numpy(), 10.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_cond_takes_one_branch_and_its_gradient(sign):
    w = dg.tensor(W, requires_grad=True)
    calls = []

    def f(x):
        w.grad = None
        y, z = dg.cond(x.sum() > 0, lambda x: (x @ w, x.sum()), lambda x: (x * 3, (x - w.sum()).sum()), x)
        loss = (y * y).sum() + z
        loss.backward()
        calls.append(loss.dtype)
        return loss, w.grad

    x = XS if XS.sum() * sign > 0 else -XS
    loss, grad = same(f, dg.tensor(x))
    t = w.detach().requires_grad_()
    y, z = (
        (dg.tensor(x) @ t, dg.tensor(x).sum())
        if sign > 0
        else (dg.tensor(x) * 3, (dg.tensor(x) - t.sum()).sum())
    )
    ((y * y).sum() + z).backward()
    np.testing.assert_allclose(grad, t.grad.numpy(), rtol=1e-5)
    assert loss.shape == ()


def test_cond_under_vmap_chooses_by_example():
    x = dg.tensor(XS)
    f = lambda x: dg.cond(x.sum() > 0, lambda: (x * 2).sum(), lambda: (-x * x).sum())
    ours = same(dg.vmap(dg.grad(f)), x)[0]
    np.testing.assert_array_equal(ours, np.where(XS.sum(1, keepdims=True) > 0, 2, -2 * XS))


def test_nested_loops_and_random_numbers():
    def drops(xs):
        def outer(c, x):
            def inner(c, x):
                fair = dg.cond(x > 0, lambda: dg.rand(()), lambda: -dg.rand(()))
                return c + dg.nn.functional.dropout(x, 0.5), dg.rand((2,)) + fair

            return dg.scan(inner, c, x)

        total, ys = dg.scan(outer, dg.tensor(0.0), xs)
        return total, ys, dg.rand((2,))

    _, ys, _ = same(drops, dg.tensor(XS))
    assert len(np.unique(ys)) == ys.size, "every turn draws other numbers"
    same(dg.grad(lambda xs: drops(xs)[0]), dg.tensor(XS))


def test_gradient_after_the_call_sees_the_random_numbers_of_the_call():
    xs, got = dg.tensor(XS, requires_grad=True), []
    f = lambda: dg.scan(lambda c, x: (dg.nn.functional.dropout(c + x, 0.5), None), dg.zeros((3,)), xs)[
        0
    ].sum()
    for run in (f, dg.function(f)):
        xs.grad = None
        dg.manual_seed(5)
        run()
        loss = run()
        run()
        loss.backward()
        got.append(xs.grad.numpy())
    np.testing.assert_array_equal(*got)


def _sines(x, n):
    return dg.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, dg.sin(s[1]) * x), (0, x))


def _halving(x, n):
    body = lambda s: (s[0] + 1, dg.cond(s[0] % 2 == 0, lambda: dg.sin(s[1]) * x, lambda: s[1] * 0.5))
    return dg.while_loop(lambda s: s[0] < n, body, (0, x))[1].sum()


def _nested(x, n):
    def turn(c, k):
        inner = dg.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, dg.sin(s[1]) * x), (0, c))[1]
        return inner, dg.cond(k % 2 == 0, lambda: c, lambda: inner * 2)

    c, rows = dg.scan(turn, x, dg.arange(n))
    return c.sum() + rows.sum()


#: function of (x, turns) -> its loops that are recorded anew, and so looked over, at each turn of the way back
LOOKED_OVER = {
    "while": (lambda x, n: _sines(x, n)[1].sum(), 0),
    "scan": (lambda x, n: dg.scan(lambda c, k: (dg.sin(c) * x, c), x, length=n)[0].sum(), 0),
    "cond in while": (_halving, 1), "while and cond in scan": (_nested, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKED_OVER)
def test_functions_are_looked_over_once_and_where_they_are_recorded(name, monkeypatch):
    f, recorded = LOOKED_OVER[name]
    counts, before = [], control_flat.scout
    x, found = dg.tensor(XS[0]), {}
    for n in (3, 9, 70):
        same(dg.grad(lambda x, n=n: f(x, n)), x)
        counts.clear()
        with monkeypatch.context() as patch:
            patch.setattr(control_flat, "scout", lambda *a: counts.append(a[0]) or before(*a))
            f(x, n)
            forward = len(counts)
            dg.grad(lambda x, n=n: f(x, n))(x)
        found[n] = forward, len(counts) - forward
    assert found[3][0] == found[9][0] == found[70][0]
    assert (found[9][1] - found[3][1], found[70][1] - found[9][1]) == (6 * recorded, 61 * recorded)


LOOPS = {
    "cond": lambda x: dg.cond(x.sum() > 0, lambda: x * x, lambda: -x),
    "while_loop": lambda x: dg.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1],
    "scan": lambda x: dg.scan(lambda c, k: (c * x, c * k), x, dg.arange(3.0))[1],
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", LOOPS)
def test_gradients_do_not_need_the_results(name, mode):
    f, grads = dg.function(LOOPS[name], mode=mode), []
    for change in (False, True):
        x = dg.tensor(XS[0], requires_grad=True)
        y = f(x)
        if change:
            y.detach().zero_()
        (y * 2).sum().backward()
        grads.append(x.grad.numpy())
    np.testing.assert_array_equal(*grads)


def test_results_of_inner_functions_have_memory_of_their_own():
    def f(x):
        def body(c, k):
            t = c * 2
            y = dg.cond(k > 0, lambda: t, lambda: -t)
            z = dg.while_loop(lambda s: s[0] < 0, lambda s: s, (k, t))[1]
            t.add_(1)
            return y + z + t, (y, z, t)

        return dg.scan(body, x, dg.arange(3))

    same(f, dg.tensor(XS[0]))


def test_threads_share_one_compiled_loop():
    from concurrent.futures import ThreadPoolExecutor

    f = dg.function(lambda xs: dg.scan(lambda c, x: (c * 0.5 + x, c), dg.zeros((3,)), xs))
    inputs = [dg.tensor(XS + k) for k in range(8)]
    expected = [f(x)[0].numpy() for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(pool.map(lambda x: f(x)[0].numpy(), inputs * 20), expected * 20):
            np.testing.assert_array_equal(a, b)


X = dg.tensor(XS)


def _in_place(c, x):
    c += x
    return c, None


ERRORS = {
    "carry type": (lambda: dg.scan(lambda c, x: (c[None], x), X[0], X), r"float32\[3\] and comes out as float32\[1, 3"),
    "carry dtype": (lambda: dg.while_loop(lambda s: s < 3, lambda s: s * 0.5, dg.tensor(1)), "int64.*float32"),
    "branches": (lambda: dg.cond(X.sum() > 0, lambda: X, lambda: X[0]), r"float32\[5, 3\], false_fn float32\[3\]"),
    "structure": (lambda: dg.cond(X.sum() > 0, lambda: (X, X), lambda: X), "one structure"),
    "value": (lambda: dg.scan(lambda c, x: (c if float(x.sum()) else -c, x), X[0], X), "reads the value of float32"),
    "branch on value": (lambda: dg.while_loop(lambda s: s < 3, lambda s: s + 1 if s > 1 else s, 0), "reads the value"),
    "in place": (lambda: dg.scan(_in_place, X[0], X), "in place"),
    "outside in place": (lambda: dg.scan(lambda c, x: (c, X.copy_(X)), X[0], X), "in place"),
    "sizes": (lambda: dg.scan(lambda c, x: (c, x[0]), 0, (X, X.T)), r"sizes \[3, 5\]"),
    "no length": (lambda: dg.scan(lambda c, x: (c, x), 0), "neither xs nor a length"),
    "condition": (lambda: dg.while_loop(lambda s: s > 0, lambda s: s - 1, X), r"condition is bool\[5, 3\]"),
    "pair": (lambda: dg.scan(lambda c, x: c, X[0], X), "return .carry, y."),
    "draws": (lambda: dg.while_loop(lambda s: dg.rand(()) < s, lambda s: s, dg.tensor(0.0)), "draws random numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_the_same_in_both_modes(name):
    call, match = ERRORS[name]
    texts = []
    for run in (call, dg.function(call)):
        with pytest.raises(dg.errors.DuogradError, match=match) as e:
            run()
        assert __file__ in e.value.line
        texts.append(str(e.value))
    assert texts[0] == texts[1]


ROW, EYE = dg.arange(4.0), dg.eye(2)


def _sum_of(rows):
    return dg.scan(lambda c, i: (c + ROW[i], ROW[i]), dg.tensor(0.0), rows)[0]


def _sums_of(rows):
    return dg.scan(lambda c, r: (dg.scan(lambda d, i: (d + ROW[i], d), c, r)[0], c), dg.tensor(0.0), rows)[0]


def _looks_ahead(rows):
    return dg.scan(
        lambda c, i: (c + dg.cond(i < 5, lambda: ROW[i], lambda: ROW[i - 5]), i), dg.tensor(0.0), rows
    )[0]


def _walks(n):
    return dg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + ROW[c[0]]), (0, dg.tensor(0.0)))[1]


def _searches(start):
    return dg.while_loop(lambda i: ROW[i] < 3, lambda i: i + 1, start)


#: functions, and values that they take and refuse
REFUSED = {
    "scan": (_sum_of, [[0, 1], [0, 4, -7], [0, -7, 4], [-4, 3]]),
    "scan back": (
        lambda rows: dg.scan(lambda c, i: (c + ROW[i], i), dg.tensor(0.0), rows, reverse=True)[0],
        [[0, 1], [0, 4, 9], [0, 9, 4], [3]],
    ),
    "nested": (_sums_of, [[[0, 1], [2, 3]], [[0, 1], [2, 4]], [[0, 9], [2, 4]]]),
    "cond in scan": (_looks_ahead, [[0, 5], [0, 4, 9], [9, 4]]),
    "while": (_walks, [3, 5, 4, 0]),
    "test of while": (_searches, [0, 4, -4, -5, 3]),
    "branch": (lambda i: dg.cond(i < 3, lambda: ROW[i], lambda: ROW[i + 1]), [0, 3, 4, -5, -4]),
    "list": (lambda i: dg.cond(i < 3, lambda: ROW[[0, 1]], lambda: ROW[[0, 5]]), [0, 3, 1]),
    "matrices": (
        lambda x: dg.scan(lambda c, m: (c + dg.cholesky(m), c), EYE, x)[0],
        [[[[1.0, 0.0], [0.0, 1.0]]] * 2, [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]]],
    ),
    "matrix": (
        lambda x: dg.while_loop(lambda m: m.sum() > 0.1, lambda m: m - dg.cholesky(m) * 0.6, x),
        [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]],
    ),
    "distribution": (
        lambda x: dg.cond(x < 5, lambda: dg.distributions.Normal(0.0, x).log_prob(x), lambda: x),
        [1.0, -1.0, 7.0, float("nan")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_values_are_refused_as_without_compiling(name):
    call, values = REFUSED[name]
    seen = []
    for mode in ("eager", "graph"):
        fn, said = dg.function(call, mode=mode), []
        for value in values * 2:
            try:
                said.append(np.asarray(fn(dg.tensor(value)).numpy()).tobytes())
            except dg.errors.DuogradError as e:
                said.append(str(e))
        seen.append(said)
    assert seen[0] == seen[1]
    assert {type(x) for x in seen[0]} == {bytes, str}


def test_graphs_show_regions():
    f = dg.function(lambda xs: dg.scan(lambda c, x: (c + dg.sin(x), c), dg.tensor(0.0), xs))
    f(dg.arange(4.0))
    text = f.show()
    assert "scan" in text
    assert "body = region" in text
    assert "sin" in text
    assert "sin" in f.source()


def test_regions_that_read_an_argument_from_a_container_are_traced_once():
    def f(x):
        held = {"x": x}

        def twice(n):
            return held["x"] * 2 + n

        return dg.cond(x.sum() > 0, lambda: twice(1), lambda: twice(2))

    graph = dg.function(f)
    for k in range(3):
        x = dg.tensor(XS + k)
        np.testing.assert_array_equal(graph(x).numpy(), f(x).numpy())
    assert len(graph.variants) == 1


class Counter:
    def __init__(self):
        self.n, self.log, self.table = 0, [], {}


def _in_a_branch(m, x):
    def above(a):
        m.log.append(1)
        return a

    return dg.cond(x.sum() > 0, above, lambda a: -a, x)


def _in_an_attribute(m, x):
    def body(c, t):
        m.n += 1
        return c + t, c

    return dg.scan(body, dg.tensor(0.0), x)[1]


def _in_a_list_of_the_calls_own(m, x):
    rows = []

    def body(c, t):
        rows.append(1)
        return c + t, c

    return dg.scan(body, dg.tensor(0.0), x)[1] * len(rows)


def _in_a_variable(m, x):
    k = 0

    def body(c, t):
        nonlocal k
        k += 1
        return c + t, c

    return dg.scan(body, dg.tensor(0.0), x)[1] * k


def _under_vmap(m, x):
    def body(i):
        m.table["k"] = m.table.get("k", 0) + 1
        return i + 1

    return dg.vmap(lambda t: dg.while_loop(lambda i: i < 5, body, t))(x)


def _printed(m, x):
    def body(c, t):
        print("turn")
        return c + t, c

    return dg.scan(body, dg.tensor(0.0), x)[1]


@pytest.mark.parametrize(
    "program",
    [_in_a_branch, _in_an_attribute, _in_a_list_of_the_calls_own, _in_a_variable, _under_vmap, _printed],
)
def test_python_state_changes_as_often_in_both_modes(program, capsys):
    def run(mode):
        m = Counter()
        f = dg.function(lambda x: program(m, x), mode=mode)
        got = [f(dg.ones(3) * k).tolist() for k in (1, -1, 2)]
        return got, m.n, m.log, m.table, capsys.readouterr().out

    assert run("graph") == run("eager")


def test_objects_that_a_body_makes_itself_stay_in_the_graph():
    def body(c, t):
        own, rows, table = Counter(), [c], {}
        own.n = own.n + c
        rows.append(t)
        table["sum"] = own.n + rows[1]
        return table["sum"], rows[0]

    f = dg.function(lambda x: dg.scan(body, dg.tensor(0.0), x)[1])
    assert f(dg.ones(3)).tolist() == [0, 1, 2]
    assert len(f.variants) == 1
