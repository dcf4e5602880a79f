"""Functions of functions: derivatives, vmap, checkpoint, custom gradients; in both modes, nested, against JAX."""

import threading

import duograd as dg
import jax
import jax.numpy as jnp
import numpy as np
import pytest

MODES = ("eager", "graph")


def _mode(fn, mode):
    return dg.function(fn) if mode == "graph" else fn


def _array(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.5, shape).astype(np.float32)


def _pairs(*arrays):
    return [dg.tensor(a) for a in arrays], [jnp.asarray(a) for a in arrays]


# Functions written once, for both: m is the module of names.
def _mlp(m, x, w):
    return m.tanh(m.matmul(m.tanh(m.matmul(x, w)), w))


def _soft(m, x, w):
    z = m.matmul(x, w)
    e = m.exp(z - m.max(z, axis=-1, keepdims=True))
    return m.sum(e / m.sum(e, axis=-1, keepdims=True) * x)


def _mixed(m, x, w):
    return m.sum(m.sin(x) * m.mean(w, axis=0) + m.maximum(x, 0.5) ** 3)


def _agree(ours, theirs, close, scale=10.0):
    for a, b in zip(_flat(ours), _flat(theirs), strict=True):
        close(a.detach().numpy() if isinstance(a, dg.Tensor) else a, np.asarray(b), scale)


def _flat(x):
    return [y for e in x for y in _flat(e)] if isinstance(x, (tuple, list)) else [x]


X, W = _array(4, 3), _array(3, 3, seed=1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("f", [_soft, _mixed], ids=["soft", "mixed"])
def test_gradients_equal_those_of_jax(f, mode, close):
    (x, w), (jx, jw) = _pairs(X, W)
    ours = _mode(lambda a, b: dg.value_and_grad(lambda *p: f(dg, *p), argnums=(0, 1))(a, b), mode)(x, w)
    _agree(ours, jax.value_and_grad(lambda *p: f(jnp, *p), argnums=(0, 1))(jx, jw), close)
    ours = _mode(lambda a, b: dg.hessian(lambda *p: f(dg, *p))(a, b), mode)(x, w)
    _agree(ours, jax.hessian(lambda *p: f(jnp, *p))(jx, jw), close, 50.0)


@pytest.mark.parametrize("mode", MODES)
def test_jvp_and_vjp_equal_those_of_jax(mode, close):
    (x, w, v), (jx, jw, jv) = _pairs(X, W, _array(4, 3, seed=2))
    ours = _mode(lambda a, t, b: dg.jvp(lambda p: _mlp(dg, p, b), (a,), (t,)), mode)(x, v, w)
    _agree(ours, jax.jvp(lambda p: _mlp(jnp, p, jw), (jx,), (jv,)), close)

    def pulled(a, b, g):
        out, pull = dg.vjp(lambda *p: _mlp(dg, *p), a, b)
        return out, pull(g)

    out, pull = jax.vjp(lambda *p: _mlp(jnp, *p), jx, jw)
    _agree(_mode(pulled, mode)(x, w, v), (out, pull(jv)), close)


@pytest.mark.parametrize("kind", ["reverse", "forward"])
@pytest.mark.parametrize("mode", MODES)
def test_jacobian_of_several_outputs_and_arguments(mode, kind, close):
    (x, w), (jx, jw) = _pairs(X, W)

    def f(m, a, b):
        return m.matmul(a, b), m.sum(m.sin(b), axis=0)

    ours = _mode(lambda a, b: dg.jacobian(lambda *p: f(dg, *p), argnums=(0, 1), mode=kind)(a, b), mode)(x, w)
    _agree(ours, jax.jacobian(lambda *p: f(jnp, *p), argnums=(0, 1))(jx, jw), close)


@pytest.mark.parametrize("mode", MODES)
def test_transforms_nest_in_any_order(mode, close):
    (x, w, v), (jx, jw, jv) = _pairs(X, W, _array(4, 3, seed=2))
    programs = {
        "grad of grad": lambda n, m, x, w, v: n.grad(
            lambda a: m.sum(n.grad(lambda b: _soft(m, b, w))(a) ** 2)
        )(x),
        "jvp of grad": lambda n, m, x, w, v: n.jvp(n.grad(lambda a: _soft(m, a, w)), (x,), (v,))[1],
        "grad of jvp": lambda n, m, x, w, v: n.grad(
            lambda a: m.sum(n.jvp(lambda b: _mlp(m, b, w), (a,), (v,))[1] ** 2)
        )(x),
        "jvp of jvp": lambda n, m, x, w, v: n.jvp(
            lambda a: n.jvp(lambda b: _mlp(m, b, w), (a,), (v,))[1], (x,), (v,)
        )[1],
        "vmap of grad": lambda n, m, x, w, v: n.vmap(
            n.grad(lambda a, c: m.sum(m.sin(a * c) * m.matmul(a, w)))
        )(x, v),
        "grad of vmap": lambda n, m, x, w, v: n.grad(
            lambda a: m.sum(n.vmap(lambda r: _soft_row(m, r, w))(a))
        )(x),
        "grad of a shared argument": lambda n, m, x, w, v: n.grad(
            lambda b: m.sum(n.vmap(lambda r: _soft_row(m, r, b))(x))
        )(w),
        "vmap of vmap": lambda n, m, x, w, v: n.vmap(lambda a: n.vmap(lambda c: m.sum(a * m.sin(c)))(v))(x),
        "vmap of jacobian": lambda n, m, x, w, v: n.vmap(n.jacobian(lambda a: m.tanh(m.matmul(a, w))))(x),
        "jvp of vmap": lambda n, m, x, w, v: n.jvp(n.vmap(lambda r: _soft_row(m, r, w)), (x,), (v,))[1],
    }
    for name, p in programs.items():
        ours = _mode(lambda *a, p=p: p(dg, dg, *a), mode)(x, w, v)
        assert not ours.requires_grad, name
        _agree(ours, p(jax, jnp, jx, jw, jv), close, 50.0)


def _soft_row(m, r, w):
    z = m.matmul(r, w)
    return m.sum(m.exp(z - m.max(z)) * r) / m.sum(m.exp(z - m.max(z)))


def test_a_gradient_flows_through_grad_to_what_the_function_finds(close):
    w = dg.tensor(W).requires_grad_()
    x = dg.tensor(X)
    slope = dg.grad(lambda a: (dg.matmul(a, w) ** 2).sum())(x)
    slope.sum().backward()
    jw = jnp.asarray(W)
    want = jax.grad(lambda b: jax.grad(lambda a: (jnp.matmul(a, b) ** 2).sum())(jnp.asarray(X)).sum())(jw)
    close(w.grad.numpy(), np.asarray(want), 10.0)


def test_gradients_of_trees_and_extra_results():
    params = {"w": dg.tensor(W), "b": [dg.ones((3,)), dg.tensor([1, 2])]}

    def loss(p, x):
        out = x @ p["w"] + p["b"][0]
        return out.sum(), out

    (value, out), grads = dg.value_and_grad(loss, has_aux=True)(params, dg.tensor(X))
    assert value.item() == pytest.approx(out.sum().item())
    assert grads["w"].shape == (3, 3)
    np.testing.assert_array_equal(grads["b"][0].numpy(), [4, 4, 4])
    assert grads["b"][1] is None
    assert not out.requires_grad


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradients_are_taken_where_none_are_recorded(mode):
    def both(x):
        return dg.grad(lambda a: (a**3).sum())(x), dg.grad(
            lambda a: dg.grad(lambda b: (b**3).sum())(a).sum()
        )(x)

    x = dg.tensor([1.0, 2.0]).requires_grad_()
    with dg.no_grad():
        first, second = dg.function(both, mode=mode)(x)
    assert (first.tolist(), second.tolist()) == ([3, 12], [6, 12])
    assert not first.requires_grad
    assert x.grad is None


def test_grad_leaves_the_callers_tape_alone():
    x = dg.tensor(X).requires_grad_()
    y = dg.sin(x)
    with dg.no_grad():
        dg.grad(lambda a: (a * a).sum())(y)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(X), rtol=1e-5)


# ---------------------------------------------------------------- vmap


@pytest.mark.parametrize("mode", MODES)
def test_vmap_equals_a_loop(mode, close):
    cases = [
        (lambda a, b: a @ b, (_array(5, 3), _array(5, 3)), (0, 0)),
        (lambda a, b: a @ b, (_array(5, 3), _array(3, 2)), (0, None)),
        (lambda a, b: a @ b, (_array(3), _array(5, 3, 2)), (None, 0)),
        (lambda a, b: a @ b, (_array(5, 2, 3), _array(5, 3)), (0, 0)),
        (lambda a, b: a @ b, (_array(2, 5, 3), _array(4, 3, 2)), (1, None)),
        (lambda a, b: a + b, (_array(5, 3), _array(2, 3)), (0, None)),
        (lambda a, b: a * b[0], (_array(5), _array(2, 5)), (0, 1)),
        (lambda a, b: dg.concat([a, b[::-1]], axis=-1), (_array(5, 3), _array(5, 4)), (0, 0)),
        (lambda a, b: dg.softmax(a, axis=0) + b.sum(), (_array(3, 5), _array(2)), (1, None)),
        (lambda a, b: dg.pad(a, ((1, 2),)).reshape(2, 3) + b.max(axis=0), (_array(5, 3), _array(4, 3)), (0, None)),
        (lambda a, b: dg.argmax(a) + dg.argmax(b, axis=0, keepdims=True), (_array(5, 2, 3), _array(5, 4)), (0, 0)),
        (lambda a, b: dg.where(a > b.mean(), a, -b), (_array(5, 3), _array(5, 3)), (0, 0)),
        (lambda a, b: dg.layer_norm(a, b, b), (_array(5, 2, 3), _array(3)), (0, None)),
        (lambda a, b: dg.take(a, dg.tensor([1, 0, 1]), axis=1) * b, (_array(5, 2, 3), _array(5, 1, 1)), (0, 0)),
        (lambda a, b: dg.conv2d(a, b), (_array(5, 2, 3, 6, 6), _array(4, 3, 3, 3)), (0, None)),
        (lambda a, b: dg.conv2d(a, b), (_array(2, 3, 6, 6), _array(5, 4, 3, 3, 3)), (None, 0)),
        (lambda a, b: dg.arange(3) * a + b, (_array(5), _array(5)), (0, 0)),
    ]  # fmt: skip
    for f, arrays, axes in cases:
        args = [dg.tensor(a) for a in arrays]
        got = _mode(lambda *t, f=f, axes=axes: dg.vmap(f, in_axes=axes)(*t), mode)(*args)
        rows = [
            f(*[a if p is None else dg.take(a, dg.tensor(k), axis=p) for a, p in zip(args, axes)])
            for k in range(5)
        ]
        close(got.numpy(), np.stack([r.numpy() for r in rows]), 5.0)


def test_vmap_places_axes_and_maps_trees():
    x, y = dg.tensor(_array(4, 2, 3)), dg.tensor(_array(3))
    out = dg.vmap(lambda t: {"a": t["x"] + t["y"], "n": t["x"].sum()}, in_axes=({"x": 1, "y": None},),
                  out_axes={"a": -1, "n": 0})({"x": x, "y": y})  # fmt: skip
    assert out["a"].shape == (4, 3, 2)
    assert out["n"].shape == (2,)
    np.testing.assert_array_equal(out["a"].numpy(), (x + y).permute(0, 2, 1).numpy())


def test_vmap_writes_in_place():
    def f(a, b):
        a = a.clone()
        a += b
        a[0] = b[1]
        return a

    a, b = dg.tensor(_array(5, 3)), dg.tensor(_array(5, 3, seed=3))
    got = dg.vmap(f)(a, b).numpy()
    want = a.numpy() + b.numpy()
    want[:, 0] = b.numpy()[:, 1]
    np.testing.assert_array_equal(got, want)


def test_vmap_says_what_cannot_be():
    x = dg.tensor(X)
    with pytest.raises(dg.errors.VmapError, match=r"dg.where"):
        dg.vmap(lambda r: r if r.sum() > 0 else -r)(x)
    with pytest.raises(dg.errors.ArgumentError, match="has 5 elements"):
        dg.vmap(lambda a, b: a + b)(x, dg.ones((5, 3)))
    with pytest.raises(dg.errors.ArgumentError, match="no argument is mapped"):
        dg.vmap(lambda a: a, in_axes=None)(x)
    kept = []
    dg.vmap(lambda r: kept.append(r) or r)(x)
    with pytest.raises(dg.errors.VmapError, match="used outside"):
        kept[0] + 1
    with pytest.raises(dg.errors.VmapError, match="does not fit into"):
        dg.vmap(lambda r: x.copy_(r))(x)
    with pytest.raises(dg.errors.ShapeError, match="do not broadcast"):
        dg.vmap(lambda r: r + dg.ones((2,)))(x)


def test_vmap_of_a_composite_with_its_own_gradient_keeps_that_gradient():
    @dg.custom_gradient
    def double_slope(x):
        return x * x, lambda g: g * x * 4

    x = dg.tensor(X).requires_grad_()
    dg.vmap(double_slope)(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * X, rtol=1e-6)
    x.grad = None
    dg.vmap(dg.vmap(double_slope))(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * X, rtol=1e-6)
    inside = dg.vmap(dg.grad(lambda r: double_slope(r).sum()))(x.detach())
    np.testing.assert_allclose(inside.numpy(), 4 * X, rtol=1e-6)
    norm = dg.vmap(lambda r: dg.layer_norm(r, dg.ones((3,)), dg.zeros((3,))))
    hidden = dg.grad(lambda a: (norm(a) ** 3).sum())(x.detach())
    plain = dg.grad(lambda a: (dg.layer_norm(a, dg.ones((3,)), dg.zeros((3,))) ** 3).sum())(x.detach())
    np.testing.assert_allclose(hidden.numpy(), plain.numpy(), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- checkpoint and custom gradients


@pytest.mark.parametrize("mode", MODES)
def test_checkpoint_changes_no_bit(mode):
    dg.manual_seed(3)
    block = dg.nn.Sequential(dg.nn.Linear(3, 8), dg.nn.GELU(), dg.nn.Dropout(0.5), dg.nn.Linear(8, 3))
    results = []
    for keep in (True, False):
        for p in block.parameters():
            p.grad = None
        x = dg.tensor(X).requires_grad_()

        def step(x, keep=keep):
            for p in block.parameters():
                p.grad = None
            y = dg.sin(x)
            y = block(y) if keep else dg.checkpoint(block, y)
            (y * y).sum().backward()
            return y.detach(), x.grad, *[p.grad for p in block.parameters()], dg.rand(2)

        dg.manual_seed(7)
        results.append([t.numpy() for t in _mode(step, mode)(x)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("own_garbage")
def test_checkpoint_keeps_only_its_inputs():
    import gc
    import weakref

    made = []

    def block(x):
        h = dg.exp(x)
        made.append(weakref.ref(h))
        return dg.sin(h) * h

    x = dg.tensor(X).requires_grad_()
    y = dg.checkpoint(block, x)
    gc.collect()
    assert made[0]() is None
    slope = dg.grad(lambda a: dg.grad(lambda b: dg.checkpoint(block, b).sum())(a).sum())(dg.tensor(X))
    want = jax.grad(lambda a: jax.grad(lambda b: (jnp.sin(jnp.exp(b)) * jnp.exp(b)).sum())(a).sum())(
        jnp.asarray(X)
    )
    np.testing.assert_allclose(slope.numpy(), np.asarray(want), rtol=2e-4)
    y.sum().backward()
    assert len(made) == 4
    x2 = dg.tensor(X).requires_grad_()
    h = x2 * 1
    y = dg.checkpoint(block, h)
    with dg.no_grad():
        h += 1
    with pytest.raises(dg.errors.AutogradError, match="changed in place"):
        y.sum().backward()


def test_checkpoint_saves_memory_in_a_graph():
    arena = {}
    for keep in (True, False):

        @dg.function
        def step(x, keep=keep):
            y = x
            for _ in range(4):
                y = _dense(y) if keep else dg.checkpoint(_dense, y)
            y.sum().backward()
            return x.grad

        x = dg.tensor(np.linspace(-1, 1, 4096, dtype=np.float32).reshape(512, 8)).requires_grad_()
        arena[keep] = step(x).numpy(), step.variants[0].runners()[0].compiled.arena_bytes
    np.testing.assert_array_equal(arena[True][0], arena[False][0])
    assert arena[False][1] < 0.6 * arena[True][1]


def _dense(x):
    return dg.tanh(dg.tanh(dg.tanh(x @ dg.ones((8, 32))) @ dg.ones((32, 32))) @ dg.ones((32, 8)))


@pytest.mark.parametrize("mode", MODES)
def test_custom_gradient(mode):
    @dg.custom_gradient
    def clipped(x, y, low):
        return dg.maximum(x, low) * y, lambda g: (g * y, None)

    def step(x, y):
        clipped(x, y, 0.9).sum().backward()
        return x.grad, y.grad

    x, y = dg.tensor(X).requires_grad_(), dg.tensor(X).requires_grad_()
    gx, gy = _mode(step, mode)(x, y)
    np.testing.assert_array_equal(gx.numpy(), X)
    assert gy is None
    second = dg.grad(lambda a: (dg.grad(lambda b: clipped(b, b * b, 0.9).sum())(a)).sum())(dg.tensor(X))
    np.testing.assert_allclose(second.numpy(), 2 * X, rtol=1e-6)


def test_custom_gradient_misused():
    x = dg.tensor(X).requires_grad_()
    with pytest.raises(dg.errors.AutogradError, match="did not return"):
        dg.custom_gradient(lambda a: a)(x)
    with pytest.raises(dg.errors.AutogradError, match="2 gradients for 1"):
        dg.custom_gradient(lambda a: (a * 2, lambda g: (g, g)))(x).sum().backward()
    with pytest.raises(dg.errors.ShapeError, match="for an argument"):
        dg.custom_gradient(lambda a: (a * 2, lambda g: g.sum()))(x).sum().backward()


def test_misuse_of_derivatives_names_the_fix():
    x = dg.tensor(X)
    with pytest.raises(dg.errors.AutogradError, match="returns one number"):
        dg.grad(lambda a: a)(x)
    with pytest.raises(dg.errors.ShapeError, match="stands beside"):
        dg.jvp(dg.sin, (x,), (dg.ones((2,)),))
    with pytest.raises(dg.errors.ArgumentTypeError, match="differentiates floats"):
        dg.grad(lambda a: a.sum())(dg.tensor([1, 2]))
    with pytest.raises(dg.errors.ArgumentError, match="argnums=3"):
        dg.grad(lambda a: a.sum(), argnums=3)(x)


def test_vmap_of_primitives_equals_a_loop(close):
    index = dg.tensor([[2, 0], [1, 1]])
    mask = dg.tensor([[True, False, True]])
    weight = dg.tensor(_array(12, 3))
    labels = dg.tensor([[1, 2], [2, 1]]), dg.tensor([4, 3]), dg.tensor([2, 1])
    cases = [
        (lambda a: dg.sort(a, axis=-1) + dg.cumsum(a, axis=0), (5, 2, 3)),
        (lambda a: dg.cumsum(a), (5, 2, 3)),
        (lambda a: dg.topk(a, k=2)[0] + dg.argsort(a, axis=0)[:, :2], (5, 2, 3)),
        (lambda a: dg.take_along_axis(a, index, axis=1), (5, 2, 3)),
        (lambda a: dg.diagonal(a), (5, 3, 4)),
        (lambda a: dg.nn.functional.max_pool2d(a, 2) + dg.nn.functional.avg_pool2d(a, 2), (5, 1, 2, 4, 4)),
        (lambda a: dg.scaled_dot_product_attention(a, a, a, mask), (5, 1, 2, 3, 4)),
        (lambda a: dg.linalg.inv(a @ a.mT + dg.eye(3)), (5, 3, 3)),
        (lambda a: dg.einsum("ij,kj->ik", a, a), (5, 2, 3)),
        (lambda a: dg.flip(dg.roll(a, 1, axis=0), axis=1), (5, 2, 3)),
        (lambda a: dg.pad(a, ((0, 0), (1, 1)), mode="reflect"), (5, 2, 3)),
        (lambda a: dg.conv(a, a[:1, :, :2, :2] * 0.5, padding=1), (5, 1, 2, 4, 4)),
        (lambda a: dg.conv(dg.ones((1, 2, 4, 4)), a, stride=2), (5, 3, 2, 2, 2)),
        (lambda a: dg.fold(dg.unfold(a, window=2), size=(3, 3), window=2), (5, 1, 2, 3, 3)),
        (lambda a: dg.nn.functional.interpolate(a, scale_factor=2, mode="bilinear"), (5, 1, 2, 3, 3)),
        (lambda a: dg.take(a, dg.argsort(a[0])[:2], axis=1), (5, 2, 3)),
        (lambda a: a * dg.searchsorted(dg.sort(a[0]), a), (5, 2, 3)),
        (lambda a: a * dg.searchsorted(dg.tensor([0.0, 0.5]), a), (5, 2, 3)),
        (lambda a: dg.lstm_layer(a, weight[:12], weight[:12])[0], (5, 4, 2, 3)),
        (lambda a: dg.gru_layer(a, weight[:9], weight[:9], lengths=dg.tensor([4, 2]))[1], (5, 4, 2, 3)),
        (lambda a: dg.rnn_layer(dg.ones((4, 2, 3)), a, a, reverse=True)[0], (5, 3, 3)),
        (lambda a: dg.nn.functional.ctc_loss(dg.log_softmax(a, axis=-1), *labels), (5, 4, 2, 3)),
    ]
    for f, shape in cases:
        x = dg.tensor(_array(*shape))
        close(dg.vmap(f)(x).numpy(), np.stack([f(x[k]).numpy() for k in range(5)]), 5.0)
        slopes = dg.vmap(dg.grad(lambda a, f=f: (f(a) ** 2).sum()))(x)
        want = dg.grad(lambda a, f=f: sum((f(a[k]) ** 2).sum() for k in range(5)))(x)
        close(slopes.numpy(), want.numpy(), 50.0)


@pytest.mark.parametrize("rows", [3, 0])
def test_derivatives_of_a_mapped_op_with_its_own_gradient(rows):
    x = dg.randn(rows, 4)
    mapped = dg.vmap(lambda row: dg.softmax(row, axis=-1))
    whole = lambda t: dg.softmax(t, axis=-1)
    for f, g in ((mapped, whole), (lambda t: mapped(t).sum(axis=0), lambda t: whole(t).sum(axis=0))):
        np.testing.assert_array_equal(dg.jacobian(f)(x).numpy(), dg.jacobian(g)(x).numpy())
    squares = [dg.hessian(lambda t, f=f: (f(t) ** 2).sum())(x).numpy() for f in (mapped, whole)]
    np.testing.assert_array_equal(*squares)


def test_two_threads_walk_one_tape_of_vmap():
    """One under another vmap, one at once, both in the same rule at the same time."""
    inside, done = (threading.Event(), threading.Event()), threading.Event()
    found = []

    def rule(g):
        other = threading.current_thread() is not threading.main_thread()
        inside[other].set()
        assert inside[1].wait(30)
        assert not other or done.wait(30)
        return g * 3 + g

    def walk():
        inside[0].wait(30)
        found.extend(pull(x))

    x = dg.randn(2, 3)
    _, pull = dg.vjp(dg.vmap(dg.custom_gradient(lambda row: (row.sin(), rule))), x)
    thread = threading.Thread(target=walk)
    thread.start()
    try:
        found.extend(dg.vmap(pull)(dg.ones(4, 2, 3)))
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(found[0].numpy(), np.full((4, 2, 3), 4, np.float32))
    np.testing.assert_array_equal(found[1].numpy(), (x * 3 + x).numpy())
