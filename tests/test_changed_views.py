"""Changes in place of views: all that look into the changed memory have its history, as in PyTorch, in both modes."""

import duograd as dg
import numpy as np
import pytest

ARRAYS = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)

#: steps on b (computed), y (a leaf), c (a row without gradient), k (a matrix without gradient), and what is returned
PROGRAMS = """
v = b.permute(1, 0); v[...] = v -> v, b
v = b.T; v.mul_(2) -> v, b
v = b[0]; v.mul_(2) -> v, b
v = b[0]; v.mul_(2) -> v
v = b[0]; v.copy_(y[1]) -> v, b
v = b[0]; v[...] = v -> v, b
b[...] = b -> b
b[0] = b[1] -> b
b[0] = b[0] -> b
b[1:] = b[:2].clone() -> b
b.add_(b) -> b
b.sub_(b) -> b
b += b.mT.clone() -> b
v = b.mT; v += v.mT.clone() -> v, b
v = b.mT; v += y -> v, b
v = b.mT; w = v.mT; w.mul_(3) -> v, w, b
v = b[0]; w = b[:, 0]; v.mul_(2); w.mul_(3) -> v, w, b
v = b[0]; w = b[:, 0]; v.mul_(2) -> w, v
v = b[0]; w = v[1:]; w.mul_(2) -> w
v = b[0]; w = v[1:]; w.mul_(2) -> v
v = b[0]; w = v[1:]; v.mul_(2) -> w
v = b[:]; v[:] = b -> v, b
v = b[:]; b[:] = v -> v, b
v = b[:]; b[:] = v * 2 -> v, b
v = b[:]; v[:] = b * 2 -> v, b
v = b.reshape(-1); v[1:4] = v[2:5].clone() -> v, b
v = b.reshape(-1); v[1:4] = y[0] -> v
v = b[0]; v.copy_(c) -> v, b
v = b[0]; v.copy_(c); v.mul_(2) -> v, b
v = b[0]; v.zero_() -> v, b
v = b[0]; v.mul_(2); u = v * 3; v.mul_(2) -> u, v
v = b[0]; v.mul_(2); u = v * 3; b.mul_(2) -> u, v, b
v = b[0]; v.mul_(2); d = v.detach(); d.mul_(2) -> v, b
v = b[0].detach(); v.mul_(2) -> b
v = b.T; v[0] = v[1] -> v, b
v = b.T; v[0] = b[0] -> v, b
v = b[0]; v.mul_(c); u = b * v -> u, v
v = k[0]; v.copy_(y[0]) -> v, k
v = k.T; v[...] = v -> k
v = k.T; v[...] = y -> v, k
k[0] = b[0]; k[1] = k[0] -> k
v = k[0]; v.copy_(b[0]); w = k[1]; w.copy_(v) -> v, w, k
v = b.unsqueeze(0); v[...] = v -> v, b
v = b.permute(1, 0); w = v.permute(1, 0); w[...] = v.clone() -> w, v, b
v = b.diagonal(); v.mul_(2) -> v, b
v = b.squeeze(); v.exp_() -> v, b
v = b[0]; v += b[1]; b[1] = v -> v, b
v = b[0]; b[1] = v -> v, b
v = b[0]; b[0] = y[0] -> v, b
v = b[0]; b[0] = v -> v, b
v = b[0]; b[0] += v -> v, b
b[0] += b[0] -> b
v = b[0]; b[[0, 1]] = b[[1, 0]] -> v, b
v = b.T; v[[0, 1]] = v[[1, 0]] -> v, b
v = b.T; v[v > 0] = 1.0 -> v, b
v = b.T; b[b > 0] *= 2.0 -> v, b
v = b.view(9); v.masked_fill_(v > 0, 2.0) -> v, b
v, w = b[0], b[0]; v[...] = w -> v, w, b
""".strip().split("\n")

#: the gradient wants the values that the op itself writes over: beside each, the same without a change in place
OVER_ITSELF = {
    "b *= y -> b": "b = b * y -> b",
    "k *= b -> k": "k = k * b -> k",
    "b.mul_(b) -> b": "b = b * b -> b",
    "b.div_(y) -> b": "b = b / y -> b",
    "b **= 2 -> b": "b = b ** 2 -> b",
    "b.exp_().sin_() -> b": "b = b.exp().sin() -> b",
    "k.lerp_(b, y) -> k": "k = k.lerp(b, y) -> k",
    "k.cumprod_(0).mul_(b) -> k": "k = k.cumprod(0) * b -> k",
    "k.addmm_(b, y) -> k": "k = k + b @ y -> k",
    "k.scatter_reduce_(0, (k > 0).long(), b, 'amax') -> k": "k = k.scatter_reduce(0, (k > 0).long(), b, 'amax') -> k",
    "v = b[0]; v *= y[0] -> v, b": "v = b[0] * y[0] -> v, dg.cat([v[None], b[1:]])",
    "v = b[0]; v.mul_(v) -> v, b[1]": "v = b[0] * b[0] -> v, b[1]",
}

#: the gradient wants what another change wrote over: an error, not another number
REFUSED = """
k[0] = b[0]; k[1] = k[0] * k[0]; k[2] = k[1] * k[0] -> k
b[0] *= b[1] -> b
v, w = b[0], b[1]; v.mul_(w); w.mul_(v) -> v, w, b
""".strip().split("\n")


def made(program):
    steps, results = program.split(" -> ")
    names = {"dg": dg}
    exec(f"def fn(b, y, c, k):\n    {steps}\n    return {results},", names)
    return names["fn"]


def seen(fn, tensor, grad, inside, calls=1):
    """Per call: the results, b and k afterwards, and all their gradients, taken in the function too or only outside."""

    def gradients(z, inputs):
        if not z.requires_grad:
            return ["no gradient"]
        weights = tensor(1 + np.arange(np.prod(z.shape), dtype=np.float32).reshape(tuple(z.shape)))
        gs = grad((z * weights).sum(), inputs, retain_graph=True, allow_unused=True)
        return [None if g is None else g.detach().numpy().copy() for g in gs]

    found = []
    for _ in range(calls):
        x, y = tensor(ARRAYS[0]).requires_grad_(), tensor(ARRAYS[1]).requires_grad_()
        b, k = x * 1, tensor(ARRAYS[3])
        results = fn(b, y, tensor(ARRAYS[2, 0]), k)
        results, taken = results if inside else (results, [])
        row = [None if g is None else g.detach().numpy() for gs in taken for g in gs]
        for z in (*results, b, k):
            row += [z.detach().numpy().copy(), *gradients(z, [b, x, y])]
        found.append(row)
    return found


def with_gradients(fn, tensor, grad):
    def whole(b, y, c, k):
        results, taken = fn(b, y, c, k), []
        for z in results:
            if z.requires_grad:
                taken.append(grad((z * z).sum(), [b, y], retain_graph=True, allow_unused=True))
        return results, taken

    return whole


def close(a, b):
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        assert (a is None and b is None) or a == b
    else:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_looks_into_changed_memory_has_its_history(program, inside):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    fn = made(program)
    theirs, ours = (torch.tensor, torch.autograd.grad), (dg.tensor, dg.autograd.grad)
    want = seen(with_gradients(fn, *theirs) if inside else fn, *theirs, inside)[0]
    fn = with_gradients(fn, *ours) if inside else fn
    eager = seen(fn, *ours, inside)[0]
    assert len(eager) == len(want)
    for got, right in zip(eager, want):
        close(got, right)
    for row in seen(dg.function(fn, mode="graph"), *ours, inside, calls=3):
        for got, right in zip(row, eager, strict=True):
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("program", OVER_ITSELF)
def test_what_an_op_writes_over_itself_is_kept_for_its_gradient(program, mode):
    def slopes(fn):
        x, y = (dg.tensor(ARRAYS[k]).requires_grad_() for k in (0, 1))
        weights = dg.tensor(ARRAYS[2])
        total = sum(
            (z * weights[0] if z.ndim == 1 else z * weights).sum()
            for z in fn(x * 1, y, None, dg.tensor(ARRAYS[3]))
        )
        return [g.numpy() for g in dg.autograd.grad(total, [x, y], allow_unused=True) if g is not None]

    want, fn = slopes(made(OVER_ITSELF[program])), dg.function(made(program), mode=mode)
    for _ in range(3):
        for got, right in zip(slopes(fn), want, strict=True):
            close(got, right)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("program", REFUSED)
def test_a_gradient_that_wants_what_was_written_over_is_refused(program, mode):
    fn = dg.function(made(program), mode=mode)
    for _ in range(3):
        with pytest.raises(dg.errors.AutogradError, match="changed in place"):
            seen(fn, dg.tensor, dg.autograd.grad, False)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("change", [lambda b, k: b.copy_(k), lambda b, k: b.heaviside_(k)])
def test_a_view_of_memory_that_is_written_over_has_its_history(mode, change):
    def fn(b, k):
        v = b[0]
        w = v[1:]
        change(b, k)
        return v, w, v * 2

    x = dg.tensor(ARRAYS[0]).requires_grad_()
    f = dg.function(fn, mode=mode)
    for _ in range(3):
        b, x.grad = x * 1, None
        found = (*f(b, dg.tensor(ARRAYS[1])), b)
        assert all(z.requires_grad for z in found)
        sum(z.sum() for z in found).backward()
        assert x.grad.tolist() == dg.zeros(x.shape).tolist()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_change_through_a_view_without_a_rule_is_refused_before_it_is_made(mode):
    def fn(b):
        b.expand(3, 3).mul_(2)
        return b

    x = dg.tensor(ARRAYS[0]).requires_grad_()
    b = x * 1
    with pytest.raises(
        dg.errors.AutogradError, match=r"\[broadcast_to\] the result float32\[3, 3\] cannot be changed"
    ):
        dg.function(fn, mode=mode)(b)
    np.testing.assert_array_equal(b.detach().numpy(), ARRAYS[0])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_view_of_a_leaf_outside_is_refused_and_one_of_a_computed_tensor_is_changed(mode):
    """A graph saw no more than that the argument is none of the two: it changed the leaf."""
    step = dg.function(lambda x: x.mul_(2), mode=mode)
    for view in (lambda x: (x * 1)[0], lambda x: x[0], lambda x: (x * 1)[0], lambda x: x.mT):
        leaf = dg.ones((2, 2)).requires_grad_()
        x = view(leaf)
        if x._base is leaf:
            with pytest.raises(dg.errors.AutogradError, match="a view of a leaf"):
                step(x)
        else:
            step(x).sum().backward()
            assert leaf.grad.numpy().tolist() == [[2, 2], [0, 0]]


def test_a_view_of_a_leaf_in_state_is_refused_while_it_is_one():
    leaf, state = dg.ones((2, 2)).requires_grad_(), {}

    @dg.function
    def step():
        return state["x"].mul_(2)

    for view in (leaf * 1)[0], leaf[0], (leaf * 1)[0]:
        state["x"] = view
        if view._base is leaf:
            with pytest.raises(dg.errors.AutogradError, match="a view of a leaf"):
                step()
        else:
            assert step().tolist() == [2, 2]


def test_a_view_of_a_tensor_outside_that_is_filled_has_the_history_of_the_whole():
    """A graph knew no whole: what it computed of the view had no history."""
    found = []
    for mode in ("eager", "graph"):
        step = dg.function(lambda x: (x.zero_(), x * 2)[1], mode=mode)
        for view in (lambda x: (x * 1)[0], lambda x: x * 1, lambda x: (x * 1).flip(0), lambda x: x * 1):
            leaf = dg.ones((2, 2)).requires_grad_()
            x = view(leaf)
            y = step(x)
            if y.requires_grad:
                y.sum().backward()
            found.append(
                (y.requires_grad, x.requires_grad, None if leaf.grad is None else leaf.grad.tolist())
            )
    assert found[:4] == found[4:]


def through(make, weighted, mode):
    """What a function that changes its argument does with views of many kinds, which are not in what it is traced
    for."""
    w, found = dg.ones((3,)).requires_grad_(), []

    def change(x):
        x += w.sum() if weighted else 2.0
        return x * 2

    step = dg.function(change, mode=mode)
    for view in make:
        base = dg.tensor(ARRAYS[0][:2]) * 1
        try:
            found.append((step(view(base)).tolist(), base.tolist(), base.requires_grad))
        except (dg.errors.AutogradError, dg.errors.ArgumentError) as e:
            found.append((type(e), str(e), base.tolist()))
    return found


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("turn", range(5))
def test_an_argument_that_looks_into_what_is_repeated_outside_is_refused(turn, weighted):
    """Graph mode changed elements that share memory, or failed on a view that has no rule with a TypeError."""
    views = [
        lambda b: b,
        lambda b: b.expand(2, 2, 3)[0],
        lambda b: b[:0].expand(2, 0, 3),
        lambda b: dg.broadcast_to(b, (2, 3)),
        lambda b: b.mT.mT,
    ]
    views = [*views[turn:], *views[:turn]] * 2
    eager = through(views, weighted, "eager")
    assert sum(x[0] in (dg.errors.AutogradError, dg.errors.ArgumentError) for x in eager) == (
        6 if weighted else 2
    )
    assert through(views, weighted, "graph") == eager


FILLED = {
    "nothing": lambda x, w: (x.copy_(w), x.zero_(), w * 2)[2],
    "a number": lambda x, w: (x.mul_(w.sum()), x.fill_(2.0), x * 1)[2],
    "ones": lambda x, w: (x.copy_(w), x * 2, x.copy_(dg.ones(x.shape)))[1],
    "by an index": lambda x, w: (x[0].copy_(w[0]), x.__setitem__(..., 1.0), x.sum())[2],
}


@pytest.mark.parametrize("name", FILLED)
def test_a_view_that_is_filled_keeps_the_history_that_the_function_gave_the_whole(name):
    """Graph mode knew no whole: a view of a tensor without history had none after two writes."""
    found = []
    for mode in ("eager", "graph"):
        step = dg.function(lambda x, w: FILLED[name](x, w), mode=mode)
        for take in (1, 0, 1, 1, 0):
            base, w = dg.ones((3, 2)), dg.ones((2, 2)).requires_grad_()
            x = base[1:] if take else dg.ones((2, 2))
            y = step(x, w)
            (y.sum() + x.sum() + base.sum() + w.sum()).backward()
            found.append((y.requires_grad, x.requires_grad, base.requires_grad, x.is_leaf, w.grad.tolist()))
    assert found[:5] == found[5:]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("made", [lambda x: x * 2, lambda x: (x * 2)[0], lambda x: (x * 2).reshape(-1)])
@pytest.mark.parametrize(
    "change",
    [
        "fill_(5.0)",
        "zero_()",
        "copy_(dg.ones(1))",
        "__setitem__(..., 2)",
        "heaviside_(dg.ones(1))",
        "copy_(w)",
        "normal_()",
        "uniform_(0, 1)",
    ],
)
def test_what_is_written_over_has_a_gradient_of_0(change, made, inside):
    """As in PyTorch. It had none where it was no view, as what a graph returns; under random numbers that of before."""
    found = []
    for mode in ("eager", "graph"):
        for _ in range(3):
            dg.manual_seed(1)
            x, w = (dg.ones(s).requires_grad_() for s in ((2, 2), ()))

            def fn(x, w):
                y = made(x)
                if inside:
                    eval(f"y.{change}", {"y": y, "w": w, "dg": dg})
                return y

            y = dg.function(fn, mode=mode)(x, w)
            if not inside:
                eval(f"y.{change}", {"y": y, "w": w, "dg": dg})
            y.sum().backward()
            found.append((y.tolist(), y.requires_grad, x.grad.tolist(), w.grad and w.grad.item()))
    assert found[0][1:] == (True, [[0.0, 0.0]] * 2, y.size if change == "copy_(w)" else None)
    assert found == found[:1] * 6
