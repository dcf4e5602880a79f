"""Products of one operand are merged, attention written out in ops is recognised: same bits, or stated bounds."""

import itertools
import math

import duograd as dg
import numpy as np
import pytest
from duograd.core.ops.attention import attention_grad, attention_grad_joined


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Every graph is verified after every pass."""
    monkeypatch.setenv("DUOGRAD_VERIFY", "1")


def normal(*shape):
    return dg.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def ops(step):
    """The ops of all graphs of a function's last variant, after the passes."""
    return [n.op.name for r in step.variants[-1].runners() for n in r.compiled.optimised.nodes]


def kernels(variant):
    """The kernels of a variant, by text."""
    return {launch.source for r in variant.runners() for launch in r.compiled.program.launches}


class Three(dg.nn.Module):
    """q, k and v of one input."""

    def __init__(self, width, bias):
        super().__init__()
        self.parts = dg.nn.ModuleList(dg.nn.Linear(width, n, bias=bias) for n in (width, width, 2 * width))

    def forward(self, x):
        q, k, v = (part(x) for part in self.parts)
        return (q.swapaxes(0, 1) @ k) @ v.swapaxes(0, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_one_operand_are_one_product_with_the_same_bits(bias):
    model, x = Three(8, bias), normal(500, 8)
    with dg.no_grad():
        model.parts[2].weight[8:] = 0  # columns of zeros beside others

    @dg.function
    def predict(x):
        with dg.no_grad():
            q, k, v = (part(x) for part in model.parts)
            return q.sum(axis=0), k.sum(axis=0), v.sum(axis=1)

    for rows in (500, 333):
        x = normal(rows, 8)
        for got, expected in zip(predict(x), predict.eager(x)):
            np.testing.assert_array_equal(got.numpy(), expected.numpy())
        assert ops(predict).count("matmul") == 1
        assert ops(predict).count("add") == bias
    assert kernels(predict.variants[0]) == kernels(predict.variants[1])
    assert "3 products of one operand are one: " in predict.explain()


def test_merged_products_have_the_gradients_of_single_ones():
    model, x = Three(8, True), normal(700, 8)

    def gradients(x):
        for p in model.parameters():
            p.grad = None
        q, k, v = (part(x) for part in model.parts)
        loss = (q.sum(axis=0) * k.sum(axis=0)).sum() + v.sum(axis=1).max()
        loss.backward()
        return loss.detach(), *(p.grad for p in model.parameters())

    step = dg.function(gradients)
    for got, expected in zip(step(x), gradients(x)):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_products_stay_alone_where_merging_would_move_more():
    w1, w2 = normal(64, 64), normal(64, 32)

    def count(fn, *args):
        step = dg.function(fn)
        for got, expected in zip(step(*args), fn(*args)):
            np.testing.assert_array_equal(got.numpy(), expected.numpy())
        return ops(step).count("matmul")

    few, many = normal(8, 64), normal(2000, 64)
    sums = lambda x, a, b: ((x @ a).sum(axis=0), (x @ b).sum(axis=0))
    assert count(sums, many, w1, w2) == 1
    assert count(sums, few, w1, w2) == 2  # copies of the weights would cost more
    assert (
        count(lambda x, a, b: (dg.relu(x @ a), dg.relu(x @ b)), many, w1, w2) == 2
    )  # relu is done in the cache
    assert count(lambda x, a, b: (x @ a, x @ b), many, w1, w2) == 2  # results of the call
    assert count(lambda x, a, b: ((x @ a).sum(axis=0), ((x + 1) @ b).sum(axis=0)), many, w1, w2) == 2


def attend(q, k, v, mask, style):
    if style == "divided":
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    elif style == "scaled":
        scores = 0.3 * (q @ k.swapaxes(-1, -2))
    else:
        scores = (q * 0.3) @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = dg.where(mask, scores, -math.inf) if mask.dtype is dg.bool else scores + mask
    return dg.softmax(scores, axis=-1) @ v


MASKS = {"none": None, "seen": dg.tensor(np.tril(np.ones((9, 9), bool))), "added": normal(9, 9)}


@pytest.mark.parametrize("shape", [(2, 3, 9, 4), (5, 9, 4)])
@pytest.mark.parametrize(
    ("style", "mask"), [("divided", "seen"), ("scaled", "added"), ("before", "none"), ("scaled", "none")]
)
def test_attention_written_out_becomes_the_fused_op_with_its_gradient(shape, style, mask):
    seen = MASKS[mask]
    parts = [normal(*shape), normal(*shape) * 0.7, normal(*shape) * 1.3]

    def gradients(q, k, v):
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = attend(q, k, v, seen, style)
        (out * dg.sin(out)).sum().backward()
        return out.detach(), q.grad, k.grad, v.grad

    step, exact = dg.function(gradients, precision="fast"), dg.function(gradients)
    for got, same, expected in zip(step(*parts), exact(*parts), gradients(*parts)):
        np.testing.assert_array_equal(same.numpy(), expected.numpy())
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=2e-5, atol=2e-6)
    assert "attention" not in ops(exact)
    names = ops(step)
    assert names.count("attention") == names.count("attention_grad") == 1
    assert not {"matmul", "max", "exp"} & set(names)
    assert "softmax(q k') v is the fused attention, with its way back" in step.explain()


def test_attention_whose_weights_are_read_by_others_stays_as_it_is():
    q, k, v = (normal(2, 6, 4) for _ in range(3))

    def both(q, k, v):
        weights = dg.softmax(q @ k.swapaxes(-1, -2), axis=-1)
        return weights @ v, weights

    step = dg.function(both, precision="fast")
    for got, expected in zip(step(q, k, v), both(q, k, v)):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert "attention" not in ops(step)
    other = dg.function(lambda q, k, v: dg.softmax(q @ k.swapaxes(-1, -2), axis=-2) @ v, precision="fast")
    other(q, k, v)
    assert "attention" not in ops(other)


def test_a_trained_mask_keeps_its_gradient():
    q, k, v, bias = (normal(*s) for s in ((2, 5, 4), (2, 5, 4), (2, 5, 4), (5, 5)))

    def gradients(q, k, v, bias):
        bias = bias.detach().requires_grad_()
        (attend(q, k, v, bias, "scaled") ** 2).sum().backward()
        return (bias.grad,)

    (got,), (expected,) = dg.function(gradients, precision="fast")(q, k, v, bias), gradients(q, k, v, bias)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["heads", "columns"])
def test_gradients_of_q_k_and_v_cut_out_of_one_tensor_are_written_side_by_side(layout):
    x, w = normal(2, 7, 6), normal(6, 24)

    def gradients(x, w):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        if layout == "heads":
            y = (x @ w).reshape(2, 7, 3, 2, 4)
            q, k, v = (y[:, :, i].swapaxes(1, 2) for i in range(3))
        else:
            y = x @ w
            q, k, v = (y[..., i : i + 8].reshape(2, 7, 2, 4).swapaxes(1, 2) for i in (0, 8, 16))
        out = dg.scaled_dot_product_attention(q, k, v, is_causal=True)
        (out * dg.cos(out)).sum().backward()
        return x.grad, w.grad

    step = dg.function(gradients)
    for got, expected in zip(step(x, w), gradients(x, w)):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    assert "attention_grad_joined" in ops(step)
    assert "concat" not in ops(step)


def test_joined_gradients_of_long_sequences_are_those_of_attention_grad():
    q, k, v, g = normal(1, 1, 400, 4), normal(1, 1, 400, 4) * 0.5, normal(1, 1, 400, 4), normal(1, 400, 1, 4)
    lse, delta = normal(1, 1, 400) + 5, normal(1, 400, 1)
    apart = attention_grad(q, k, v, None, g, lse, delta, scale=0.4)
    joined = attention_grad_joined(q, k, v, None, g, lse, delta, scale=0.4)
    for i, expected in enumerate(apart):
        np.testing.assert_array_equal(joined[:, :, i].numpy(), expected.numpy())


def test_a_turned_product_that_a_product_reads_keeps_eager_modes_bits():
    """One row times a matrix adds up in an order that depends on how the matrix lies: it must lie as in eager mode."""
    rng = np.random.default_rng(0)
    x = dg.tensor(rng.uniform(0.1, 3, (4, 5)).astype(np.float32))
    for rows in ((5,), (1, 5), (3, 5)):
        v = dg.tensor(rng.uniform(-3, 3, rows).astype(np.float32))
        for f in (lambda v, x: v @ (x.mT @ x).T, lambda v, x: v @ (x.mT @ x).T[:3].T):
            assert f(v, x).numpy().tobytes() == dg.function(f)(v, x).numpy().tobytes()


@pytest.mark.parametrize("same", [
    lambda x: x * 1,
    lambda x: x / 1,
    lambda x: x - 0,
    lambda x: dg.negative(dg.negative(x)),
    lambda x: x.clone(),
    lambda x: x.to(dg.float64).to(dg.float32),
    lambda x: (x * 1)[:2],
])  # fmt: skip
def test_a_product_reads_rows_where_eager_mode_has_them(same):
    """The order of the sums of a product with a vector depends on where the rows of its matrix lie."""
    rng = np.random.default_rng(0)
    w = dg.tensor(rng.normal(size=(14, 1)).astype("float32"))

    def product(x):
        return same(x) @ w

    graph = dg.function(product, mode="graph")
    for _ in range(20):
        x = dg.tensor(rng.normal(size=(14, 2)).astype("float32")).mT
        np.testing.assert_array_equal(product(x).numpy(), graph(x).numpy())


def _ones(x):
    return dg.ones(len(x), len(x))


REPEATED = {
    "turned": lambda x: _ones(x).T @ x,
    "rows": lambda x: dg.broadcast_to(dg.ones(len(x)), (len(x), len(x))).T @ x,
    "one_number": lambda x: x.T @ dg.broadcast_to(dg.ones(()), (len(x), len(x))).T,
    "turned_and_added": lambda x: (_ones(x).T @ x) + (_ones(x).T * 2 + x),
    "gradient_of_a_sum": lambda x: dg.grad(lambda x: dg.linear(x, x).sum())(x),
    "gradient_of_one_number": lambda x: dg.grad(lambda w: dg.linear(x, w).mean())(dg.ones(1, 1)),
    "gradient_of_means": lambda x: dg.grad(lambda w: (dg.linear(w, x).mean(axis=1) * x[:, 0]).mean())(x),
}


@pytest.mark.parametrize("case", REPEATED)
def test_products_of_constants_add_up_as_these_lie_in_memory(case):
    """Ten calls: eager mode's ops are hot at the end, and their gradients must lie as before."""
    f = dg.function(REPEATED[case])
    for seed in range(10):
        x = dg.tensor(np.random.default_rng(seed).normal(size=(65, 1)).astype(np.float32))
        np.testing.assert_array_equal(f(x).numpy(), f.eager(x).numpy())


def test_gradients_of_hot_ops_lie_as_those_of_others():
    seen = set()
    for _ in range(10):
        h = dg.randn(65, 65, requires_grad=True) * 1
        h.register_hook(lambda g: seen.add(g.strides))
        h.mean(axis=1).sum().backward()
    assert seen == {(1, 0)}


def test_leaves_get_memory_of_their_own_from_hot_ops():
    for _ in range(10):
        x = dg.randn(4, 5, requires_grad=True)
        x.mean(axis=1).sum().backward()
        assert x.grad.strides == (5, 1)
        x.grad[0, 0] = 7
        assert x.grad[0, 1].item() == np.float32(0.2)


def _turned(a):
    return dg.tensor(np.ascontiguousarray(a.swapaxes(0, -1))).transpose(0, -1)


def _apart(a):
    return dg.tensor(np.repeat(a, 2, axis=-1))[..., ::2]


def _backwards(a):
    return dg.tensor(a[::-1].copy()).flip(0)


LYING = {"rows": dg.tensor, "turned": _turned, "apart": _apart, "backwards": _backwards}


def scales_and_multiplies(x, v):
    x.mul_(1.5)
    return x @ v[: x.shape[-1]]


def changes_a_part_and_multiplies_turned(x, v):
    x[..., :1] += 1
    return x.mT @ v[: x.shape[-2]]


def multiplies_from_the_left(x, v):
    x.mul_(1.5)
    return v[: x.shape[-2]].mT @ x


def changes_by_a_view(x, v):
    y = x.mT
    y += 1
    return y @ v[: y.shape[-1]]


def reads_a_value_between(x, v):
    x += 1
    return x @ v[: x.shape[-1]] if x.sum() > 0 else x @ v[: x.shape[-1]] * 2


def multiplies_with_itself(x, v):
    x += 1
    return x[..., :1, :] @ x.mT


def multiplies_by_one_axis(x, v):
    x.mul_(1.5)
    return x @ v[: x.shape[-1], 0]


def multiplies_two_axes_that_it_has_changed(x, v):
    a, b = x[..., 0].reshape(-1) * 1, x[..., -1].reshape(-1) * 1
    a += 1
    b.mul_(0.5)
    return a @ b


CHANGING = (
    scales_and_multiplies, changes_a_part_and_multiplies_turned, multiplies_from_the_left, changes_by_a_view,
    reads_a_value_between, multiplies_with_itself, multiplies_by_one_axis, multiplies_two_axes_that_it_has_changed,
)  # fmt: skip


@pytest.mark.parametrize("lies", LYING)
@pytest.mark.parametrize("body", CHANGING, ids=lambda f: f.__name__)
def test_products_with_a_vector_add_up_as_what_was_changed_in_place_lies(body, lies):
    rng = np.random.default_rng(3)
    shapes = (33, 140), (5, 17, 65), (17, 1, 17), (64, 1, 70), (300, 1), (1, 300)
    for shape, columns in itertools.product(shapes, (1, 37)):
        x = rng.standard_normal(shape).astype(np.float32)
        v = rng.standard_normal((300, columns)).astype(np.float32)
        rows = []
        for mode in ("eager", "graph"):
            w = dg.tensor(v).requires_grad_()
            y = dg.function(body, mode=mode)(LYING[lies](x), w)
            y.square().sum().backward() if y.requires_grad else None
            rows.append((y.tolist(), None if w.grad is None else w.grad.tolist()))
        assert rows[0] == rows[1], (shape, columns)


@pytest.mark.parametrize("shape", [(5, 7, 20_000), (3, 2, 9000), (2, 1, 3, 9000)], ids=str)
def test_long_sums_of_few_rows_in_a_batch_do_not_depend_on_how_they_lie(shape):
    """In pieces of K, as many as rows say: batch axes were rows only where they could be walked as such."""
    a = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    w = dg.tensor(np.random.default_rng(2).standard_normal((shape[-1], 3)).astype(np.float32))
    found = [(LYING[k](a) @ w).tolist() for k in LYING] + [
        (dg.tensor(a).reshape(-1, shape[-1]) @ w).reshape(*shape[:-1], 3).tolist()
    ]
    assert all(y == found[0] for y in found)

    def scaled(x):
        x.mul_(1.5)
        return x @ w

    for lies in LYING:
        eager, graph = (
            dg.function(scaled, mode=mode)(LYING[lies](a)).tolist() for mode in ("eager", "graph")
        )
        assert eager == graph
