"""float16 and bfloat16: conversions bit by bit, rounding once per op, sums in float32, both modes, files."""

import duograd as dg
import ml_dtypes
import numpy as np
import pytest
from duograd.core import types as T
from duograd.core.op import REGISTRY

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
INTEGERS = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64".split()


@pytest.fixture(params=HALVES)
def half(request):
    """dg's dtype and NumPy's."""
    return T.DTYPES[request.param], HALVES[request.param]


def normal(shape, np_dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np_dtype)


def same_bits(got, want):
    """Equal bits, except that one NaN is as good as another."""
    assert got.dtype == want.dtype
    numbers = ~np.isnan(want.astype(np.float32))
    bits = f"u{want.itemsize}"
    np.testing.assert_array_equal(got.view(bits)[numbers], want.view(bits)[numbers])
    assert np.isnan(got[~numbers].astype(np.float32)).all()


def every(np_dtype):
    return np.arange(1 << 16, dtype=np.uint16).view(np_dtype)


def test_every_value_widens_exactly_and_comes_back(half):
    dtype, np_dtype = half
    x = dg.tensor(every(np_dtype))
    with np.errstate(all="ignore"):
        for wide in ("float32", "float64"):
            y = x.to(wide)
            same_bits(y.numpy(), every(np_dtype).astype(wide))
            same_bits(y.to(dtype).numpy(), every(np_dtype))
        for other in HALVES:
            same_bits(x.to(other).numpy(), every(np_dtype).astype(np.float32).astype(HALVES[other]))


def between(np_dtype, wide):
    """Halfway points of neighbours, what lies just beside them, and random bits of the wide dtype."""
    with np.errstate(all="ignore"):
        x = every(np_dtype).astype(np.float64)
        middle = ((x[:-1] + x[1:]) / 2).astype(wide)
        beside = [np.nextafter(middle, wide(s)) for s in (-np.inf, np.inf)]
    bits = np.random.default_rng(3).integers(0, 2**63, 1 << 18).view(wide)
    return np.concatenate([middle, *beside, bits])


def by_way_of_float32(x, np_dtype):
    """What kernels and PyTorch make of numbers in bfloat16; ml_dtypes rounds float64 and int64 once from 0.7 on."""
    return x.astype(np.float32).astype(np_dtype) if np_dtype == HALVES["bfloat16"] else x.astype(np_dtype)


@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_floats_round_to_nearest_even(half, wide):
    dtype, np_dtype = half
    x = between(np_dtype, wide)
    with np.errstate(all="ignore"):
        want = by_way_of_float32(x, np_dtype)
        same_bits(dg.tensor(x).to(dtype).numpy(), want)
        same_bits(dg.tensor(x, dtype=dtype).numpy(), want)


#: a float and an integer that are halfway between two numbers of bfloat16 once they are float32
HALFWAY = {"float64": 1 + 2.0**-8 + 2.0**-40, "int64": 4845873465795309446}
#: ways in which a number v, or an array of it, becomes bfloat16
DOORS = {
    "a list": lambda v: dg.tensor([v], dtype="bfloat16"),
    "an array": lambda v: dg.tensor(np.array([v]), dtype="bfloat16"),
    "asarray": lambda v: dg.asarray(np.array([v]), dtype="bfloat16"),
    "to": lambda v: dg.tensor(np.array([v])).to("bfloat16"),
    "full": lambda v: dg.full((1,), v, dtype="bfloat16"),
    "a number beside": lambda v: dg.ones((1,), dtype="bfloat16") * v,
    "where": lambda v: dg.where(dg.tensor([True]), v, dg.zeros((1,), dtype="bfloat16")),
    "an element": lambda v: written(lambda x: x.__setitem__(0, v)),
    "a list of elements": lambda v: written(lambda x: x.__setitem__(slice(0, 1), [v])),
    "an array of elements": lambda v: written(lambda x: x.__setitem__(slice(0, 1), np.array([v]))),
    "by an index": lambda v: written(lambda x: x.__setitem__(dg.tensor([0]), v)),
    "fill_": lambda v: written(lambda x: x.fill_(v)),
    "arange": lambda v: dg.arange(v, v + 1, 1, dtype="bfloat16"),
}  # fmt: skip


def written(write):
    x = dg.zeros((1,), dtype="bfloat16")
    write(x)
    return x


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("kind", HALFWAY)
@pytest.mark.parametrize("door", DOORS)
def test_whatever_becomes_bfloat16_does_so_by_way_of_float32(door, kind, mode):
    v = HALFWAY[kind]
    want = float(by_way_of_float32(np.array([v]), HALVES["bfloat16"])[0])
    made = dg.function(lambda: DOORS[door](v), mode=mode)
    assert made().float().item() == want
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: roundings are not compared with it"
    )
    assert torch.tensor([v]).to(torch.bfloat16).float().item() == want


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_convert_both_ways(half, name):
    dtype, np_dtype = half
    integers = np.concatenate(
        [np.random.default_rng(1).integers(0, 2**63, 5000), np.arange(-70000, 70000, 7)]
    )
    integers = integers.astype(name)
    with np.errstate(all="ignore"):
        same_bits(dg.tensor(integers).to(dtype).numpy(), by_way_of_float32(integers, np_dtype))
    x = np.linspace(0, 120, 500).astype(np_dtype)
    np.testing.assert_array_equal(dg.tensor(x).to(name).numpy(), x.astype(np.float32).astype(name))


def test_arithmetic_is_float32_rounded_once(half):
    dtype, np_dtype = half
    a, b = normal((5, 40), np_dtype), normal((40,), np_dtype, 1)
    x, y = dg.tensor(a), dg.tensor(b)
    for op in (np.add, np.subtract, np.multiply, np.divide):
        want = op(a.astype(np.float32), b.astype(np.float32)).astype(np_dtype)
        got = getattr(dg, {"divide": "divide"}.get(op.__name__, op.__name__))(x, y)
        assert got.dtype is dtype
        same_bits(got.numpy(), want)
    # A whole op rounds once, not each of its steps.
    wide = dg.gelu(dg.tensor(a.astype(np.float32))).numpy()
    same_bits(dg.gelu(x).numpy(), wide.astype(np_dtype))


def test_a_number_takes_the_dtype(half):
    dtype, np_dtype = half
    a = normal(64, np_dtype)
    got = dg.tensor(a) * 0.1
    assert got.dtype is dtype
    tenth = np.float32(0.1).astype(np_dtype).astype(np.float32)
    same_bits(got.numpy(), (a.astype(np.float32) * tenth).astype(np_dtype))


def test_comparisons_and_specials(half):
    _, np_dtype = half
    a = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]).astype(np_dtype)
    x = dg.tensor(a)
    f = a.astype(np.float32)
    np.testing.assert_array_equal(dg.less(x, 1.0).numpy(), f < 1)
    np.testing.assert_array_equal(dg.equal(x, x).numpy(), f == f)
    np.testing.assert_array_equal(dg.isnan(x).numpy(), np.isnan(f))
    np.testing.assert_array_equal(np.signbit((-x).to(dg.float32).numpy()), np.signbit(-f))
    same_bits(dg.maximum(x, 0.5).numpy(), np.maximum(f, np.float32(0.5)).astype(np_dtype))


def test_sums_run_in_float32(half):
    dtype, np_dtype = half
    # In 16 bits a sum of ones would stop at 2048 (float16) or 256 (bfloat16).
    ones = dg.ones((3, 5000), dtype=dtype)
    want = np.float32(5000).astype(np_dtype)
    for y in (ones.sum(axis=1), dg.ones((5000, 3), dtype=dtype).sum(axis=0)):
        assert y.dtype is dtype
        same_bits(y.numpy(), np.full(3, want))
    # A mean does not go through a sum of 16 bits, which would overflow.
    big = dg.full((70000,), 40.0, dtype=dtype)
    assert big.mean().item() == 40.0
    a = normal((300, 7), np_dtype)
    want = (
        a.astype(np.float32).sum(0, dtype=np.float64).astype(np.float32).astype(np_dtype).astype(np.float32)
    )
    got = dg.tensor(a).sum(axis=0).to(dg.float32).numpy()
    np.testing.assert_allclose(got, want, rtol=2 * float(dg.finfo(dtype).eps))


def test_products_accumulate_in_float32(half):
    dtype, np_dtype = half
    a, b = normal((2, 33, 300), np_dtype), normal((300, 19), np_dtype, 1)
    wide = (dg.tensor(a.astype(np.float32)) @ dg.tensor(b.astype(np.float32))).numpy()
    same_bits((dg.tensor(a) @ dg.tensor(b)).numpy(), wide.astype(np_dtype))
    turned = np.ascontiguousarray(b.T)
    same_bits((dg.tensor(a) @ dg.tensor(turned).T).numpy(), wide.astype(np_dtype))
    w = dg.tensor(normal((4, 3, 3, 3), np_dtype))
    x = dg.tensor(normal((2, 3, 9, 9), np_dtype))
    got = dg.conv2d(x, w)
    assert got.dtype is dtype
    same_bits(got.numpy(), dg.conv2d(x.to("float32"), w.to("float32")).numpy().astype(np_dtype))


def test_modes_agree_through_a_fusion(half):
    _, np_dtype = half
    x, y = dg.tensor(normal((9, 50), np_dtype)), dg.tensor(normal((50,), np_dtype, 1))
    w = dg.tensor(normal((50, 8), np_dtype, 2))

    def f(x, y, w):
        h = dg.relu(x * y + 0.3) / (dg.exp(y) + 1.0)
        z = h @ w + 0.25
        return (
            h,
            dg.softmax(h, axis=1),
            h.sum(axis=0),
            dg.tanh(z) * z,
            h.max(axis=1),
            (h - h.mean()).to("float32"),
        )

    for got, want in zip(dg.function(f)(x, y, w), f(x, y, w), strict=True):
        assert got.dtype is want.dtype
        assert got.numpy().tobytes() == want.numpy().tobytes()


def test_gradients_flow_in_the_dtype(half):
    dtype, np_dtype = half
    leaves = [normal((4, 6), np_dtype), normal((6, 3), np_dtype, 1)]

    def loss(x, w):
        return dg.square(dg.tanh(x @ w)).mean()

    wide = [dg.tensor(a.astype(np.float32), requires_grad=True) for a in leaves]
    loss(*wide).backward()
    for run in (loss, dg.function(loss)):
        tensors = [dg.tensor(a, requires_grad=True) for a in leaves]
        run(*tensors).backward()
        for t, reference in zip(tensors, wide):
            assert t.grad.dtype is dtype
            np.testing.assert_allclose(
                t.grad.to("float32").numpy(), reference.grad.numpy(), atol=4 * float(dg.finfo(dtype).eps)
            )


def test_layouts_and_in_place_work(half):
    _, np_dtype = half
    a = normal((6, 8), np_dtype)
    x = dg.tensor(a)
    same_bits(x.T.clone().numpy(), np.ascontiguousarray(a.T))
    same_bits((x[::2, 1::3] + 1.0).numpy(), (a[::2, 1::3].astype(np.float32) + 1).astype(np_dtype))
    x += 1.0
    x[0] = 2.0
    want = (a.astype(np.float32) + 1).astype(np_dtype)
    want[0] = 2
    same_bits(x.numpy(), want)
    index = dg.tensor([3, 0, 3])
    same_bits(dg.take(x, index, axis=0).numpy(), want[[3, 0, 3]])


def test_random_numbers_stay_below_one(half):
    dtype, _ = half
    u = dg.rand(20000, dtype=dtype)
    assert u.dtype is dtype
    values = u.to("float32").numpy()
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(dg.randn(20000, dtype=dtype).to("float32").numpy().std() - 1) < 0.05


def test_values_go_in_and_out(half, tmp_path):
    dtype, np_dtype = half
    a = normal((3, 4), np_dtype)
    x = dg.tensor(a)
    assert x.dtype is dtype
    assert x.numpy().dtype == np_dtype
    assert f"dtype={dtype}" in repr(x)
    assert dg.asarray(a).numpy().tobytes() == a.tobytes()
    assert dg.tensor([1.5, 2.5], dtype=dtype).tolist() == [1.5, 2.5]
    assert isinstance(x.sum().item(), float)
    dg.save({"x": x}, tmp_path / "x.safetensors")
    back = dg.load(tmp_path / "x.safetensors")["x"]
    assert back.dtype is dtype
    same_bits(back.numpy(), a)


def test_a_model_trains_in_the_dtype(half):
    dtype, _ = half
    model = dg.nn.Sequential(dg.nn.Linear(4, 8), dg.nn.ReLU(), dg.nn.Linear(8, 1)).to(dtype)
    optimizer = dg.optim.SGD(model.parameters(), lr=0.05)
    x = dg.randn(64, 4, dtype=dtype)
    y = x.sum(axis=1, keepdims=True)

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = dg.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, y).item() for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_an_op_that_refuses_halves_says_so():
    x = dg.ones((3, 3), dtype=dg.bfloat16)
    with pytest.raises(dg.errors.DtypeError, match="bfloat16"):
        dg.nextafter(x, x)


def test_an_op_knows_its_dtypes():
    names = lambda op: {d.name for d in REGISTRY[op].supported_dtypes()}
    assert names("add") == set(T.DTYPES)
    assert names("exp") == set(T.DTYPES)
    assert names("maximum") == set(T.DTYPES) - {"complex64", "complex128"}
    assert names("bitwise_and") == set(INTEGERS)
    assert names("softmax") >= {"float16", "bfloat16", "float32", "float64"}
    assert names("inv") >= {"float32", "float64", "complex64", "complex128"}


def test_onnx_files_keep_the_dtype(half):
    _, np_dtype = half
    x, w = dg.tensor(normal((3, 4), np_dtype)), dg.tensor(normal((4, 5), np_dtype, 1))

    def f(x, w):
        return dg.relu(x + 1.0) @ w, dg.tanh(x).sum(axis=1)

    model = dg.onnx.export(f, (x, w), verify=False)
    for got, want in zip(dg.onnx.load(model)(x, w), f(x, w), strict=True):
        assert got.dtype is want.dtype
        np.testing.assert_allclose(
            got.to("float32").numpy(),
            want.to("float32").numpy(),
            rtol=4 * float(dg.finfo(want.dtype).eps),
            atol=0.02,
        )


def test_a_product_plus_a_converted_scalar_is_one_graph(half):
    """The cast is computed again in the product's loop, which has no 16-bit floats in registers."""
    _, np_dtype = half

    def fn(a, b, s, row):
        wide = row.to(T.float32) + 1
        return a @ b + s.to(T.float32), a @ b + wide, b + wide

    given = [dg.tensor(normal(shape, np.float32)) for shape in ((6, 7), (7, 8))]
    given += [dg.tensor(normal(shape, np_dtype)) for shape in ((), (8,))]
    for got, want in zip(dg.function(fn, mode="graph")(*given), fn(*given), strict=True):
        same_bits(got.numpy(), want.numpy())
