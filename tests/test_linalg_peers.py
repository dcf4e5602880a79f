"""Linear algebra against NumPy, SciPy and PyTorch: values, gradients to order two, failures, both modes, vmap."""

import duograd as dg
import numpy as np
import pytest
from duograd import linalg

RNG = np.random.default_rng(3)
#: shapes of square and of other matrices
SQUARE = [(1, 1), (4, 4), (2, 3, 3), (2, 1, 5, 5)]
OTHER = [(4, 4), (5, 3), (3, 5), (2, 4, 3), (2, 3, 4)]


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: linear algebra is not compared with it"
    )


@pytest.fixture
def scipy():
    return pytest.importorskip(
        "scipy.linalg", reason="SciPy is not installed: lu and expm are not compared with it"
    )


def regular(shape, dtype="float64"):
    return (RNG.uniform(-1, 1, shape) + 2 * np.eye(shape[-1])).astype(dtype)


def positive(shape, dtype="float64"):
    x = RNG.uniform(-1, 1, shape)
    return (x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])).astype(dtype)


def symmetric(x):
    return (x + x.mT) * 0.5


def turn(x):
    return np.swapaxes(x, -1, -2)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SQUARE, ids=str)
def test_square_functions_equal_numpy(shape, dtype, close):
    x, p = regular(shape, dtype), positive(shape, dtype)
    b = RNG.uniform(-1, 1, (*shape[:-1], 2)).astype(dtype)
    a, s = dg.tensor(x), dg.tensor(p)
    close(linalg.inv(a).numpy(), np.linalg.inv(x), scale=20)
    close(linalg.det(a).numpy(), np.linalg.det(x), scale=20)
    for got, want in zip(linalg.slogdet(a), np.linalg.slogdet(x), strict=True):
        close(got.numpy(), want, scale=20)
    close(linalg.solve(a, dg.tensor(b)).numpy(), np.linalg.solve(x, b), scale=20)
    close(linalg.cholesky(s).numpy(), np.linalg.cholesky(p), scale=20)
    close(linalg.cholesky(s, upper=True).numpy(), np.linalg.cholesky(p, upper=True), scale=20)
    w, v = linalg.eigh(s)
    close(w.numpy(), np.linalg.eigvalsh(p), scale=20)
    close(linalg.eigvalsh(s, UPLO="U").numpy(), np.linalg.eigvalsh(p), scale=20)
    close((v.numpy() * w.numpy()[..., None, :] @ turn(v.numpy())), p, scale=20)
    close(linalg.matrix_power(a, n=5).numpy(), np.linalg.matrix_power(x, 5), scale=20)
    for p_ in (None, 1, -1, 2, -2, np.inf, -np.inf, "fro"):
        close(linalg.cond(a, p=p_).numpy(), np.linalg.cond(x, p_).astype(dtype), scale=50)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", OTHER, ids=str)
def test_factors_equal_numpy(shape, dtype, close):
    x = RNG.uniform(-1, 1, shape).astype(dtype)
    a = dg.tensor(x)
    for mode in ("reduced", "complete"):
        for got, want in zip(linalg.qr(a, mode=mode), np.linalg.qr(x, mode), strict=True):
            close(got.numpy(), want, scale=20)
    close(linalg.svdvals(a).numpy(), np.linalg.svd(x, compute_uv=False), scale=20)
    for full in (False, True):
        u, s, vh = (y.numpy() for y in linalg.svd(a, full_matrices=full))
        k = s.shape[-1]
        close(u[..., :k] * s[..., None, :] @ vh[..., :k, :], x, scale=20)
        assert np.abs(turn(u) @ u - np.eye(u.shape[-1])).max() < 1e-5
    close(linalg.pinv(a).numpy(), np.linalg.pinv(x), scale=50)
    assert (linalg.matrix_rank(a).numpy() == min(shape[-2:])).all()
    for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
        close(linalg.matrix_norm(a, ord=ord).numpy(), np.linalg.norm(x, ord, axis=(-2, -1)), scale=20)
    packed, pivots = (y.numpy() for y in linalg.lu_factor(a))
    lower, upper, middle = (y.numpy() for y in linalg.lu(a))
    close(lower @ upper @ middle, x, scale=20)
    assert packed.shape == x.shape
    assert pivots.dtype == np.int32


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
def test_lu_equals_scipy(shape, scipy, close):
    x = RNG.uniform(-1, 1, shape)
    for got, want in zip(linalg.lu(dg.tensor(x)), scipy.lu(x), strict=True):
        close(got.numpy(), want)
    packed, pivots = linalg.lu_factor(dg.tensor(x))
    want_packed, want_pivots = scipy.lu_factor(x)
    close(packed.numpy(), want_packed)
    np.testing.assert_array_equal(pivots.numpy() - 1, want_pivots)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrix_exp_equals_scipy(scale, dtype, scipy, close):
    x = (RNG.uniform(-1, 1, (4, 4)) * scale).astype(dtype)
    want = scipy.expm(x.astype(np.float64)).astype(dtype)
    got = linalg.matrix_exp(dg.tensor(x)).numpy()
    np.testing.assert_allclose(
        got, want, rtol=3e-3 if dtype == "float32" else 1e-11, atol=np.abs(want).max() * 1e-6
    )


def test_lu_solve_and_triangles_solve_what_they_should(close):
    x, b, row = regular((2, 4, 4)), RNG.uniform(-1, 1, (4, 3)), RNG.uniform(-1, 1, (3, 4))
    packed, pivots = linalg.lu_factor(dg.tensor(x))
    close(linalg.lu_solve(packed, pivots, dg.tensor(b)).numpy(), np.linalg.solve(x, b))
    close(linalg.lu_solve(packed, pivots, dg.tensor(b), adjoint=True).numpy(), np.linalg.solve(turn(x), b))
    got = linalg.lu_solve(packed, pivots, dg.tensor(row), left=False).numpy()
    close(got @ x, np.broadcast_to(row, got.shape), scale=20)
    for upper in (False, True):
        t = np.triu(x) if upper else np.tril(x)
        for adjoint in (False, True):
            m = turn(t) if adjoint else t
            got = linalg.solve_triangular(dg.tensor(x), dg.tensor(b), upper=upper, adjoint=adjoint).numpy()
            close(m @ got, np.broadcast_to(b, got.shape), scale=20)
            got = linalg.solve_triangular(
                dg.tensor(x), dg.tensor(row), upper=upper, left=False, adjoint=adjoint
            )
            close(got.numpy() @ m, np.broadcast_to(row, got.shape), scale=20)
    vector = RNG.uniform(-1, 1, 4)
    close(linalg.solve(dg.tensor(x), dg.tensor(vector)).numpy(), np.linalg.solve(x, vector))


@pytest.mark.parametrize("n", [40, 130, 260])
def test_large_matrices_and_batches(n, close):
    """Across the size from which the library uses threads, and batches shared among ours."""
    x = RNG.uniform(-1, 1, (3, n, n)) + np.sqrt(n) * 2 * np.eye(n)
    close(linalg.inv(dg.tensor(x)).numpy(), np.linalg.inv(x), scale=50)
    close(linalg.svdvals(dg.tensor(x)).numpy(), np.linalg.svd(x, compute_uv=False), scale=50)
    close(linalg.eigvalsh(dg.tensor(x)).numpy(), np.linalg.eigvalsh(x), scale=50)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)], ids=str)
def test_lstsq_equals_numpy(shape, close):
    a, b = RNG.uniform(-1, 1, shape), RNG.uniform(-1, 1, (shape[0], 2))
    for right in (b, b[:, 0]):
        x, residuals, rank, s = linalg.lstsq(dg.tensor(a), dg.tensor(right))
        want = np.linalg.lstsq(a, right)
        close(x.numpy(), want[0], scale=50)
        close(s.numpy(), want[3], scale=50)
        close(residuals.numpy().ravel(), want[1], scale=50)
        assert rank.item() == want[2]
    low = np.outer(a[:, 0], a[0])
    close(linalg.lstsq(dg.tensor(low), dg.tensor(b))[0].numpy(), np.linalg.lstsq(low, b)[0], scale=1e3)
    assert linalg.matrix_rank(dg.tensor(low)).item() == 1


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 1, (0, 2), -1])
@pytest.mark.parametrize("ord", [0, 0.5, 1, 2, 3, -1, np.inf, -np.inf])
def test_vector_norm_equals_torch(ord, axis, keepdims, torch, close):
    x = RNG.uniform(-2, 2, (2, 3, 4))
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = linalg.vector_norm(a, ord=ord, axis=axis, keepdims=keepdims)
    want = torch.linalg.vector_norm(b, ord, axis, keepdims)
    close(got.detach().numpy(), want.detach().numpy(), scale=20)
    got.sum().backward()
    want.sum().backward()
    slope = np.zeros(x.shape) if b.grad is None else b.grad.numpy()  # torch leaves the slope of a count out
    close(a.grad.numpy(), slope, scale=20)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2), (3, 0, 2), (3, 2, 0), (0, 2, 2)], ids=str)
def test_norms_of_nothing_equal_numpy(shape, mode):
    x = np.zeros(shape)
    cases = [
        ("vector_norm", axis, ord)
        for axis in (None, *range(len(shape)))
        for ord in (2, 1, 0, 3, -1, np.inf, -np.inf)
    ]
    if len(shape) > 1:
        cases += [("matrix_norm", None, ord) for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)]
    for name, axis, ord in cases:
        where = {} if name == "matrix_norm" else {"axis": axis}
        f = dg.function(getattr(linalg, name), mode=mode)
        a = dg.tensor(x, requires_grad=True)
        try:
            with np.errstate(divide="ignore"):
                want = getattr(np.linalg, name)(x, ord=ord, **where)
        except ValueError:
            with pytest.raises(
                dg.errors.ArgumentError, match=rf"\[{name}\] ord={ord} takes the smallest of no values"
            ):
                f(a, ord=ord, **where)
            continue
        got = f(a, ord=ord, **where)
        np.testing.assert_array_equal(got.detach().numpy(), want, err_msg=f"{name} {axis} {ord}")
        got.sum().backward()
        assert a.grad.shape == shape


def test_norms_of_zero_have_a_gradient_of_zero():
    for ord in (1, 2, 3, 0.5):
        x = dg.zeros((3,)).requires_grad_()
        linalg.vector_norm(x, ord=ord).backward()
        np.testing.assert_array_equal(x.grad.numpy(), 0)


# ---------------------------------------------------------------- gradients

#: function of a tensor, its name in torch, the matrix it is tried on; signs and phases are made away with
GRADIENTS = {
    "inv": (lambda l, x: l.inv(x), regular, SQUARE),
    "det": (lambda l, x: l.det(x), regular, SQUARE[1:]),
    "slogdet": (lambda l, x: l.slogdet(x)[1], regular, SQUARE),
    "solve": (lambda l, x: l.solve(x, x.mT * 0.5), regular, SQUARE),
    "solve_left": (lambda l, x: l.solve(x, x.mT[..., :2, :] * 0.5, left=False), regular, SQUARE[1:]),
    "cholesky": (lambda l, x: l.cholesky(symmetric(x)), positive, SQUARE),
    "cholesky_upper": (lambda l, x: l.cholesky(symmetric(x), upper=True), positive, SQUARE),
    "triangle": (lambda l, x: l.solve_triangular(x, x.mT, upper=True), regular, SQUARE),
    "triangle_right": (
        lambda l, x: l.solve_triangular(x, x.mT, upper=False, left=False, unitriangular=True), regular, SQUARE,
    ),
    "lu_factor": (lambda l, x: l.lu_factor(x)[0], lambda s: RNG.uniform(-1, 1, s), OTHER),
    "qr_q": (lambda l, x: l.qr(x)[0], lambda s: RNG.uniform(-1, 1, s), OTHER),
    "qr_r": (lambda l, x: l.qr(x)[1], lambda s: RNG.uniform(-1, 1, s), OTHER),
    "svd_u": (lambda l, x: abs(l.svd(x, full_matrices=False)[0]), lambda s: RNG.uniform(-1, 1, s), OTHER),
    "svd_s": (lambda l, x: l.svd(x, full_matrices=False)[1], lambda s: RNG.uniform(-1, 1, s), OTHER),
    "svd_vh": (lambda l, x: abs(l.svd(x, full_matrices=False)[2]), lambda s: RNG.uniform(-1, 1, s), OTHER),
    "svdvals": (lambda l, x: l.svdvals(x), lambda s: RNG.uniform(-1, 1, s), OTHER),
    "eigh_w": (lambda l, x: l.eigh(symmetric(x))[0], positive, SQUARE),
    "eigh_v": (lambda l, x: abs(l.eigh(symmetric(x))[1]), positive, SQUARE),
    "eigvalsh": (lambda l, x: l.eigvalsh(symmetric(x)), positive, SQUARE),
    # Sums that do not depend on the order, which libraries may choose.
    "eig_w": (lambda l, x: (abs(l.eig(x)[0]) ** 3).sum(-1), lambda s: RNG.uniform(-1, 1, s), SQUARE),
    "eig_v": (lambda l, x: (abs(l.eig(x)[1]) ** 4).sum(-1), lambda s: RNG.uniform(-1, 1, s), SQUARE),
    "eigvals": (lambda l, x: (abs(l.eigvals(x)) ** 3).sum(-1), lambda s: RNG.uniform(-1, 1, s), SQUARE),
    "pinv": (lambda l, x: l.pinv(x), lambda s: RNG.uniform(-1, 1, s), OTHER),
    "lstsq": (lambda l, x: l.lstsq(x, x[..., :1] * 2)[0], lambda s: RNG.uniform(-1, 1, s), OTHER[1:2]),
    "matrix_exp": (lambda l, x: l.matrix_exp(x), regular, SQUARE),
    "nuc": (lambda l, x: l.matrix_norm(x, ord="nuc"), lambda s: RNG.uniform(-1, 1, s), OTHER),
}  # fmt: skip
CASES = [(name, shape) for name, (_, _, shapes) in GRADIENTS.items() for shape in shapes]


def orders(f, x, one, two, grad):
    """Gradients of order one and two: of sum(f * one), then of sum(first * two)."""
    first = grad((f(x) * one).sum(), x)
    return first, grad((first * two).sum(), x)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_gradients_of_two_orders_equal_torch(name, shape, torch):
    f, make, _ = GRADIENTS[name]
    x = make(shape)
    b = torch.tensor(x, requires_grad=True)
    one = RNG.uniform(-1, 1, tuple(f(torch.linalg, b).shape))
    two = RNG.uniform(-1, 1, shape)

    def theirs(y, x):
        return torch.autograd.grad(y, x, create_graph=True)[0]

    def ours(y, x):
        x.grad = None
        y.backward(create_graph=True)
        return x.grad

    want = orders(lambda x: f(torch.linalg, x), b, torch.tensor(one), torch.tensor(two), theirs)
    a = dg.tensor(x, requires_grad=True)
    got = orders(lambda x: f(linalg, x), a, dg.tensor(one), dg.tensor(two), ours)
    for y, z in zip(got, want):
        z = z.detach().numpy()
        np.testing.assert_allclose(y.detach().numpy(), z, rtol=1e-7, atol=1e-9 * max(1.0, np.abs(z).max()))


def test_the_gradient_of_a_determinant_is_right_at_rank_one_less():
    x = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    a = dg.tensor(x, requires_grad=True)
    linalg.det(a).backward()
    cofactors = np.array(
        [
            [(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(x, i, 0), j, 1)) for j in range(3)]
            for i in range(3)
        ]
    )
    np.testing.assert_allclose(a.grad.numpy(), cofactors, atol=1e-9)


def test_equal_singular_values_do_not_spoil_what_does_not_depend_on_vectors():
    a = dg.tensor(np.eye(3), requires_grad=True)
    linalg.svd(a)[1].sum().backward()
    assert np.isfinite(a.grad.numpy()).all()
    a.grad = None
    linalg.eigh(a)[0].sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), np.eye(3))


# ---------------------------------------------------------------- failures, modes, transforms


SINGULAR = np.stack([np.eye(2), np.zeros((2, 2))])


@pytest.mark.parametrize("graph", [False, True])
def test_a_singular_matrix_is_named(graph):
    for name in ("inv", "solve"):
        f = getattr(linalg, name)
        run = lambda x, f=f, name=name: f(x, dg.ones((2,), dtype="float64")) if name == "solve" else f(x)
        run = dg.function(run) if graph else run
        with pytest.raises(
            dg.errors.LinAlgError, match=r"matrix \[1\] of .*: float64\[2, 2, 2\] is singular"
        ) as caught:
            run(dg.tensor(SINGULAR))
        assert isinstance(caught.value, np.linalg.LinAlgError)
        assert "test_linalg_peers.py" in str(caught.value)


def test_a_graph_that_fails_has_no_effects_and_works_again():
    total = dg.zeros((), dtype="float64")

    @dg.function
    def step(x):
        nonlocal total
        y = linalg.cholesky(x)
        total.add_(y.sum())
        return y

    step(dg.tensor(np.eye(2)))
    with pytest.raises(dg.errors.LinAlgError, match="leading minor 2"):
        step(dg.tensor(np.diag([1.0, -1.0])))
    np.testing.assert_array_equal(step(dg.tensor(4 * np.eye(2))).numpy(), 2 * np.eye(2))


def test_ex_forms_tell_and_do_not_raise():
    out, info = linalg.inv_ex(dg.tensor(SINGULAR))
    np.testing.assert_array_equal(info.numpy(), [0, 1])
    assert not np.isfinite(out.numpy()[1]).all()
    factor, info = linalg.cholesky_ex(dg.tensor(np.stack([np.eye(2), -np.eye(2)])))
    np.testing.assert_array_equal(info.numpy(), [0, 1])
    assert np.isnan(factor.numpy()[1]).all()
    np.testing.assert_array_equal(factor.numpy()[0], np.eye(2))


def test_integers_are_refused_with_the_fix():
    with pytest.raises(dg.errors.DtypeError, match="LAPACK takes"):
        linalg.inv(dg.tensor(np.eye(2, dtype=np.int64)))


def test_maps_over_examples_run_as_batches(close):
    x, b = regular((3, 4, 4)), RNG.uniform(-1, 1, (3, 4))
    close(dg.vmap(linalg.inv)(dg.tensor(x)).numpy(), np.linalg.inv(x))
    got = dg.vmap(linalg.solve)(dg.tensor(x), dg.tensor(b)).numpy()
    close(got, np.linalg.solve(x, b[..., None])[..., 0])
    close(dg.vmap(linalg.svdvals)(dg.tensor(x)).numpy(), np.linalg.svd(x, compute_uv=False), scale=20)
    close(
        dg.vmap(linalg.solve, in_axes=(None, 0))(dg.tensor(x[0]), dg.tensor(b)).numpy(),
        np.linalg.solve(x[0], b.T).T,
    )


def test_every_name_of_the_array_api_extension_is_there():
    for name in linalg.__all__:
        assert hasattr(linalg, name), name
    assert dg.linalg is linalg


# ---------------------------------------------------------------- complex matrices


def complex_(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_functions_equal_numpy(dtype, close):
    x = (complex_(2, 4, 4) + 3 * np.eye(4)).astype(dtype)
    p = x @ turn(x).conj()
    b, tall = complex_(2, 4, 3).astype(dtype), complex_(5, 3).astype(dtype)
    a, s, t = dg.tensor(x), dg.tensor(p), dg.tensor(tall)
    close(linalg.inv(a).numpy(), np.linalg.inv(x), scale=20)
    close(linalg.solve(a, dg.tensor(b)).numpy(), np.linalg.solve(x, b), scale=20)
    close(linalg.det(a).numpy(), np.linalg.det(x), scale=50)
    close(linalg.slogdet(a)[0].numpy(), np.linalg.slogdet(x)[0], scale=50)
    close(linalg.cholesky(s).numpy(), np.linalg.cholesky(p), scale=20)
    close(linalg.cholesky(s, upper=True).numpy(), np.linalg.cholesky(p, upper=True), scale=20)
    for got, want in zip(linalg.qr(t), np.linalg.qr(tall), strict=True):
        close(got.numpy(), want, scale=20)
    close(linalg.svdvals(t).numpy(), np.linalg.svd(tall, compute_uv=False), scale=20)
    u, sv, vh = (y.numpy() for y in linalg.svd(t, full_matrices=False))
    close((u * sv) @ vh, tall, scale=20)
    w, v = (y.numpy() for y in linalg.eigh(s))
    close(w, np.linalg.eigvalsh(p), scale=20)
    close((v * w[..., None, :]) @ turn(v).conj(), p, scale=100)
    close(linalg.pinv(t).numpy(), np.linalg.pinv(tall), scale=50)
    upper = turn(np.triu(x)).conj()
    for right in (b, b[..., :1]):
        got = linalg.solve_triangular(a, dg.tensor(right), upper=True, adjoint=True).numpy()
        close(got, np.linalg.solve(upper, right), scale=20)


def _weigh(lib, y, weight):
    return lib.real(y * lib.tensor(weight)).sum()


WEIGHTS = complex_(2, 4, 4), complex_(5, 3)
#: real functions of a complex matrix x, with a library l for tensors
COMPLEX = {
    "inv": lambda l, x: _weigh(l, l.linalg.inv(x), WEIGHTS[0]),
    "det": lambda l, x: _weigh(l, l.linalg.det(x), WEIGHTS[0][:, 0, 0]),
    "slogdet": lambda l, x: (
        _weigh(l, l.linalg.slogdet(x)[0], WEIGHTS[0][:, 0, 0]) + l.linalg.slogdet(x)[1].sum()
    ),
    "solve": lambda l, x: _weigh(l, l.linalg.solve(x, l.tensor(WEIGHTS[0][..., :3])), WEIGHTS[0][..., 1:]),
    "cholesky": lambda l, x: _weigh(l, l.linalg.cholesky(x @ l.conj(x).mT), WEIGHTS[0]),
    "eigh": lambda l, x: sum((abs(y) ** 3).sum() for y in l.linalg.eigh(x @ l.conj(x).mT)),
    "qr": lambda l, x: sum(_weigh(l, y, WEIGHTS[1][: y.shape[0]]) for y in l.linalg.qr(x)),
    "svd": lambda l, x: sum((abs(y) ** 3).sum() for y in l.linalg.svd(x, full_matrices=False)),
    "pinv": lambda l, x: _weigh(l, l.linalg.pinv(x), WEIGHTS[1].T.copy()),
    "vector_norm": lambda l, x: l.linalg.vector_norm(x),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients_equal_torch(name, torch):
    x = complex_(5, 3) if name in ("qr", "svd", "pinv") else complex_(2, 4, 4) + 3 * np.eye(4)
    a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    COMPLEX[name](dg, a).backward()
    COMPLEX[name](torch, b).backward()
    want = b.grad.resolve_conj().numpy()
    np.testing.assert_allclose(a.grad.numpy(), want, rtol=1e-8, atol=1e-10 * max(1.0, np.abs(want).max()))


ONE_TRIANGLE = {
    "eigvalsh": lambda l, x, k: l.eigvalsh(x, UPLO=k).sum(),
    "eigh": lambda l, x, k: l.eigh(x, UPLO=k)[1].abs().sum(),
    "cholesky": lambda l, x, k: l.cholesky(x, upper=k == "U").sum(),
    "solve_triangular": lambda l, x, k: l.solve_triangular(x, x.new_ones((2, 3, 1)), upper=k == "U").sum(),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", ONE_TRIANGLE)
def test_the_triangle_that_is_not_read_may_hold_anything(name, mode, torch, close):
    x = np.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 5]]) + np.zeros((2, 1, 1))
    for k, (i, j) in (("L", (0, 2)), ("U", (2, 0))):
        x[:, 0, 2], x[:, 2, 0], x[0, 0, 1], x[0, 1, 0] = 0, 0, 1, 1
        x[:, i, j], x[0, min(i, 1), min(j, 1)] = np.nan, np.inf
        a, b = dg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        got = dg.function(lambda t, k=k: ONE_TRIANGLE[name](linalg, t, k), mode=mode)(a)
        want = ONE_TRIANGLE[name](torch.linalg, b, k)
        close(got.item(), want.item())
        got.backward()
        want.backward()
        close(a.grad.numpy(), b.grad.numpy(), scale=50)


def test_nan_in_the_triangle_that_is_read():
    x = np.array([[4.0, 1, 0], [1, 3, 1], [0, np.nan, 5]])
    for mode in ("eager", "graph"):
        with pytest.raises(dg.errors.LinAlgError, match="has NaN"):
            dg.function(linalg.eigvalsh, mode=mode)(dg.tensor(x))
        factor = dg.function(linalg.cholesky, mode=mode)(dg.tensor(x)).numpy()
        np.testing.assert_array_equal(np.isnan(factor), np.isnan(np.linalg.cholesky(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_eigenvalues_and_vectors_of_any_matrix(dtype):
    x = RNG.uniform(-1, 1, (2, 4, 4)) + (RNG.uniform(-1, 1, (2, 4, 4)) * 1j if dtype.startswith("c") else 0)
    x = x.astype(dtype)
    a = dg.tensor(x)
    w, v = (y.numpy() for y in linalg.eig(a))
    near = 1e-5 if dtype in ("float32", "complex64") else 1e-12
    np.testing.assert_allclose(x @ v, v * w[:, None], atol=near)
    np.testing.assert_allclose(np.linalg.norm(v, axis=-2), 1, atol=near)
    np.testing.assert_allclose(np.sort_complex(w), np.sort_complex(np.linalg.eigvals(x)), atol=near)
    np.testing.assert_allclose(np.sort_complex(linalg.eigvals(a).numpy()), np.sort_complex(w), atol=near)
    assert w.dtype == (np.complex64 if near == 1e-5 else np.complex128)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_matrices_that_are_not_finite_are_refused_in_silence(dtype, value, capfd):
    x = np.stack([np.eye(3), np.eye(3), np.diag([1.0, 2.0, 3.0])]).astype(dtype)
    x[0, 2, 1], x[1, 0, 0] = value, -value
    for mode in ("eager", "graph"):
        for name, values, place in (
            ("eig_ex", [1, 2, 3], 0), ("eigvals_ex", [1, 2, 3], 0),
            ("svd_ex", [3, 2, 1], 1), ("svdvals_ex", [3, 2, 1], 0),
        ):  # fmt: skip
            more = {"full_matrices": True} if name == "svd_ex" else {}
            *found, status = dg.function(dg.core.op.REGISTRY[name], mode=mode)(dg.tensor(x), **more)
            assert (status.numpy() != 0).tolist() == [True, True, False]
            for y in found:
                assert np.isnan(y.numpy()[:2]).all()
            np.testing.assert_array_equal(found[place].numpy()[2], values)
    for refuse in (linalg.eigvals, linalg.svdvals, linalg.svd, linalg.cond, linalg.matrix_rank, linalg.pinv):
        with pytest.raises(dg.errors.LinAlgError):
            refuse(dg.tensor(x))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_eigenvalues_come_from_left_to_right_and_the_upper_one_of_a_pair_first(mode):
    x = np.zeros((5, 5))
    x[:2, :2], x[2:4, 2:4], x[4, 4] = [[1, -3], [3, 1]], [[-2, 0.5], [-0.5, -2]], 0
    turn = np.linalg.qr(RNG.uniform(-1, 1, (5, 5)))[0]
    a = dg.tensor(turn @ x @ turn.T)
    w, v = (y.numpy() for y in dg.function(linalg.eig, mode=mode)(a))
    np.testing.assert_allclose(w, [-2 + 0.5j, -2 - 0.5j, 0, 1 + 3j, 1 - 3j], atol=1e-12)
    np.testing.assert_allclose(linalg.eigvals(a).numpy(), w, atol=1e-12)
    largest = np.take_along_axis(v, abs(v).argmax(0)[None], 0)
    np.testing.assert_allclose(largest, abs(largest), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("shape", [(2, 5, 3), (3, 7), (4, 1)])
def test_vectors_without_a_singular_value_are_those_of_a_qr_factorisation(shape, dtype):
    x = (RNG.uniform(-1, 1, shape) + RNG.uniform(-1, 1, shape) * (1j if dtype[0] == "c" else 0)).astype(dtype)
    u, s, vh = (y.numpy() for y in linalg.svd(dg.tensor(x)))
    near, k = (1e-5 if dtype == "float32" else 1e-12), s.shape[-1]
    thin_u, _, thin_vh = (y.numpy() for y in linalg.svd(dg.tensor(x), full_matrices=False))
    np.testing.assert_allclose(u[..., :k], thin_u, atol=near)
    np.testing.assert_allclose(vh[..., :k, :], thin_vh, atol=near)
    for square in (u, np.swapaxes(vh, -1, -2)):
        want = np.linalg.qr(square[..., :k], "complete")[0][..., k:]
        np.testing.assert_allclose(square[..., k:], want, atol=near)
    np.testing.assert_allclose((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, atol=near * 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_of_nan_leaves_the_others_of_its_batch_alone(dtype):
    x = np.stack([np.full((3, 3), np.nan), np.diag([1.0, 2.0, 3.0])]).astype(dtype)
    w, v, status = dg.core.op.REGISTRY["eig_ex"](dg.tensor(x))
    assert status.numpy()[0] != 0 == status.numpy()[1]
    assert np.isnan(w.numpy()[0]).all()
    np.testing.assert_array_equal(w.numpy()[1], [1, 2, 3])
    np.testing.assert_array_equal(v.numpy()[1], np.eye(3))
