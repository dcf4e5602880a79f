"""Element-wise functions against SciPy, mpmath and torch where tests/test_ops_random.py does not look.

Error bounds of functions made of series, slopes at kinks, the array API's special cases, bits, limits by tensors.
"""

import duograd as dg
import numpy as np
import pytest
from duograd.core.op import REGISTRY

scipy_special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

INF, NAN = np.inf, np.nan


def _points(low, high, dtype, count=20000):
    rng = np.random.default_rng(3)
    return np.concatenate(
        [rng.uniform(low, high, count), 10.0 ** rng.uniform(-6, np.log10(high), count)]
    ).astype(dtype)


#: function -> (exact, range, error in float32 and float64, in units of max(|result|, 1) for the gamma functions)
BOUNDED = {
    "lgamma": (scipy_special.gammaln, 0.0, 60.0, (0.6, 5)),
    "digamma": (scipy_special.digamma, 0.01, 60.0, (0.6, 16)),
    "erfinv": (scipy_special.erfinv, -0.9999, 0.9999, (4, 6)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BOUNDED)
def test_series_are_within_their_bounds(name, dtype):
    exact, low, high, bounds = BOUNDED[name]
    x = _points(low, high, dtype)
    want = exact(x.astype(np.float64))
    got = getattr(dg, name)(dg.tensor(x)).numpy()
    least = 1.0 if name != "erfinv" else 0.0
    unit = np.spacing(np.maximum(np.abs(want), least).astype(dtype))
    assert (np.abs(got - want) / unit).max() <= bounds[dtype == "float64"]


def test_gamma_functions_by_reflection():
    mp = pytest.importorskip("mpmath", reason="mpmath is not installed")
    x = np.random.default_rng(4).uniform(-12, 0, 300)
    want = np.array([float(mp.log(abs(mp.gamma(v)))) for v in x])
    np.testing.assert_allclose(dg.lgamma(dg.tensor(x)).numpy(), want, rtol=1e-13, atol=1e-13)
    for op, exact in ((dg.digamma, lambda v: mp.digamma(v)), *(
        (lambda v, n=n: REGISTRY["polygamma"](v, n=n), lambda v, n=n: mp.psi(n, v)) for n in (1, 2, 3)
    )):  # fmt: skip
        want = np.array([float(exact(mp.mpf(v))) for v in x])
        np.testing.assert_allclose(op(dg.tensor(x)).numpy(), want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("lgamma", [0.0, -0.0, -1.0, INF, -INF, 1.0, 2.0], [INF, INF, INF, INF, INF, 0.0, 0.0]),
        ("digamma", [0.0, -0.0, -1.0, INF, -INF], [-INF, INF, NAN, INF, NAN]),
        ("erfinv", [1.0, -1.0, 1.5, 0.0], [INF, -INF, NAN, 0.0]),
        ("logit", [0.0, 1.0, 2.0, 0.5], [-INF, INF, NAN, 0.0]), ("sinc", [0.0, 1e-30], [1.0, 1.0]),
        ("sign", [NAN, -0.0, -INF], [NAN, 0.0, -1.0]), ("cbrt", [-8.0, INF, 27.0], [-2.0, INF, 3.0]),
        ("nan_to_num", [NAN, INF, 1.0], [0.0, np.finfo("float32").max, 1.0]),
        ("signbit", [-0.0, 0.0, NAN, -1.0], [True, False, False, True]),
    ],
)  # fmt: skip
def test_special_values(name, x, want):
    np.testing.assert_allclose(getattr(dg, name)(dg.tensor(x)).numpy(), np.array(want), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "x", "y", "want"),
    [  # as the array API standard has them
        ("floor_divide", INF, 2.0, INF), ("floor_divide", -INF, 2.0, -INF), ("floor_divide", 1.0, -INF, -0.0),
        ("floor_divide", -1.0, INF, -0.0), ("floor_divide", -1.0, -INF, 0.0), ("floor_divide", -0.0, INF, -0.0),
        ("floor_divide", INF, INF, NAN), ("floor_divide", 0.0, 0.0, NAN), ("floor_divide", -7.0, 2.0, -4.0),
        ("remainder", -1.0, INF, INF), ("remainder", 1.0, -INF, -INF), ("remainder", -7.0, 2.0, 1.0),
        ("remainder", 7.0, -2.0, -1.0), ("remainder", INF, 2.0, NAN), ("fmod", -7.0, 2.0, -1.0),
        ("power", 0.0, 0.0, 1.0), ("power", NAN, 0.0, 1.0), ("power", 1.0, NAN, 1.0), ("power", -1.0, INF, 1.0),
        ("power", 0.0, -1.0, INF), ("power", -0.0, -1.0, -INF), ("power", -8.0, 1 / 3, NAN),
        ("hypot", INF, NAN, INF), ("hypot", 3e30, 4e30, 5e30), ("logaddexp", -INF, -INF, -INF),
        ("logaddexp", INF, 1.0, INF), ("atan2", 0.0, -0.0, np.pi), ("atan2", -0.0, -1.0, -np.pi),
        ("fmax", NAN, 1.0, 1.0), ("fmin", 1.0, NAN, 1.0), ("xlogy", 0.0, 0.0, 0.0), ("xlogy", 0.0, NAN, NAN),
        ("copysign", 2.0, -0.0, -2.0), ("nextafter", 1.0, 2.0, 1 + 2.0**-23), ("nextafter", 0.0, -1.0, -(2.0**-149)),
    ],
)  # fmt: skip
def test_special_pairs(name, x, y, want):
    got = getattr(dg, name)(dg.tensor([x]), dg.tensor([y])).item()
    np.testing.assert_allclose(got, want, rtol=1e-6)
    if want == 0:
        assert np.signbit(got) == np.signbit(want)


KINKS = {
    "maximum": ([1.0, 2.0], [1.0, 0.0]), "fmax": ([1.0, NAN, 2.0], [1.0, 1.0, NAN]), "floor": ([0.5, 1.0],),
    "sign": ([0.0, 2.0],), "round": ([0.5, 1.2],), "abs": ([0.0, -1.0],), "frac": ([0.5, -1.25],),
    "copysign": ([0.0, 2.0, -3.0], [-1.0, -1.0, 1.0]), "pow": ([0.0, 0.0, 2.0], [0.0, 2.0, 0.0]),
    "clamp": ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]), "lerp": ([1.0, 2.0], [3.0, 4.0], [0.2, 0.9]),
    "xlogy": ([0.0, 2.0], [0.5, 3.0]), "sinc": ([0.0, 0.5],),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_slopes_at_kinks_are_torchs(name, close):
    rows = [[space.tensor(v, requires_grad=True) for v in KINKS[name]] for space in (dg, torch)]
    a, b = getattr(dg, name)(*rows[0]), getattr(torch, name)(*rows[1])
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6)
    a.sum().backward(), b.sum().backward()
    for x, y in zip(*rows):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_bits_of_integers(dtype):
    rng = np.random.default_rng(5)
    info = np.iinfo(dtype)
    x, y = (rng.integers(info.min, info.max, 64, dtype) for _ in range(2))
    n = rng.integers(0, 8, 64).astype(dtype)
    a, b, k = dg.tensor(x), dg.tensor(y), dg.tensor(n)
    for got, want in ((a & b, x & y), (a | b, x | y), (a ^ b, x ^ y), (~a, ~x), (a << k, x << n), (a >> k, x >> n),
                      (a & 3, x & 3), (5 | a, 5 | x), (dg.gcd(a, b), np.gcd(x, y))):  # fmt: skip
        np.testing.assert_array_equal(got.numpy(), want)
        assert got.dtype == dtype


def test_bits_of_booleans_are_logic_and_floats_have_none():
    a, b = dg.tensor([True, True, False]), dg.tensor([True, False, False])
    assert (a & b).tolist() == [True, False, False]
    assert (a ^ b).tolist() == [False, True, False]
    assert (~a).tolist() == [False, False, True]
    with pytest.raises(dg.errors.DtypeError, match="bitwise_and"):
        dg.tensor([1.0]) & dg.tensor([2.0])


def test_clip_takes_numbers_tensors_and_nothing():
    x = dg.tensor([-2.0, 0.5, 3.0, NAN])
    np.testing.assert_array_equal(dg.clip(x, 0.0).numpy(), [0, 0.5, 3, NAN])
    np.testing.assert_array_equal(dg.clip(x, max=dg.tensor([0.0, 0.0, 5.0, 1.0])).numpy(), [-2, 0, 3, NAN])
    np.testing.assert_array_equal(x.clip(dg.tensor(-1.0), 1.0).numpy(), [-1, 0.5, 1, NAN])
    assert dg.clip(dg.tensor([1, 5]), dg.tensor([2, 2]), 3).tolist() == [2, 3]
    assert dg.clip(x, dg.tensor(2.0), dg.tensor(1.0))[0].item() == 1.0


def test_divisions_and_comparisons_that_are_functions():
    x = dg.tensor([7, -7])
    assert dg.div(x, 2).tolist() == [3.5, -3.5]
    assert dg.div(x, 2, rounding_mode="floor").tolist() == [3, -4]
    assert dg.div(x, 2, rounding_mode="trunc").tolist() == [3, -3]
    assert dg.round(dg.tensor([1.25, -3.456]), decimals=1).tolist() == pytest.approx([1.2, -3.5])
    assert dg.float_power(dg.tensor([2]), 0.5).dtype is dg.float64
    a, b = dg.tensor([1.0, NAN]), dg.tensor([1.0 + 1e-7, NAN])
    assert not dg.allclose(a, b)
    assert dg.allclose(a, b, equal_nan=True)
    assert dg.array_equal(a, a, equal_nan=True)
    assert not dg.array_equal(a, a)
    assert not dg.array_equal(a, dg.tensor([1.0]))
    assert dg.isclose(dg.tensor([INF, INF]), dg.tensor([INF, 1.0])).tolist() == [True, False]
    assert dg.arccos is dg.acos


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide"])
def test_divisions_whose_quotient_overflows(name, dtype):
    info = np.finfo(dtype)
    x = np.array(
        [
            info.smallest_subnormal,
            info.smallest_subnormal * 7,
            info.tiny,
            1e-10,
            3.5,
            1e30,
            info.max / 3,
            info.max,
        ]
    )
    x = np.concatenate([x, -x]).astype(dtype)
    a, b = np.meshgrid(x, x)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(a, b)
    np.testing.assert_array_equal(getattr(dg, name)(dg.tensor(a), dg.tensor(b)).numpy(), want)
