"""Hot bodies: a composite, its gradient, every gradient step becomes one program, the same bit for bit."""

import contextlib
import gc
import math
import threading

import duograd as dg
import numpy as np
import pytest
from duograd.core import hot
from duograd.core.errors import AutogradError
from duograd.core.op import REGISTRY
from duograd.core.random import default_generator
from duograd.core.reference import make_arguments

F = dg.nn.functional
COMPOSITES = [
    pytest.param(op, sample, id=op.name)
    for op in REGISTRY.values()
    for sample in op.samples[:1]
    if op.kind == "composite"
]


@pytest.fixture
def hot_at(monkeypatch):
    """Bodies are compiled after so many calls, and errors of the compiler are not hidden."""

    def set_calls(n):
        monkeypatch.setattr(hot, "CALLS", n)
        monkeypatch.setenv("DUOGRAD_VERIFY", "1")
        for op in REGISTRY.values():
            op.recipes.clear()
            op.shortcuts.clear()

    return set_calls


def _run(op, sample, arrays, only=None, twice=False):
    """Results and gradients of one call, as arrays. only: of one result; twice: the inputs were used elsewhere."""
    dg.manual_seed(3)
    inputs = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    if op.differentiable or not op.no_gradient:
        for x in inputs:
            if isinstance(x, dg.Tensor) and x.dtype.is_float:
                x.requires_grad_()
    made = op(*inputs, **sample.attrs)
    outs = made if isinstance(made, tuple) else (made,)
    found = [y.detach().numpy().copy() for y in outs]
    roots = [y for y in outs if y.requires_grad]
    if only is not None:
        roots = roots[only : only + 1]
    if roots:
        rest = [(x * 0.3).sum() for x in inputs if twice and isinstance(x, dg.Tensor) and x.requires_grad]
        squares = [dg.square(dg.abs(y) if y.dtype.is_complex else y).sum() for y in roots] + rest
        sum(squares[1:], squares[0]).backward()
        found += [x.grad.numpy() for x in inputs if isinstance(x, dg.Tensor) and x.grad is not None]
    return found


@pytest.mark.parametrize(("op", "sample"), COMPOSITES)
def test_a_hot_composite_gives_the_bits_of_the_cold_one(op, sample, hot_at):
    arrays = make_arguments(sample)
    hot_at(10**9)
    want = _run(op, sample, arrays)
    hot_at(1)
    for _ in range(3):
        for a, b in zip(want, _run(op, sample, arrays), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("op", "sample"), COMPOSITES)
def test_a_hot_composite_adds_to_gradients_that_are_there_as_the_cold_one_does(op, sample, hot_at):
    arrays = make_arguments(sample)
    hot_at(10**9)
    want = _run(op, sample, arrays, twice=True)
    hot_at(1)
    for _ in range(3):
        for a, b in zip(want, _run(op, sample, arrays, twice=True), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_hot_composite_of_one_tensor_twice_adds_its_parts_in_order(hot_at):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 5)).astype("float32")

    def run():
        x = dg.tensor(a).requires_grad_()
        y = F.cosine_similarity(x, x).sum()
        (y + (x * 0.3).sum()).backward()
        return x.grad.numpy()

    hot_at(10**9)
    want = run()
    hot_at(1)
    for _ in range(3):
        np.testing.assert_array_equal(run(), want)


def test_hot_composites_add_their_parts_in_order_where_a_walk_runs_on_other_tensors(hot_at):
    rng = np.random.default_rng(0)
    a, g = (rng.normal(size=(8, 5)).astype("float32") for _ in range(2))

    def run():
        x = dg.tensor(a).requires_grad_()
        y = F.normalize(x) * 2 + x * 0.3
        return dg.vmap(lambda g: dg.autograd.grad(y, x, g, retain_graph=True)[0])(dg.tensor(g)[None]).numpy()

    hot_at(10**9)
    want = run()
    hot_at(1)
    for _ in range(3):
        np.testing.assert_array_equal(run(), want)


@pytest.mark.parametrize("only", [0, 1, 2])
@pytest.mark.parametrize(("op", "sample"), COMPOSITES)
def test_a_hot_composite_gives_the_gradient_of_one_result(op, sample, only, hot_at):
    arrays = make_arguments(sample)
    hot_at(10**9)
    want = _run(op, sample, arrays, only)
    hot_at(1)
    for _ in range(3):
        for a, b in zip(want, _run(op, sample, arrays, only), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fn", [
    lambda x, y: x * y + x / y,
    lambda x, y: (x * 2.5 - 1.5) ** 3.0 * y,
    lambda x, y: dg.concat([x, y * x]).reshape(-1),
    lambda x, y: dg.exp(x).sum(axis=0) * y,
    lambda x, y: (x @ x.T).mean(axis=1),
    lambda x, y: dg.where(x > 0, x, y).var(axis=1),
])  # fmt: skip
def test_hot_gradient_steps_give_the_bits_of_cold_ones(fn, hot_at):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 5)).astype("float32"), rng.normal(size=5).astype("float32") + 3

    def run():
        x, y = dg.tensor(a).requires_grad_(), dg.tensor(b).requires_grad_()
        (fn(x, y) * 1.5).sum().backward()
        return [g.numpy() for g in (x.grad, y.grad) if g is not None]

    hot_at(10**9)
    want = run()
    hot_at(1)
    for _ in range(3):
        for g, w in zip(run(), want, strict=True):
            np.testing.assert_array_equal(g, w)


def test_a_number_is_an_argument_of_a_hot_step(hot_at):
    hot_at(1)
    x = dg.tensor([1.0, 2.0]).requires_grad_()
    for factor in (2.0, 3.0, -1.0, 0.5):
        x.grad = None
        (x * factor).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [factor, factor])


def test_hot_dropout_draws_the_numbers_of_the_cold_one(hot_at):
    hot_at(10**9)
    dg.manual_seed(5)
    want = [F.dropout(dg.ones((40,))).numpy() for _ in range(4)]
    hot_at(1)
    dg.manual_seed(5)
    for w in want:
        np.testing.assert_array_equal(F.dropout(dg.ones((40,))).numpy(), w)


def test_a_recorded_gradient_of_hot_dropout_has_its_random_numbers(hot_at):
    hot_at(2)
    dg.manual_seed(5)
    for _ in range(4):
        x = dg.ones((40,)).requires_grad_()
        y = F.dropout(x, 0.5)
        state = default_generator.get_state()
        (g,) = dg.autograd.grad(y.sum(), x, create_graph=True)
        np.testing.assert_array_equal(g.detach().numpy(), y.detach().numpy())
        assert default_generator.get_state() == state


def test_gradients_of_gradients_through_a_hot_composite(hot_at):
    def second():
        x = dg.tensor([[0.3, -0.2, 0.9]]).requires_grad_()
        y = dg.tensor([[1.0, 0.5, 0.1]])
        x.grad = None
        F.mse_loss(dg.tanh(x), y).backward(create_graph=True)
        g = x.grad
        x.grad = None
        (g * g).sum().backward()
        return x.grad.numpy()

    hot_at(10**9)
    want = second()
    hot_at(1)
    for _ in range(3):
        np.testing.assert_allclose(second(), want, rtol=1e-6)


def _second_order(walks):
    """Gradients of weights through values, gradients and second derivatives of a network: many sums at one weight."""
    dg.manual_seed(0)
    net = dg.nn.Sequential(
        dg.nn.Linear(2, 32), dg.nn.Tanh(), dg.nn.Linear(32, 32), dg.nn.Tanh(), dg.nn.Linear(32, 1)
    )
    found = []
    for _ in range(4):
        x, t = dg.randn(64).requires_grad_(), dg.rand(64).requires_grad_()
        u = net(dg.stack([t, x], axis=-1))[:, 0]
        (ut,) = dg.autograd.grad(u.sum(), t, create_graph=True)
        (ux,) = dg.autograd.grad(u.sum(), x, create_graph=True)
        (uxx,) = dg.autograd.grad(ux.sum(), x, create_graph=True)
        for _ in range(walks):
            net.zero_grad()
            residual = dg.square(ut + u * ux - 0.1 * uxx).mean()
            (residual + dg.square(net(dg.randn(32, 2))).mean()).backward(retain_graph=True)
        found += [p.grad.numpy().copy() for p in net.parameters()]
    return found


@pytest.mark.parametrize("walks", [1, 2])
def test_gradients_of_gradients_meet_in_the_same_order(walks, hot_at):
    hot_at(10**9)
    want = _second_order(walks)
    hot_at(1)
    for a, b in zip(want, _second_order(walks)):
        np.testing.assert_array_equal(a, b)


def test_hooks_and_checks_stay_when_a_hot_call_unfolds(hot_at):
    hot_at(1)
    w = dg.randn(3, 2)
    for _ in range(3):
        seen, x = [], dg.randn(4, 2).requires_grad_()
        y = F.linear(x, w.requires_grad_())
        y.register_hook(lambda g, seen=seen: seen.append(g.shape))
        (g,) = dg.autograd.grad(dg.square(y).sum(), x, create_graph=True)
        g.sum().backward()
    assert seen == [(4, 3), (4, 3)]
    y = F.linear(x, w)
    with dg.no_grad():
        w.zero_()
    with pytest.raises(AutogradError, match="changed in place"):
        dg.autograd.grad(dg.square(y).sum(), x, create_graph=True)


def _several(op, sample, call):
    """Gradients of one result for the others, in which order hooks on all of them run, and what they leave; None where
    fewer than two have a gradient."""
    arrays = make_arguments(sample)
    inputs = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    leaves = [x.requires_grad_() for x in inputs if isinstance(x, dg.Tensor) and x.dtype.is_float]

    def run():
        made = call(*inputs)
        roots = [y for y in (made if isinstance(made, tuple) else ()) if y.requires_grad]
        return roots, [dg.square(dg.abs(y) if y.dtype.is_complex else y).sum() for y in roots]

    roots, squares = run()
    if len(roots) < 2:
        return None
    between = dg.autograd.grad(squares[0] + squares[1] * 2, roots[1:], allow_unused=True)
    roots, squares = run()
    seen = []
    for k, y in enumerate(roots):
        y.register_hook(lambda g, k=k: seen.append(k) or g * (k + 3))
    sum(squares).backward()
    grads = [*between, *(x.grad for x in leaves)]
    return seen, [None if g is None else g.numpy().tobytes() for g in grads]


def test_several_results_of_a_hot_call_have_hooks_and_gradients_as_those_of_a_cold_one(hot_at):
    cases = [p.values for p in COMPOSITES if p.values[0].differentiable or not p.values[0].no_gradient]
    calls = [(op, sample, lambda *xs, op=op, sample=sample: op(*xs, **sample.attrs)) for op, sample in cases]
    hot_at(10**6)
    found = [(case, want) for case in calls if (want := _several(*case)) is not None]
    assert {"lu", "lstm_projected_layer"} <= {case[0].name for case, _ in found}
    hot_at(1)
    for (op, sample, call), want in found:
        for _ in range(2):
            assert _several(op, sample, call) == want, op.name
        assert _several(op, sample, dg.function(call)) == want, op.name


@pytest.mark.parametrize("changed", ["argument", "weight", "result"])
@pytest.mark.parametrize(
    "fn",
    [
        F.linear,
        lambda x, w: F.glu(x) * w[:, :2],
        lambda x, w: dg.softmin(x, axis=-1) * w[0, 0],
        lambda x, w: F.scaled_dot_product_attention(x, w, w),
        lambda x, w: dg.linalg.cholesky_solve(x, w.mT @ w + dg.eye(4)),
        lambda x, w: dg.tensordot(x.reshape(2, 2, 4), w.reshape(2, 2, 4), axes=((2, 0), (2, 0))),
    ],
    ids=["linear", "glu", "softmin", "attention", "cholesky_solve", "tensordot"],
)
def test_a_hot_call_gives_the_errors_of_the_cold_one(fn, changed, hot_at):
    def run():
        dg.manual_seed(1)
        a, b = dg.randn(4, 4).requires_grad_(), dg.randn(4, 4).requires_grad_()
        x, w = a * 2, b * 1
        y = fn(x, w)
        y.sum().backward(retain_graph=True)
        {"argument": x, "weight": w, "result": y}[changed].detach().add_(1.0)
        said = []
        for _ in range(2):
            try:
                y.sum().backward()
                said.append("none")
            except AutogradError as e:
                said.append(str(e))
        return [*said, a.grad.numpy().tolist(), b.grad.numpy().tolist()]

    hot_at(10**9)
    want = run()
    hot_at(1)
    assert [run() for _ in range(4)] == [want] * 4


@pytest.mark.parametrize("then", ["add_(1.0)", "zero_()", "mul_(v)", "detach().add_(1.0)"])
@pytest.mark.parametrize("which", ["x", "w", "leaf", "b", "part"])
@pytest.mark.parametrize("asks", ["xwb", "wb", "xb", "b"])
def test_a_recorded_walk_needs_no_more_of_a_hot_call_than_of_a_cold_one(which, then, asks, hot_at):
    """Op by op, the gradient of a weight needs the input and not the weight, which a step may have changed."""

    def run():
        dg.manual_seed(1)
        v, leaf, whole = (dg.rand(shape).requires_grad_() for shape in ((1,), (3, 4), (2, 3, 4)))
        made = {"x": dg.rand(2, 4), "w": dg.rand(3, 4), "b": dg.rand(3)}
        made = {k: t * v if k in asks else t for k, t in made.items()}
        made |= {"leaf": leaf, "part": (whole * 1)[0]}
        y = F.linear(made["x"], made[which if which in ("leaf", "part") else "w"], made["b"])
        said = []
        try:
            with dg.no_grad() if which == "leaf" else contextlib.nullcontext():
                eval(f"t.{then}", {"t": made[which], "v": v})
            found = dg.autograd.grad(y.square().sum(), [v, leaf, whole], create_graph=True, allow_unused=True)
            said += [None if g is None else (g.tolist(), g.requires_grad) for g in found]
            sum((g * g).sum() for g in found if g is not None and g.requires_grad).backward()
            said += [t.grad if t.grad is None else t.grad.tolist() for t in (v, leaf, whole)]
        except Exception as e:
            said.append(str(e))
        return said

    hot_at(10**9)
    want = run()
    hot_at(1)
    assert [run() for _ in range(4)] == [want] * 4


def test_one_tensor_given_twice_gets_both_gradients(hot_at):
    hot_at(1)
    for _ in range(4):
        x = dg.tensor([1.0, 2.0]).requires_grad_()
        F.mse_loss(x, x * 2).backward()
        np.testing.assert_allclose(x.grad.numpy(), [1.0, 2.0])


def test_a_tensor_changed_before_the_gradient_is_noticed_by_a_hot_step(hot_at):
    hot_at(1)
    for _ in range(4):
        x = dg.tensor([1.0, 2.0]).requires_grad_()
        y = x * 2
        z = y * y
        y.detach().add_(1.0)
        with pytest.raises(AutogradError, match="changed in place"):
            z.sum().backward()


@pytest.mark.parametrize(
    "fn", [lambda y: F.layer_norm(y, (2,)), dg.softmax], ids=["own step", "own gradient"]
)
def test_a_hot_call_with_a_changed_tensor_names_the_line_of_the_call(fn, hot_at):
    hot_at(1)
    x = dg.tensor([[1.0, 2.0]]).requires_grad_()
    for _ in range(4):
        fn(x * 2).sum().backward()
        y = x * 2
        z = fn(y)
        for t in (y, z):
            t.detach().add_(1.0)
        with pytest.raises(AutogradError, match=r"changed in place at \S*test_hot.py:\d+") as refused:
            z.sum().backward()
        assert str(refused.value).count("test_hot.py") == 3  # recorded, changed, walked back


def test_a_signature_is_compiled_once_and_reused(hot_at):
    hot_at(2)
    x = dg.ones((3, 7))
    before = hot.counters["compiled"]
    for _ in range(6):
        dg.softmax(x)
    assert hot.counters["compiled"] == before + 1
    dg.softmax(dg.ones((3, 8)))
    assert hot.counters["compiled"] == before + 1


def test_a_hot_result_lies_in_memory_as_the_cold_one(hot_at):
    q = dg.tensor(np.random.default_rng(0).standard_normal((2, 3, 7, 5)).astype(np.float32))
    hot_at(2)
    before = hot.counters["compiled"]
    cold, _, y = (F.scaled_dot_product_attention(q, q, q) for _ in range(3))
    assert hot.counters["compiled"] == before + 1
    assert y._layout is cold._layout
    assert not y._layout.contiguous
    np.testing.assert_array_equal(y.numpy(), cold.numpy())
    y += 1.0
    y[0, 1] = 2.0
    want = cold.numpy() + 1
    want[0, 1] = 2
    np.testing.assert_array_equal(y.reshape(-1).numpy(), want.reshape(-1))


def test_what_reads_values_stays_op_by_op(hot_at):
    hot_at(1)
    weight, index = dg.ones((4, 2)), dg.tensor([1, 9])
    for _ in range(3):
        with pytest.raises(dg.errors.IndexingError):
            F.embedding(index, weight)


EYE = dg.eye(2)


@pytest.mark.parametrize(
    ("call", "good", "bad"),
    [
        (dg.cholesky, EYE, -EYE),
        (dg.inv, EYE, EYE * 0),
        (lambda x: dg.solve(x, EYE), EYE, EYE * 0),
        (dg.pinv, EYE, EYE * math.nan),
        (dg.svdvals, EYE, EYE * math.nan),
    ],
)
def test_what_refuses_values_refuses_them_after_many_calls(call, good, bad, hot_at):
    hot_at(2)
    good = good.clone().requires_grad_()
    for _ in range(6):
        call(good)
        with pytest.raises(dg.errors.LinAlgError):
            call(bad)
        call(good.detach())


def test_a_traced_function_walks_back_through_a_hot_call(hot_at):
    hot_at(1)
    w = dg.tensor([[0.5, 1.0]]).requires_grad_()
    for _ in range(3):
        F.mse_loss(w, dg.zeros((1, 2)))
    loss = F.mse_loss(w * 1.0, dg.zeros((1, 2)))

    @dg.function
    def double(loss):
        return dg.grad(lambda v: (v * v).sum())(loss)

    np.testing.assert_allclose(double(loss.detach()).numpy(), 2 * loss.detach().numpy())
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), [[0.5, 1.0]])


def test_hot_calls_from_many_threads(hot_at):
    hot_at(2)
    x = dg.tensor(np.random.default_rng(0).normal(size=(6, 9)).astype("float32"))
    want, wrong = dg.softmax(x).numpy().copy(), []

    def work():
        for _ in range(60):
            leaf = x.clone().requires_grad_()
            y = dg.softmax(leaf)
            y.sum().backward()
            if not np.array_equal(y.detach().numpy(), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.usefixtures("own_garbage")
def test_a_hot_call_keeps_no_reference_cycle(hot_at):
    hot_at(1)
    x = dg.ones((3, 4)).requires_grad_()
    for _ in range(3):
        F.mse_loss(x, dg.zeros((3, 4))).backward()
    gc.collect()
    gc.disable()
    try:
        F.mse_loss(x, dg.zeros((3, 4)))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_step_with_unused_outputs_becomes_hot():
    """Batch norm has three outputs; the gradient reaches one of them, and the step back is compiled all the same."""
    x = dg.tensor(np.random.default_rng(0).standard_normal((4, 3, 5), dtype=np.float32), requires_grad=True)
    first = None
    for _ in range(2 * hot.CALLS):
        x.grad = None
        out, _, _ = dg.batch_norm_training(x)
        (out * out * out).sum().backward()
        first = x.grad.numpy().copy() if first is None else first
    assert "batch_norm_training gradient" not in hot.refusals
    assert out._node.step.ready
    np.testing.assert_array_equal(x.grad.numpy(), first)


@pytest.mark.usefixtures("own_garbage")
def test_a_hot_call_keeps_the_tables_that_it_reads(hot_at, close):
    """A body's constants (here interpolation tables) live as long as its program."""
    hot_at(2)
    layer, x = dg.nn.Upsample((5, 11), mode="bilinear").eval(), dg.rand(2, 4, 8, 8)
    first = layer(x).numpy()
    for _ in range(3):
        layer(x)
    gc.collect()
    others = [dg.full((n,), 7.0) for n in (5, 10, 11, 22) for _ in range(20)]
    close(layer(x).numpy(), first)
    assert len(others) == 80
