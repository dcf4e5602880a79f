"""complex64 and complex128: arithmetic and functions against NumPy, special values, gradients, both modes."""

import duograd as dg
import numpy as np
import pytest
import torch
from duograd.core import types as T
from duograd.core.complex_math import COMPLEX_MATH
from duograd.core.scalar import COMPLEX_OPS

DTYPES = {"complex64": np.complex64, "complex128": np.complex128}
NUMPY_NAMES = {f"a{n}": f"arc{n}" for n in "sin cos tan sinh cosh tanh".split()}
FUNCTIONS = """exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh
abs angle sign square reciprocal conj real imag negative isnan isinf isfinite""".split()


@pytest.fixture(params=DTYPES)
def np_dtype(request):
    return DTYPES[request.param]


def normal(shape, np_dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np_dtype)


def numpys(name):
    return getattr(np, NUMPY_NAMES.get(name, name))


def test_the_table_of_functions_is_the_list_of_the_scalar_language():
    derived = {"rint", "logical_and", "logical_or", "logical_xor", "logical_not"}
    assert set(COMPLEX_MATH) - {"complex"} >= COMPLEX_OPS - derived


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_numpys(name, np_dtype, close):
    z = normal((7, 45), np_dtype) * 2
    close(getattr(dg, name)(dg.tensor(z)).numpy(), np.asarray(numpys(name)(z)), scale=4)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "equal", "not_equal"])
def test_operators_equal_numpys(name, np_dtype, close):
    z, w = normal((6, 40), np_dtype), normal((40,), np_dtype, 1)
    w[:3] = z[0, :3]
    close(getattr(dg, name)(dg.tensor(z), dg.tensor(w)).numpy(), getattr(np, name)(z, w), scale=8)


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 30.0, -800.0, np.inf, -np.inf, np.nan])
#: where C leaves the sign or the choice open and NumPy differs, or NumPy's answer has no digits
OPEN = {"exp2", "expm1", "reciprocal", "sign", "square"}


def special(np_dtype):
    z = np.empty((SPECIAL.size,) * 2, np_dtype)
    z.real, z.imag = SPECIAL[:, None], SPECIAL[None, :]
    return z.ravel()


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in OPEN])
def test_special_values_are_those_of_c(name, np_dtype):
    z = special(np_dtype)
    with np.errstate(all="ignore"):
        want = np.asarray(numpys(name)(z))
    got = getattr(dg, name)(dg.tensor(z)).numpy()
    real = z.real.dtype.type
    for part in (np.real, np.imag) if want.dtype.kind == "c" else (np.asarray,):
        g, w = part(got), part(want)
        if w.dtype.kind == "b":
            np.testing.assert_array_equal(g, w)
            continue
        with np.errstate(invalid="ignore"):
            near = np.abs(g - w) <= 64 * np.finfo(real).eps * np.maximum(np.abs(w), 1e-30)
        unsigned = name in ("sin", "sinh") and np.isinf(w) & ~(np.isfinite(z.real) & np.isfinite(z.imag))
        same = (np.isnan(g) & np.isnan(w)) | (g == w) | near | (unsigned & np.isinf(g))
        assert same.all(), [(a, b, c) for a, b, c in zip(z[~same], g[~same], w[~same])][:5]
        kept = ~np.isnan(w) & np.logical_not(unsigned) & (w != 0)
        np.testing.assert_array_equal(np.signbit(g)[kept], np.signbit(w)[kept])


@pytest.mark.parametrize(
    ("name", "z", "want"),
    [
        ("expm1", complex(np.inf, 0), complex(np.inf, 0)),
        ("expm1", complex(-np.inf, np.nan), complex(-1, 0)),
        ("sign", complex(0, np.inf), 1j),
        ("sign", 0j, 0j),
        ("log1p", 1e-20 + 0j, 1e-20 + 0j),
        ("abs", complex(np.nan, -np.inf), np.inf),
        ("abs", 3e30 + 4e30j, 5e30),
    ],
)
def test_values_where_numpy_is_not_the_measure(name, z, want):
    for dtype in (dg.complex64, dg.complex128):
        got = getattr(dg, name)(dg.tensor([z], dtype=dtype)).numpy()[0]
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_tanh_at_infinity_keeps_the_sign_of_the_imaginary_part():
    # as the array API standard has it; in C the zero has the sign of sin(2 b)
    got = dg.tanh(dg.tensor([complex(np.inf, 2), complex(-np.inf, -2)], dtype=dg.complex128)).numpy()
    np.testing.assert_array_equal(got.real, [1, -1])
    np.testing.assert_array_equal(got.imag, [0, 0])
    np.testing.assert_array_equal(np.signbit(got.imag), [False, True])


def test_expm1_of_zeros_is_zero():
    got = dg.expm1(dg.tensor([complex(0.0, 0.0), complex(-0.0, 0.0)], dtype=dg.complex128)).numpy()
    np.testing.assert_array_equal(got, [0, 0])
    assert not np.signbit(got.real).any()


def test_no_overflow_on_the_way():
    z = np.array([3e200 + 4e200j, 1e-200 - 1e-200j, 1.5e308 + 1e308j])
    np.testing.assert_allclose(dg.abs(dg.tensor(z)).numpy(), np.abs(z), rtol=1e-15)
    np.testing.assert_allclose(dg.sqrt(dg.tensor(z)).numpy(), np.sqrt(z), rtol=1e-15)
    np.testing.assert_allclose(dg.log(dg.tensor(z)).numpy(), np.log(z), rtol=1e-15)


def test_numbers_and_promotion(np_dtype, close):
    z = normal((5,), np_dtype)
    close((dg.tensor(z) * (1 - 2j) + 3).numpy(), z * np_dtype(1 - 2j) + np_dtype(3))
    close((2.5 / dg.tensor(z)).numpy(), np_dtype(2.5) / z, scale=4)
    for x, y, want in (
        (dg.float32, 1j, dg.complex64), (dg.float64, 1j, dg.complex128), (dg.int64, 1j, dg.complex64),
        (dg.float16, 1j, dg.complex64), (dg.bfloat16, 1j, dg.complex64), (dg.bool, 1j, dg.complex64),
    ):  # fmt: skip
        assert (dg.zeros((2,), dtype=x) + y).dtype is want
        assert dg.result_type(x, y) is want
    assert (dg.zeros((2,), dtype=dg.complex64) + dg.zeros((2,), dtype=dg.float64)).dtype is dg.complex128
    assert dg.tensor([1j, 2]).dtype is dg.complex64
    assert dg.tensor(z).sum().item() == pytest.approx(complex(z.sum()), rel=1e-5)


def test_reductions(np_dtype, close):
    z = normal((9, 70), np_dtype)
    x = dg.tensor(z)
    for axis in (0, 1, None):
        close(x.sum(axis=axis).numpy(), z.sum(axis=axis), scale=8)
        close(x.mean(axis=axis).numpy(), z.mean(axis=axis), scale=8)
    close(x[:, :7].prod(axis=1).numpy(), z[:, :7].prod(axis=1), scale=8)
    close(x[:4, :5].prod().numpy(), z[:4, :5].prod(), scale=8)
    close(x[:0].prod(axis=0).numpy(), z[:0].prod(axis=0))
    z[2] = 0
    z[3, 5] = 1j
    assert dg.any(dg.tensor(z), axis=1).tolist() == np.any(z, axis=1).tolist()
    assert dg.all(dg.tensor(z), axis=1).tolist() == np.all(z, axis=1).tolist()
    big = normal((100_000,), np_dtype)  # cut into blocks
    np.testing.assert_allclose(dg.tensor(big).sum().item(), big.astype(complex).sum(), rtol=1e-4)


#: whole numbers that float32 adds up or multiplies with an error, and that uint8 wraps
WHOLE = np.array([1e7, 6777217.0, 300.0])
KINDS = ("uint8", "int64", "float32", "float64", "complex64", "complex128")


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ["sum", "prod", "trace", "nansum", "nanprod", "mean", "cumsum", "cumprod"])
def test_reductions_to_a_dtype_between_real_and_complex(name, mode):
    for given in ("float32", "complex64", "complex128", "int32"):
        x = WHOLE.astype(given)
        for dtype in KINDS[2:] if name == "mean" else KINDS:
            if not dtype.startswith("c") and not given.startswith("c") and name != "trace":
                continue
            if name.startswith("nan") and not dtype.startswith("c"):
                continue
            a = np.diag(x) if name == "trace" else x
            exact = np.complex128 if dtype == "complex64" else np.float64 if dtype == "float32" else dtype
            want = getattr(np, name)(a, dtype=exact).astype(dtype)
            got = dg.function(getattr(dg, name), mode=mode)(dg.tensor(a), dtype=dtype)
            assert got.dtype.name == dtype
            np.testing.assert_allclose(
                got.numpy(), want, 0 if "int" in dtype else 1e-6, err_msg=f"{given} {dtype}"
            )
            if dtype in ("float64", "complex128") and not given.startswith("c"):
                np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("axis", [None, 1, (0, 1)])
def test_the_gradient_of_a_product_with_a_zero_is_pytorchs(axis, mode, close):
    z = normal((3, 4), np.complex64)
    z[1, 2] = 0
    a, b = dg.tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    dg.function(lambda t: (abs(dg.prod(t, axis=axis)) ** 2 + t.real.sum()).sum(), mode=mode)(a).backward()
    (abs(b.prod() if axis != 1 else b.prod(1)) ** 2 + b.real.sum()).sum().backward()
    close(a.grad.numpy(), b.grad.numpy(), scale=20)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ["sum", "prod", "cumsum", "cumprod"])
def test_gradients_of_reductions_to_a_dtype_between_real_and_complex(name, mode, close):
    z = normal((3, 4), np.complex64)
    for given, dtype in (("complex64", "float32"), ("float32", "complex64"), ("complex64", "complex128")):
        x = z.real.copy() if given == "float32" else z
        a, b = dg.tensor(x, requires_grad=True), dg.tensor(x, requires_grad=True)
        op = getattr(dg, name)

        def loss(y):
            return (abs(y) ** 2).sum()

        dg.function(lambda t, op=op, loss=loss, dtype=dtype: loss(op(t, 1, dtype=dtype)), mode=mode)(
            a
        ).backward()
        loss(op(b.to(dtype), 1)).backward()
        close(a.grad.numpy(), b.grad.numpy(), scale=20)


def test_matrix_products(np_dtype, close):
    a, b = normal((2, 5, 30), np_dtype), normal((30, 4), np_dtype, 1)
    close((dg.tensor(a) @ dg.tensor(b)).numpy(), a @ b, scale=8)
    close((dg.tensor(a) @ dg.tensor(b[:, 0])).numpy(), a @ b[:, 0], scale=8)
    close((dg.tensor(np.ascontiguousarray(b.T)) @ dg.tensor(a[0]).T).numpy(), b.T @ a[0].T, scale=8)


def test_layouts_parts_and_conversions(np_dtype, close):
    z = normal((4, 6), np_dtype)
    x = dg.tensor(z)
    close(x.T.clone().numpy(), np.ascontiguousarray(z.T))
    close((x[::2, 1::2] * 2).numpy(), z[::2, 1::2] * 2)
    close(x.real.numpy(), z.real.copy())
    close(x.imag.numpy(), z.imag.copy())
    close(dg.view_as_real(x).numpy(), np.stack([z.real, z.imag], -1))
    close(dg.view_as_complex(dg.view_as_real(x)).numpy(), z)
    close(dg.complex(x.real, x.imag).numpy(), z)
    close(dg.polar(dg.abs(x), dg.angle(x)).numpy(), z, scale=4)
    close(dg.take(x, dg.tensor([2, 0]), axis=0).numpy(), z[[2, 0]])
    close(dg.concat([x, x], axis=1).numpy(), np.concatenate([z, z], 1))
    close(dg.where(dg.greater(x.real, 0), x, 1j).numpy(), np.where(z.real > 0, z, np_dtype(1j)))
    close(x.to(dg.float64).numpy(), z.real.astype(np.float64))
    assert x.to(dg.bool).numpy().all()
    close(x.real.to(x.dtype).numpy(), z.real.astype(np_dtype))
    x += 1j
    x[0] = 2 + 1j
    want = z + np_dtype(1j)
    want[0] = 2 + 1j
    close(x.numpy(), want)
    assert "j" in repr(x)


def test_modes_agree(np_dtype):
    z, w = dg.tensor(normal((6, 33), np_dtype)), dg.tensor(normal((33,), np_dtype, 1))
    m = dg.tensor(normal((33, 5), np_dtype, 2))

    def f(z, w, m):
        h = dg.exp(z * (0.5 + 0.25j)) / (w + 3.0)
        return (
            h, h.sum(axis=0), h.mean(), dg.abs(h), dg.conj(h) @ m, dg.log(h).imag, h[:, :3].prod(axis=1),
            dg.any(dg.isnan(h)), dg.sqrt(z @ m).sum(axis=1), dg.equal(h, h * 1.0),
        )  # fmt: skip

    for got, want in zip(dg.function(f)(z, w, m), f(z, w, m), strict=True):
        assert got.dtype is want.dtype
        assert got.numpy().tobytes() == want.numpy().tobytes()


def losses():
    yield "product", lambda ns, z, w: ns.abs(z * w + z).sum()
    yield "quotient", lambda ns, z, w: ns.real(z / w).sum()
    yield "number", lambda ns, z, w: ns.imag((1 + 2j) / (z * 3j) - w).sum()
    yield (
        "functions",
        lambda ns, z, w: ns.real(ns.exp(z) * ns.log(w) + ns.sqrt(z) - ns.sin(w) * ns.cos(z)).sum(),
    )
    yield "more", lambda ns, z, w: ns.imag(ns.tanh(z) * ns.sinh(w) + ns.cosh(z) * ns.reciprocal(w)).sum()
    yield "parts", lambda ns, z, w: (ns.real(z) * ns.imag(w) + ns.abs(z) * ns.angle(w)).sum()
    yield "conjugate", lambda ns, z, w: ns.real(ns.conj(z) * w * ns.conj(w) * z).sum()
    yield "power", lambda ns, z, w: ns.real(z**w + z**2 + w**3.0).sum()
    yield "matmul", lambda ns, z, w: ns.square(ns.abs(z @ w.reshape(4, 3))).sum()
    yield "sums", lambda ns, z, w: ns.abs(z.mean() * w.sum(0).sum()) + ns.real((z * ns.real(w)).sum())
    yield "complex", lambda ns, z, w: ns.abs(ns.complex(ns.abs(z), ns.imag(w)) * z).sum()
    yield "where", lambda ns, z, w: ns.abs(ns.where(ns.real(z) > 0, z * w, z)).sum()


@pytest.mark.parametrize(("name", "loss"), list(losses()), ids=lambda x: x if isinstance(x, str) else "")
def test_gradients_are_pytorchs(name, loss):
    z, w = normal((3, 4), np.complex128), normal((3, 4), np.complex128, 1) + 3
    peers = [torch.tensor(a, requires_grad=True) for a in (z, w)]
    loss(torch, *peers).backward()
    for run in (lambda f, *a: f(dg, *a), lambda f, *a: dg.function(f)(dg, *a)):
        leaves = [dg.tensor(a, requires_grad=True) for a in (z, w)]
        run(loss, *leaves).backward()
        for leaf, peer in zip(leaves, peers):
            np.testing.assert_allclose(leaf.grad.numpy(), peer.grad.numpy(), rtol=1e-9, atol=1e-10)


def test_gradients_of_real_leaves_are_real():
    x = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    dg.abs(x * (1 + 2j) + 1j).sum().backward()
    peer = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    torch.abs(peer * (1 + 2j) + 1j).sum().backward()
    assert x.grad.dtype is dg.float32
    np.testing.assert_allclose(x.grad.numpy(), peer.grad.numpy(), rtol=1e-6)


def test_second_derivatives():
    z = normal((4,), np.complex128)

    def slope(ns, leaf):
        return ns.real(ns.exp(leaf * (0.5 + 1j)) * leaf).sum()

    leaf, peer = dg.tensor(z, requires_grad=True), torch.tensor(z, requires_grad=True)
    slope(dg, leaf).backward(create_graph=True)
    first = leaf.grad
    leaf.grad = None
    dg.square(dg.abs(first)).sum().backward()
    (g,) = torch.autograd.grad(slope(torch, peer), peer, create_graph=True)
    torch.square(torch.abs(g)).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), peer.grad.numpy(), rtol=1e-9)


def test_what_has_no_meaning_is_refused():
    z = dg.tensor([1j, 2.0])
    for name in ("floor", "less", "maximum", "remainder", "erf", "argmax", "max", "relu"):
        operands = (z, z) if name in ("less", "maximum", "remainder") else (z,)
        with pytest.raises(dg.errors.DtypeError, match="takes real numbers"):
            getattr(dg, name)(*operands)
    with pytest.raises(dg.errors.DtypeError, match="takes complex numbers"):
        dg.view_as_real(z.real)
    with pytest.raises(dg.errors.ShapeError, match="2 parts"):
        dg.view_as_complex(dg.ones(3))
    leaf = dg.tensor([1j], requires_grad=True)
    with pytest.raises(dg.errors.AutogradError, match="real number"):
        (leaf * 2).sum().backward()


def test_complex_numbers_are_saved(tmp_path):
    x = dg.tensor(normal((3,), np.complex64))
    dg.save({"x": x}, tmp_path / "x.safetensors")
    assert dg.load(tmp_path / "x.safetensors")["x"].numpy().tobytes() == x.numpy().tobytes()
    assert T.DTYPES["complex64"].real is dg.float32


def test_onnx_has_complex_arithmetic_on_pairs():
    x = dg.tensor([1 + 2j, -0.5j])
    model = dg.onnx.export(lambda x: x * x + 2, (x,))
    assert {n.op_type for n in model.graph.node} >= {"Mul", "Sub", "Add"}
    got = dg.onnx.load(model)(dg.tensor([[1.0, 2.0], [0.0, -0.5]])).numpy()
    np.testing.assert_allclose(got, [[-1.0, 4.0], [1.75, 0.0]], rtol=1e-6)


def test_linear_algebra_and_indexing_take_complex(np_dtype):
    a = normal((2, 4, 4), np_dtype) + 3 * np.eye(4, dtype=np_dtype)
    x, tolerance = dg.tensor(a), 2e-4 if np_dtype is np.complex64 else 1e-10
    np.testing.assert_allclose(dg.inv(x).numpy(), np.linalg.inv(a), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dg.det(x).numpy(), np.linalg.det(a), rtol=tolerance)
    np.testing.assert_allclose(dg.svdvals(x).numpy(), np.linalg.svd(a, compute_uv=False), rtol=tolerance)
    index = np.array([[[0], [3], [1], [1]]] * 2)
    got = dg.take_along_axis(x, dg.tensor(index), axis=2)
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(a, index, 2))


def _assigned(x, index, value):
    y = x.clone()
    y[index] = value
    return y


#: of the module (ours or PyTorch's), two matrices [3, 4], rows [2, 4], a mask [3, 4], indices [2]
MOVES = {
    "where": lambda m, x, y, v, mask, i: m.where(mask, x, y),
    "where with a number": lambda m, x, y, v, mask, i: m.where(mask, x, 2.0 + 1j),
    "tril": lambda m, x, y, v, mask, i: m.tril(x),
    "triu": lambda m, x, y, v, mask, i: m.triu(x, 1),
    "x[mask] = number": lambda m, x, y, v, mask, i: _assigned(x, mask, 1.5 + 2j),
    "x[mask] = tensor": lambda m, x, y, v, mask, i: _assigned(x, mask, y[mask]),
    "x[i] = rows": lambda m, x, y, v, mask, i: _assigned(x, i, v),
    "x[i] = number": lambda m, x, y, v, mask, i: _assigned(x, i, 2.0j),
    "x[i, i] = row": lambda m, x, y, v, mask, i: _assigned(x, (i, i), v[:, 0]),
    "x[1] = number": lambda m, x, y, v, mask, i: _assigned(x, 1, 2j),
    "x[1] = row": lambda m, x, y, v, mask, i: _assigned(x, 1, v[0]),
    "masked_fill": lambda m, x, y, v, mask, i: x.masked_fill(mask, 2j),
    "masked_scatter": lambda m, x, y, v, mask, i: x.masked_scatter(mask, y),
    "pad": lambda m, x, y, v, mask, i: m.nn.functional.pad(x, (1, 2, 0, 1), value=1.0),
    "pad by reflection": lambda m, x, y, v, mask, i: m.nn.functional.pad(x, (1, 2), mode="reflect"),
    "concat": lambda m, x, y, v, mask, i: m.concat([x, y, v], 0),
    "stack": lambda m, x, y, v, mask, i: m.stack([x, y]),
    "flip": lambda m, x, y, v, mask, i: m.flip(x, (0, 1)),
    "roll": lambda m, x, y, v, mask, i: m.roll(x, 1, 0),
    "x[i, i]": lambda m, x, y, v, mask, i: x[i, i],
    "index_add": lambda m, x, y, v, mask, i: m.index_add(x, 0, i, v),
}


@pytest.mark.parametrize("name", list(MOVES))
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_moves_and_assignments_are_pytorchs(name, graph):
    rng = np.random.default_rng(5)
    draw = lambda *shape: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    arrays, mask, index = [draw(3, 4), draw(3, 4), draw(2, 4)], rng.random((3, 4)) > 0.5, np.array([2, 0])

    def values_and_gradients(module, function):
        leaves = [module.tensor(a) for a in arrays]
        for leaf in leaves:
            leaf.requires_grad_(True)
        tensors = [module.tensor(a) for a in (mask, index)]
        out = function(module, *leaves, *tensors)
        weights = (np.arange(out.numel()).reshape(tuple(out.shape)) * (1 + 0.5j)).astype(np.complex64)
        module.real(out * module.tensor(weights)).sum().backward()
        grads = [np.zeros_like(a) if t.grad is None else t.grad.numpy() for a, t in zip(arrays, leaves)]
        return [out.detach().numpy(), *grads]

    move = MOVES[name]
    ours = (lambda m, *args: dg.function(lambda *a: move(m, *a))(*args)) if graph else move
    for got, want in zip(values_and_gradients(dg, ours), values_and_gradients(torch, move), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, 1e-5, 1e-5)


def test_the_modulus_has_a_second_derivative():
    z = np.array([1 + 2j, -0.5j, 3.0])
    c = np.array([0.3 - 1j, 2.0, 1j])
    x = dg.tensor(z, requires_grad=True)
    dg.abs(x).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    dg.real(first * dg.tensor(c.conj())).sum().backward()
    way = z / np.abs(z)
    np.testing.assert_allclose(first.detach().numpy(), way, rtol=1e-12)
    across = (c - way * (c * way.conj()).real) / np.abs(z)
    np.testing.assert_allclose(x.grad.numpy(), across, rtol=1e-12, atol=1e-15)
    x.grad = None
    dg.real(dg.sign(x) * dg.tensor(c.conj())).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), across, rtol=1e-12, atol=1e-15)
