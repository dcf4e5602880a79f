"""PyTorch's names for what duograd has: methods against PyTorch's own, in both modes; calls that do not fit."""

import inspect

import duograd as dg
import numpy as np
import pytest
from duograd.core import naming
from duograd.core.op import PUBLIC

MODES = ("eager", "graph")
X = np.array([[0.3, 0.8, 0.1], [0.6, 0.2, 0.9]], "float32")
Y = np.array([[0.5, 0.4, 0.7], [0.1, 0.3, 0.2]], "float32")
MATRIX = np.array([[2.0, 0.5], [0.5, 1.0]], "float32")
INTS = np.array([[6, 3, 1], [4, 9, 2]])

#: name -> (x, further arguments); the others take X alone
ARGUMENTS = {
    **dict.fromkeys(
        (
            "atan2 copysign div divide eq float_power floor_divide fmax fmin fmod ge greater greater_equal gt "
            "heaviside hypot isclose le less less_equal logaddexp logaddexp2 lt mul multiply ne nextafter "
            "not_equal pow remainder true_divide xlogy add sub subtract"
        ).split(),
        (X, (Y,)),
    ),
    **{name: (INTS, (INTS[::-1].copy(),)) for name in "bitwise_and bitwise_or bitwise_xor gcd lcm".split()},
    **dict.fromkeys("logical_and logical_or logical_xor".split(), (X > 0.5, (Y > 0.3,))),
    **dict.fromkeys("det inv inverse logdet pinv pinverse cholesky matrix_exp".split(), (MATRIX, ())),
    "bitwise_left_shift": (INTS, (INTS % 3,)), "bitwise_right_shift": (INTS, (INTS % 3,)), "bitwise_not": (INTS, ()),
    "logical_not": (X > 0.5, ()), "addcmul": (X, (Y, Y)), "addcdiv": (X, (Y, Y)), "lerp": (X, (Y, 0.3)),
    "matrix_power": (MATRIX, (3,)), "fill_diagonal": (X, (7.0,)), "isin": (INTS, (INTS[0],)), "kron": (X, (Y,)),
    "cross": (X, (Y,)), "dist": (X, (Y,)), "vdot": (X[0], (Y[0],)), "diagflat": (X[0], ()),
    "clamp_min": (X, (0.3,)), "clamp_max": (X, (0.7,)),
    "clamp": (X, (0.3, 0.7)), "clip": (X, (0.3, 0.7)), "cumprod": (X, (1,)), "cumsum": (X, (1,)),
    "ldexp": (X, (np.array([[3, -2, 0]]),)),
    "addmm": (MATRIX, (MATRIX, MATRIX)), "addmv": (X[0, :2], (MATRIX, X[0, :2])),
    "addr": (MATRIX, (X[0, :2], X[1, :2])),
    "baddbmm": (MATRIX[None], (MATRIX[None], MATRIX[None])), "addbmm": (MATRIX, (MATRIX[None], MATRIX[None])),
    "type_as": (INTS, (X,)), "where": (X, (X > 0.5, Y)), "acosh": (X + 1, ()),
}  # fmt: skip
#: results of another kind than PyTorch's; and drawn ones
APART = (
    "allclose",
    "cholesky",
    "cross",
    "bernoulli",
    "fill_diagonal",
    "frexp",
    "slice_scatter",
    "select_scatter",
    "diagonal_scatter",
    "hsplit",
    "vsplit",
    "dsplit",
    "isin",
    "multinomial",
    "qr",
    "slogdet",
    "svd",
)


@pytest.fixture
def torch():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: methods are not compared with its own"
    )


def _call(make, name, x, rest):
    return getattr(make(x), name)(*(make(a) if isinstance(a, np.ndarray) else a for a in rest))


def _in_mode(mode, name, x, rest):
    arrays = [x, *(a for a in rest if isinstance(a, np.ndarray))]

    @dg.function(mode=mode)
    def run(*tensors):
        it = iter(tensors[1:])
        return getattr(tensors[0], name)(*(next(it) if isinstance(a, np.ndarray) else a for a in rest))

    return run(*map(dg.tensor, arrays))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [n for n in (*naming._FUNCTIONS, *naming._CASTS, "add", "sub", "type_as", "where") if n not in APART],
)
def test_methods_agree_with_torch(torch, name, mode):
    x, rest = ARGUMENTS.get(name, (X, ()))
    theirs = (
        "clamp" if name == "clip" else "inverse" if name == "inv" else "pinverse" if name == "pinv" else name
    )
    with torch.no_grad():
        expected = _call(torch.tensor, theirs, x, rest)
    found = _in_mode(mode, name, x, rest)
    if name == "bfloat16":
        found, expected = found.float(), expected.float()
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", naming._OVER)
def test_a_trailing_underscore_writes_the_result_over_x(name, mode):
    x, rest = ARGUMENTS.get(name, (X, ()))
    if name in ("eq", "ne"):
        pytest.skip("gives booleans")
    arrays = [a for a in rest if isinstance(a, np.ndarray)]

    @dg.function(mode=mode)
    def run(x, *tensors):
        it = iter(tensors)
        row = [next(it) if isinstance(a, np.ndarray) else a for a in rest]
        plain = getattr(x, name)(*row)
        base, before = x, x
        out = getattr(x[:], f"{name}_")(*row)
        return plain, out, base, before

    given = dg.tensor(x)
    plain, out, base, _ = run(given, *map(dg.tensor, arrays))
    np.testing.assert_array_equal(out.numpy(), plain.numpy())
    np.testing.assert_array_equal(base.numpy(), plain.numpy())
    np.testing.assert_array_equal(given.numpy(), plain.numpy())


def test_an_in_place_method_flows_gradients():
    for mode in MODES:
        x = dg.tensor(X, requires_grad=True)

        @dg.function(mode=mode)
        def run(x):
            y = x * 2
            y.exp_().add_(x, alpha=3).sum().backward()

        run(x)
        np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2 * X) + 3, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_facts_of_memory_are_those_of_torch(torch, mode):
    """`is_contiguous` is a property of ours and a method of PyTorch's: both ways of asking work."""

    @dg.function(mode=mode)
    def facts(x):
        y = x.mT
        return (
            y.stride(), y.stride(-1), y.is_contiguous(), bool(y.is_contiguous), x.is_contiguous(),
            y.contiguous().is_contiguous(), x.element_size(), x.nelement(),
        )  # fmt: skip

    def theirs(x):
        y = x.mT
        return (
            y.stride(), y.stride(-1), y.is_contiguous(), y.is_contiguous(), x.is_contiguous(),
            y.contiguous().is_contiguous(), x.element_size(), x.nelement(),
        )  # fmt: skip

    a = np.zeros((2, 3, 4), "float32")
    assert facts(dg.tensor(a)) == theirs(torch.tensor(a))
    z = np.array([[1 + 2j, 3j, 1], [2, 1 - 1j, 0]])
    for name in ("mH", "H"):
        turned = dg.function(lambda x, name=name: getattr(x, name) * 1, mode=mode)(dg.tensor(z))
        np.testing.assert_array_equal(turned.numpy(), getattr(torch.tensor(z), name).resolve_conj().numpy())
    with pytest.raises(dg.errors.AxisError, match="stride"):
        dg.tensor(a).stride(3)


@pytest.mark.parametrize("mode", MODES)
def test_an_example_of_a_vmap_has_strides(mode):
    fn = dg.function(dg.vmap(lambda x: x.contiguous() * x.stride(0) * x.is_contiguous()), mode=mode)
    x = np.arange(24, dtype="float32").reshape(2, 3, 4)
    np.testing.assert_array_equal(fn(dg.tensor(x)).numpy(), x * 4)


def test_in_place_keeps_the_dtype():
    with pytest.raises(dg.errors.DuogradError, match="int64"):
        dg.tensor(INTS).sqrt_()


def test_add_and_sub_take_alpha():
    a, b = dg.tensor(X), dg.tensor(Y)
    np.testing.assert_array_equal(a.add(b, alpha=2).numpy(), (a + 2 * b).numpy())
    np.testing.assert_array_equal(a.sub(b, alpha=2).numpy(), (a - 2 * b).numpy())


def test_new_tensors_are_like_theirs():
    x = dg.zeros(2, dtype="float64")
    for made in (x.new_zeros(2, 3), x.new_ones((2, 3)), x.new_empty(2, 3), x.new_full((2, 3), 5)):
        assert made.shape == (2, 3)
        assert made.dtype is dg.float64
    assert x.new_tensor([1, 2]).dtype is dg.float64
    assert x.new_zeros(2, dtype=dg.int8).dtype is dg.int8


@pytest.mark.parametrize("make", [dg.zeros, dg.ones, dg.empty])
def test_sizes_may_be_given_one_by_one(make):
    assert make(2, 3).shape == make((2, 3)).shape == make([2, 3]).shape == (2, 3)
    assert make((2, 3), dg.int32).dtype is make(2, 3, dtype="int32").dtype is dg.int32
    assert make(4, "int8").shape == (4,)
    with pytest.raises(dg.errors.DuogradError, match="shape"):
        make((2, 3), 4, 5)


@pytest.mark.parametrize("mode", MODES)
def test_filling_draws_the_numbers_of_the_functions(mode):
    @dg.function(mode=mode)
    def fill(x):
        return [
            x.uniform_(-1, 1).clone(), x.normal_(2.0, 0.1).clone(), x.exponential_(3.0).clone(),
            x.bernoulli_(0.25).clone(), x.random_(3, 9).clone(),
        ]  # fmt: skip

    dg.manual_seed(5)
    uniform, normal, exponential, bernoulli, integers = (t.numpy() for t in fill(dg.zeros(4000)))
    assert -1 <= uniform.min() < -0.9 < 0.9 < uniform.max() < 1
    assert abs(normal.mean() - 2) < 0.01
    assert abs(normal.std() - 0.1) < 0.01
    assert abs(exponential.mean() - 1 / 3) < 0.03
    assert set(bernoulli) == {0.0, 1.0}
    assert abs(bernoulli.mean() - 0.25) < 0.03
    assert set(integers) == {3.0, 4.0, 5.0, 6.0, 7.0, 8.0}


def test_data_is_the_memory_without_history():
    p = dg.nn.Parameter(dg.ones(3))
    p.data.mul_(2)
    assert p.tolist() == [2, 2, 2]
    assert not p.data.requires_grad
    address = p.ptr
    p.data = dg.tensor([1.0, 2.0, 3.0])
    assert p.tolist() == [1, 2, 3]
    assert p.ptr == address
    assert p.requires_grad
    with pytest.raises(dg.errors.ShapeError, match="cannot replace"):
        p.data = dg.zeros(4)


def test_to_takes_several_targets_and_other_tensors():
    x = dg.zeros(3)
    assert (
        x.to("cpu", dg.float64).dtype
        is x.to(dtype="float64").dtype
        is x.to(dg.zeros(1).double()).dtype
        is dg.float64
    )
    assert x.to(device="cpu") is x


@pytest.mark.parametrize("mode", MODES)
def test_functions_named_as_methods_do_the_same(mode):
    @dg.function(mode=mode)
    def run(x):
        y = dg.clone(x)
        y *= 2
        (y.sum() + dg.detach(x).sum()).backward()
        return dg.detach(y), dg.t(dg.detach(x)), dg.numel(x), dg.is_floating_point(x)

    x = dg.tensor(X, requires_grad=True)
    y, turned, size, floating = run(x)
    np.testing.assert_array_equal(y.numpy(), X * 2)
    np.testing.assert_array_equal(turned.numpy(), X.T)
    np.testing.assert_array_equal(x.detach().numpy(), X)
    np.testing.assert_array_equal(x.grad.numpy(), np.full_like(X, 2))
    assert (size, floating) == (6, True)


def test_split_names_cut_their_axis():
    x = dg.tensor(X)
    assert [t.shape for t in x.hsplit(3)] == [(2, 1)] * 3
    assert [t.shape for t in x.vsplit(2)] == [(1, 3)] * 2
    with pytest.raises(dg.errors.ShapeError, match="no axis 2"):
        dg.dsplit(x, 2)


def test_aliases_are_the_functions_themselves():
    for other, name in naming.ALIASES.items():
        assert getattr(dg, other) is getattr(dg, name)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda x: x.sum(dim=1), "write axis= for dim="),
        (lambda x: dg.mean(x, keepdim=True), "write keepdims= for keepdim="),
        (lambda x: dg.std(x, unbiased=False), "write correction= for unbiased="),
        (lambda x: dg.max(x, x), r"element by element: dg\.maximum"),
        (lambda x: dg.triu(x, diagonal=1), "write k= for diagonal="),
    ],
)
def test_words_of_others_are_translated(call, hint):
    for fn in (call, dg.function(call)):
        with pytest.raises(dg.errors.ArgumentTypeError, match=hint) as caught:
            fn(dg.tensor(X))
        assert "test_naming.py" in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_function_that_does_not_fit_has_its_public_name():
    for name, fn in PUBLIC.items():
        if inspect.isfunction(fn) and name not in naming.ALIASES:
            assert fn.__qualname__ in (name, "clip")


def test_grad_can_be_set_from_here_on():
    x = dg.ones(2, dtype=dg.float32)
    before = dg.is_grad_enabled()
    dg.set_grad_enabled(False)
    assert not dg.is_grad_enabled()
    dg.set_grad_enabled(before)
    with dg.set_grad_enabled(False):
        assert not dg.is_grad_enabled()
    assert dg.is_grad_enabled()

    @dg.set_grad_enabled(False)
    def inside():
        return dg.is_grad_enabled()

    assert dg.is_grad_enabled()
    assert not inside()
    assert dg.is_grad_enabled()
    with dg.inference_mode():
        assert not (x * 2).requires_grad


# ---------------------------------------------------------------- gradients of tensors


class Cube(dg.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x**3 * scale

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2 * ctx.scale, None


@pytest.mark.parametrize("mode", MODES)
def test_autograd_grad_gives_gradients_of_gradients(mode):
    @dg.function(mode=mode)
    def run(x, y):
        out = (x**3 * y).sum()
        gx, gy = dg.autograd.grad(out, (x, y), create_graph=True)
        (second,) = dg.autograd.grad(gx, x, grad_outputs=dg.ones_like(gx))
        return gx, gy, second

    x, y = dg.tensor(X, requires_grad=True), dg.tensor(Y, requires_grad=True)
    gx, gy, second = run(x, y)
    np.testing.assert_allclose(gx.detach().numpy(), 3 * X**2 * Y, rtol=1e-6)
    np.testing.assert_allclose(gy.detach().numpy(), X**3, rtol=1e-6)
    np.testing.assert_allclose(second.detach().numpy(), 6 * X * Y, rtol=1e-6)
    assert x.grad is None
    assert y.grad is None


def test_autograd_grad_says_what_is_missing():
    x, y = dg.tensor(X, requires_grad=True), dg.tensor(Y, requires_grad=True)
    with pytest.raises(dg.errors.AutogradError, match="does not require a gradient"):
        dg.autograd.grad((x * 2).sum(), dg.ones(2))
    with pytest.raises(dg.errors.AutogradError, match="do not depend on input 1"):
        dg.autograd.grad((x * 2).sum(), (x, y))
    assert dg.autograd.grad((x * 2).sum(), (x, y), allow_unused=True)[1] is None
    with pytest.raises(dg.errors.AutogradError, match="from one number only"):
        dg.autograd.grad(x * 2, x)
    out = (x * x).sum()
    dg.autograd.grad(out, x)
    with pytest.raises(dg.errors.AutogradError, match="already used"):
        dg.autograd.grad(out, x)


def test_autograd_backward_takes_several_roots():
    x = dg.tensor(X, requires_grad=True)
    y = x * 2
    dg.autograd.backward([y.sum(), (y * y)], [None, dg.ones_like(y)])
    np.testing.assert_allclose(x.grad.numpy(), 2 + 8 * X, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_function_has_its_own_gradient(mode):
    @dg.function(mode=mode)
    def run(x):
        y = Cube.apply(x, 2.0)
        (g,) = dg.autograd.grad(y.sum(), x, create_graph=True)
        g.sum().backward()
        return y, g

    x = dg.tensor(X, requires_grad=True)
    y, g = run(x)
    np.testing.assert_allclose(y.detach().numpy(), 2 * X**3, rtol=1e-6)
    np.testing.assert_allclose(g.detach().numpy(), 6 * X**2, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 12 * X, rtol=1e-6)


def test_a_function_notices_what_was_changed_and_what_is_missing():
    x = dg.tensor(X, requires_grad=True)
    z = x * 1
    y = Cube.apply(z, 2.0)
    with dg.no_grad():
        z.zero_()
    with pytest.raises(dg.errors.AutogradError, match="changed in place"):
        y.sum().backward()

    class Short(Cube):
        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(dg.errors.AutogradError, match="1 gradients for 2 arguments"):
        Short.apply(x, 2.0).sum().backward()


def test_types_know_every_method():
    from duograd.core.method_types import NamedMethods

    assert set(NamedMethods.__annotations__) == {*naming.METHODS, *naming.FACTS}
