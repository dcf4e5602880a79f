"""Pointwise ops on random shapes, layouts, dtypes and corner values: against NumPy, SciPy or PyTorch, in both modes.

The op's own body in NumPy is the reference of tests/test_ops.py; here the reference is somebody else's function.
"""

import duograd as dg
import numpy as np
import pytest
import scipy.special
import torch
from duograd.core.op import REGISTRY, Ints
from duograd.core.types import DTYPES, TensorType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

F = torch.nn.functional


def _torch(fn):
    """A function of torch as one of NumPy arrays."""

    def run(*arrays):
        return fn(
            *[torch.tensor(np.ascontiguousarray(a)) if isinstance(a, np.ndarray) else a for a in arrays]
        ).numpy()

    return run


def _wide(fn):
    """A function of NumPy evaluated in float64, so that its own rounding is not in the way."""

    def run(*arrays):
        made = fn(*[a.astype(np.float64) if a.dtype != np.bool_ else a.astype(np.float32) for a in arrays])
        keep = (
            arrays[0].dtype if arrays[0].dtype.kind == "f" else np.float32
        )  # integers give the default float
        return made.astype(keep) if made.dtype.kind == "f" else made

    return run


#: ops whose peer has another name, or is a formula
NAMED = {
    "cast": None, "assign": np.positive, "sigmoid": _wide(scipy.special.expit), "erf": _wide(scipy.special.erf),
    "rsqrt": _wide(lambda x: 1 / np.sqrt(x)), "round": np.round, "where": lambda c, a, b: np.where(c, a, b),
    "heaviside": lambda x, v: np.heaviside(x.astype(float), v.astype(float)).astype(x.dtype), "threshold": None,
    "prelu": lambda x, a: np.where(x > 0, x, a * x),
    "clip": None, "angle": _torch(torch.angle), "gelu": _torch(F.gelu),
    "leaky_relu": _torch(lambda x: F.leaky_relu(x, 0.01)),
}  # fmt: skip
#: the business of other ops, creation and random numbers: no peer takes such arguments
LEFT_OUT = {n for n, op in REGISTRY.items() if op.internal or op.creates or "shape" in op.attr_names}
POINTWISE = sorted(n for n, op in REGISTRY.items() if op.kind == "pointwise" and n not in LEFT_OUT)


def peer(name):
    if name in NAMED:
        return NAMED[name]
    found = getattr(np, name, None)
    if found is not None:
        return _wide(found) if REGISTRY[name].to_float else found
    found = getattr(scipy.special, name, None)
    if found is not None:
        return _wide(found)
    found = getattr(torch, name, None) or getattr(F, name, None)
    return None if found is None else _torch(found)


WITH_PEER = [n for n in POINTWISE if peer(n) is not None]


def test_nearly_every_pointwise_op_has_a_peer():
    without = [n for n in POINTWISE if peer(n) is None]
    assert len(without) <= 0.15 * len(POINTWISE), without


# ---------------------------------------------------------------- arguments

#: floor_divide: beside an infinity it is the quotient, as the array API standard has it; NumPy says NaN or -1;
#: gelu, silu, mish: the limits, 0 and infinity, where PyTorch says NaN
FINITE_ONLY = ("floor_divide", "gelu", "silu", "mish")
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, 1e30, 0.5, -2.5]


def _values(rng, dtype, shape, low, high):
    """Random values of a dtype, with corner values among the floats."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0 if dtype.kind == "u" else -9, 10, shape).astype(dtype)
    x = rng.uniform(low, high, shape).astype(dtype)
    flat = x.reshape(-1)
    where = rng.random(flat.size) < 0.25
    flat[where] = rng.choice(np.array(SPECIAL, dtype), int(where.sum()))
    return x


def _laid_out(x, how):
    """A tensor with x's values in another layout."""
    if how == "strided" and x.ndim:
        return dg.tensor(np.repeat(x, 2, axis=-1))[..., ::2]
    if how == "transposed" and x.ndim > 1:
        return dg.tensor(np.ascontiguousarray(x.T)).permute(*range(x.ndim)[::-1])
    return dg.tensor(x)


# Few structures, so that few kernels are compiled; sizes cross the length of a vector.
SHAPES = [[(3, 19), (3, 19), (3, 19)], [(5, 16), (16,), (5, 1)], [(33,), (33,), ()], [(2, 0, 3), (3,), ()]]
cases = st.tuples(st.sampled_from(SHAPES), st.sampled_from(["dense", "strided"]), st.integers(0, 2**31))


def _dtypes(op, n):
    """The dtypes among these that the op takes."""
    out = []
    for name in ("float32", "float64", "int32", "uint8", "bool"):
        t = TensorType(DTYPES[name], (2,))
        try:
            op.infer([t] * n, op.bind((dg.zeros(2),) * n, {})[1] if not op.required_attrs else op.defaults)
        except dg.errors.DuogradError:
            continue
        out.append(name)
    return out


def _count(op):
    """How many tensors the op takes: as many as its first sample has."""
    return len(op.samples[0].args)


few = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", WITH_PEER)
def test_op_equals_its_peer(name, close):
    op, fn = REGISTRY[name], peer(name)
    n, sample = _count(op), op.samples[0]
    compared = set()

    @few
    @given(cases, st.sampled_from(_dtypes(op, n)))
    def check(case, dtype):
        shapes, how, seed = case
        rng = np.random.default_rng(seed)
        arrays = [_values(rng, np.dtype(dtype), shape, sample.low, sample.high) for shape in shapes[:n]]
        if name == "where":
            arrays[0] = arrays[0] > 0
        if name == "power" and dtype not in ("float32", "float64"):
            arrays[1] = np.abs(arrays[1])  # NumPy raises for integers to negative powers
        with np.errstate(all="ignore"):
            try:
                want = np.asarray(fn(*arrays))
            except (TypeError, RuntimeError):
                return  # the peer does not take this dtype
        if want.dtype == np.float16:
            return  # NumPy's half for bool and int8; ours is the default float, or the dtype itself
        tensors = [_laid_out(a, how) for a in arrays]
        got = op(*tensors)
        if name in FINITE_ONLY:
            infinite = np.logical_or.reduce(np.broadcast_arrays(*map(np.isinf, arrays)))
            want = np.where(infinite, got.numpy(), want)
        assert (want.dtype.kind == "f") == got.dtype.is_float, f"{got.dtype} for {dtype}, not {want.dtype}"
        close(got.numpy(), want.astype(got.dtype.np), 4.0)
        again = dg.function(op)(*tensors)
        assert np.array_equal(again.numpy(), got.numpy(), equal_nan=got.dtype.has_gradient)
        compared.add(dtype)

    check()
    assert compared, "no dtype that both take"


def _real(x):
    return dg.view_as_real(x) if x.dtype.is_complex else x


DIFFERENTIABLE = [
    n
    for n in POINTWISE
    if REGISTRY[n].grads and not any(isinstance(a, Ints) for a in REGISTRY[n].samples[0].args)
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_broadcast_and_strided_inputs_equals_a_difference(name):
    op = REGISTRY[name]
    n, sample = _count(op), op.samples[0]

    @settings(max_examples=3, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(
        st.tuples(st.sampled_from(SHAPES[:3]), st.sampled_from(["dense", "strided"]), st.integers(0, 2**31))
    )
    def check(case):
        shapes, how, seed = case
        rng = np.random.default_rng(seed)
        arrays = [rng.uniform(sample.low, sample.high, s) for s in shapes[:n]]
        along = [rng.uniform(-1, 1, s) for s in shapes[:n]]
        if name == "where":
            arrays[0] = arrays[0] > 0
        which = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
        leaves = [_laid_out(a, how) if k in which else dg.tensor(a) for k, a in enumerate(arrays)]
        for k in which:
            leaves[k] = leaves[k].detach().requires_grad_()
        out = _real(op(*leaves, **sample.attrs))
        weight = dg.tensor(rng.uniform(-1, 1, out.shape))
        (out * weight).sum().backward()
        slope = sum(
            float((leaves[k].grad.numpy() * along[k]).sum()) for k in which if leaves[k].grad is not None
        )

        def value(h):
            moved = [
                dg.tensor(a + h * d) if k in which else dg.tensor(a)
                for k, (a, d) in enumerate(zip(arrays, along))
            ]
            return float((_real(op(*moved, **sample.attrs)) * weight).sum().item())

        h = 1e-6
        up, down, here = value(h), value(-h), value(0)
        if abs((up - here) - (here - down)) > 1e-3 * h * out.size:
            return  # a kink lies between
        assert slope == pytest.approx((up - down) / (2 * h), rel=2e-5, abs=2e-6 * out.size)

    check()
