"""Functions that are made of ops, against NumPy and PyTorch: values, gradients, both modes, ONNX, errors."""

import duograd as dg
import numpy as np
import pytest

MODES = ("eager", "graph")
X = np.linspace(-2, 3, 24).reshape(2, 3, 4)


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: its functions are not compared with ours"
    )


#: ours, PyTorch's, the arguments
WRITTEN = {
    "a slice": (lambda x, y: dg.slice_scatter(x, y, 1, 1, 3), lambda t, *xs: t.slice_scatter(*xs, 1, 1, 3), (2, 2, 4)),
    "a slice with a step": (
        lambda x, y: x.slice_scatter(y, axis=-1, step=2), lambda t, x, y: t.slice_scatter(x, y, -1, step=2), (2, 3, 2),
    ),
    "a slice from the end": (
        lambda x, y: dg.slice_scatter(x, y, start=-1), lambda t, x, y: t.slice_scatter(x, y, start=-1), (1, 3, 4),
    ),
    "an empty slice": (
        lambda x, y: dg.slice_scatter(x, y, 2, 3, 1), lambda t, x, y: t.slice_scatter(x, y, 2, 3, 1), (2, 3, 0),
    ),
    "an element": (lambda x, y: dg.select_scatter(x, y, 1, 2), lambda t, x, y: t.select_scatter(x, y, 1, 2), (2, 4)),
    "an element from the end": (
        lambda x, y: x.select_scatter(y, -1, -2), lambda t, x, y: t.select_scatter(x, y, -1, -2), (2, 3),
    ),
    "a diagonal": (
        lambda x, y: dg.diagonal_scatter(x, y, 1, 1, 2), lambda t, x, y: t.diagonal_scatter(x, y, 1, 1, 2), (2, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_part_is_replaced_as_in_torch(torch, name, mode):
    ours, theirs, shape = WRITTEN[name]
    y = np.random.randn(*shape)
    a, b = (dg.tensor(v, requires_grad=True) for v in (X, y))
    c, d = (torch.tensor(v, requires_grad=True) for v in (X, y))
    weight = np.random.randn(*X.shape)

    @dg.function(mode=mode)
    def run(x, y):
        made = ours(x, y)
        (made * made * dg.tensor(weight)).sum().backward()
        return made.detach()

    made, want = run(a, b), theirs(torch, c, d)
    (want * want * torch.tensor(weight)).sum().backward()
    np.testing.assert_array_equal(made.numpy(), want.detach().numpy())
    for x, w in ((a, c), (b, d)):
        np.testing.assert_allclose(x.grad.numpy(), w.grad.numpy(), 1e-12)
    np.testing.assert_array_equal(a.detach().numpy(), X)  # x stays


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda x: dg.slice_scatter(x, dg.ones((2,))),
            r"\[slice_scatter\] src: float32\[2\] is not like the part",
        ),
        (lambda x: dg.slice_scatter(x, x, step=-1), "step=-1 is below 1"),
        (lambda x: dg.select_scatter(x, x[0], 0, 5), "index 5"),
        (lambda x: dg.select_scatter(x.int(), x[0], 0, 1), r"src: float32\[3\] does not go into x: int32"),
        (lambda x: dg.slice_scatter(x, x, dim=0), "write axis= for dim="),
        (lambda x: dg.unravel_index(dg.tensor([1, 6]), (2, 3)), r"position 6 is outside shape=\[2, 3\]"),
        (lambda x: dg.unravel_index(dg.tensor([-1]), (2, 3)), "position -1 is outside"),
        (lambda x: dg.unravel_index(x, (2, 3)), "are not integer"),
        (lambda x: dg.gradient(x, 1.0, 2.0, 3.0), r"\[gradient\] 3 spacings for 2 axes"),
        (lambda x: dg.gradient(x, edge_order=3), "edge_order=3"),
        (lambda x: dg.gradient(x[:1], axis=0), "has 1 samples"),
        (lambda x: dg.gradient(x, dg.ones(2), axis=1), "are not for 3 samples"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_what_does_not_fit_is_refused(call, match, mode):
    with pytest.raises(dg.errors.DuogradError, match=match) as caught:
        dg.function(call, mode=mode)(dg.ones((2, 3)))
    assert "test_made_functions_peers.py" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_positions_are_unravelled_as_by_numpy(mode):
    for shape in ((2, 3, 4), (24,), (1, 24), (4, 1, 6)):
        at = np.random.permutation(24).reshape(4, 6)
        got = dg.function(lambda i, shape=shape: dg.unravel_index(i, shape), mode=mode)(dg.tensor(at))
        for a, b in zip(got, np.unravel_index(at, shape), strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
            assert a.dtype is dg.int64
    x = dg.tensor(X)
    assert [int(i) for i in dg.unravel_index(x.argmax(), x.shape)] == [1, 2, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_come_apart_and_together(torch, dtype, mode):
    info = dg.finfo(dtype)
    tiny, top = float(info.smallest_normal), float(info.max)
    row = [0.0, -0.0, 1.0, -1.0, 0.5, 0.75, 3.0, -6.5, 1024.0, tiny, -tiny, tiny / 2, tiny * 1.5, top, -top]
    row += [2.0**k for k in range(-14, 15)] + [1 / 3, np.inf, -np.inf, np.nan]
    x = torch.tensor(row, dtype=torch.float64).to(getattr(torch, dtype))
    with np.errstate(all="ignore"):
        given = dg.tensor(np.asarray(x.double()), dtype=dtype)
    mantissa, exponent = dg.function(dg.frexp, mode=mode)(given)
    want, power = np.frexp(np.asarray(x.double()))
    assert exponent.dtype is dg.int32
    np.testing.assert_array_equal(exponent.numpy(), power)
    assert mantissa.dtype is given.dtype
    np.testing.assert_array_equal(mantissa.double().numpy(), want)
    back = dg.function(dg.ldexp, mode=mode)(mantissa, exponent)
    np.testing.assert_array_equal(back.double().numpy(), np.asarray(x.double()))
    assert back.dtype is given.dtype


@pytest.mark.parametrize("mode", MODES)
def test_ldexp_and_the_slopes_of_both(torch, mode):
    x, n = np.array([1.5, -2.0, 3.0, 0.25], "float32"), np.array([3, -2, 0, 10])
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)

    @dg.function(mode=mode)
    def run(x, n):
        made = dg.ldexp(x, n)
        mantissa, _ = dg.frexp(x)
        (made + mantissa * 3).sum().backward()
        return made.detach(), dg.ldexp(x, 2).detach(), x.sgn().detach(), dg.ldexp(n, n).detach()

    made, four, signs, whole = run(a, dg.tensor(n))
    # PyTorch has a slope of 0 for integer exponents below 0.
    (torch.ldexp(b, torch.tensor(n).float()) + torch.frexp(b).mantissa * 3).sum().backward()
    np.testing.assert_array_equal(made.numpy(), np.ldexp(x, n))
    np.testing.assert_array_equal(four.numpy(), x * 4)
    np.testing.assert_array_equal(signs.numpy(), np.sign(x))
    np.testing.assert_array_equal(whole.numpy(), n * 2.0**n)
    np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
    z = np.array([3 + 4j, 0, -2j])
    np.testing.assert_allclose(dg.sgn(dg.tensor(z)).numpy(), torch.sgn(torch.tensor(z)).numpy())


ROWS = np.array([0.0, 0.5, 2.0]), np.array([1.0, 1.5, 3.5, 4.0])
#: positional arguments, keywords
SLOPES = [
    ((), {}), ((0.5,), {}), ((2.0, 0.5, 1.5), {}), ((), {"axis": 2}), ((), {"axis": (2, 1)}), ((), {"axis": -1}),
    ((3.0,), {"axis": (2, 0)}), (ROWS, {"axis": (1, 2)}), ((ROWS[1], 2.0), {"axis": (2, 0)}),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("case", range(len(SLOPES)))
def test_slopes_are_those_of_numpy(case, order, mode):
    spacing, named = SLOPES[case]
    if order == 2:
        named = {**named, "axis": named.get("axis", (1, 2)[: len(spacing) or 2])}
        if 0 in np.atleast_1d(named["axis"]):
            named["axis"], spacing = 2, spacing[:1]
        spacing = spacing[: np.atleast_1d(named["axis"]).size]
    want = np.gradient(X**3, *spacing, edge_order=order, **named)
    given = [dg.tensor(h) if isinstance(h, np.ndarray) else h for h in spacing]
    got = dg.function(lambda x: dg.gradient(x, *given, edge_order=order, **named), mode=mode)(dg.tensor(X**3))
    row = (got, want) if isinstance(got, tuple) else ((got,), (want,))
    assert isinstance(got, tuple) is isinstance(want, (tuple, list))
    for a, b in zip(*row, strict=True):
        np.testing.assert_allclose(a.numpy(), b, 1e-10, 1e-12)


def test_slopes_are_those_of_torch_with_gradients(torch):
    for order in (1, 2):
        a, b = dg.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
        got = dg.gradient(a, 0.5, dg.tensor(ROWS[1]), axis=(1, 2), edge_order=order)
        want = torch.gradient(
            b, spacing=(torch.arange(3) * 0.5, torch.tensor(ROWS[1])), dim=(1, 2), edge_order=order
        )
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), 1e-10, 1e-12)
        (got[0] * got[1]).sum().backward()
        (want[0] * want[1]).sum().backward()
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-10, 1e-12)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: dg.slice_scatter(x, x[:, 1:] * 2, 1, 0, 2),
        lambda x: dg.select_scatter(x, x[0] * 2, 0, 1),
        lambda x: dg.unravel_index((x * 0).int() + 5, (2, 3)),
        lambda x: dg.ldexp(x, dg.tensor([3, -2, 0, 5])),
        lambda x: tuple(dg.frexp(x)),
        lambda x: dg.gradient(x, 0.5, axis=(0, 2)),
        lambda x: dg.gradient(x, dg.tensor(ROWS[1].astype("float32")), axis=2, edge_order=2),
        lambda x: x.sgn(),
    ],
)
def test_they_go_out_to_onnx(fn):
    pytest.importorskip("onnx", reason="onnx is not installed: nothing is exported")
    dg.onnx.export(fn, (dg.tensor(X.astype("float32")),))  # compares with onnx.reference and onnxruntime


def test_each_example_of_a_batch():
    x, y = dg.tensor(X), dg.tensor(np.random.randn(2, 4))
    for fn in (
        lambda x, y: dg.select_scatter(x, y, 0, 1), lambda x, y: dg.ldexp(x, dg.tensor(2)),
        lambda x, y: dg.frexp(x).mantissa, lambda x, y: dg.gradient(x, axis=1),
    ):  # fmt: skip
        want = dg.stack([fn(a, b) for a, b in zip(x, y)])
        np.testing.assert_array_equal(dg.vmap(fn)(x, y).numpy(), want.numpy())
