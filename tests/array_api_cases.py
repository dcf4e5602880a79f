"""Calls made in dg and in array_api_strict alike, and what makes their results agree."""

import array_api_strict as xs
import duograd as dg
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

few = settings(max_examples=12, deadline=None, derandomize=True, database=None,
               suppress_health_check=list(HealthCheck))  # fmt: skip


def within(namespace, module, name):
    return getattr(getattr(namespace, module) if module else namespace, name)


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS, COMPLEX = ["float32", "float64"], ["complex64", "complex128"]
REAL, NUMERIC = INTEGERS + FLOATS, INTEGERS + FLOATS + COMPLEX
ALL, BOOL, BITS = ["bool", *NUMERIC], ["bool"], ["bool", *INTEGERS]
CORNERS = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 3.0, -7.25]
SHAPES = [(), (1,), (7,), (3, 4), (2, 1, 3), (0,), (3, 0)]
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**31)


def values(dtype, shape, seed, corners=True, small=False):
    """Random values, with corner values among the floats."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), kind)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        low, high = (0 if kind.kind == "u" else -5, 6) if small else (info.min, info.max)
        x = rng.integers(low, high, shape, dtype=kind, endpoint=not small)
        return np.asarray(x, kind)
    if kind.kind == "c":
        part = "float32" if kind.itemsize == 8 else "float64"
        re, im = values(part, shape, seed, corners, small), values(part, shape, seed + 1, corners, small)
        return np.asarray(complex_of(re, im), kind)
    x = rng.normal(0, 3, shape)
    if corners:
        x = np.where(rng.random(shape) < 0.3, rng.choice(np.array(CORNERS), shape), x)
    return np.asarray(x, kind)


def complex_of(re, im):
    out = np.empty(np.shape(re), np.result_type(re, np.complex64))
    out.real, out.imag = re, im
    return out


def agree(ours, theirs, rtol=2e-5, atol=1e-6):
    """Equal in shape, dtype and (floats: nearly) values; NaN and infinities in the same places."""
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            agree(a, b, rtol, atol)
        return
    if not isinstance(theirs, xs._array_object.Array):
        assert ours == theirs
        return
    a, b = ours.numpy(), np.asarray(theirs._array)
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    if b.dtype.kind in "fc":
        if b.dtype.itemsize == (8 if b.dtype.kind == "f" else 16):
            rtol, atol = rtol * 1e-6, atol * 1e-6
        if b.dtype.kind == "c":
            for part in ("real", "imag"):
                np.testing.assert_allclose(getattr(a, part), getattr(b, part), rtol * 4, atol * 4)
        else:
            np.testing.assert_allclose(a, b, rtol, atol)
    else:
        np.testing.assert_array_equal(a, b)


def call(module, name, arrays, *args, scale=1.0, **kwargs):
    """The same call in both namespaces; a list in `arrays` is handed on as a list of arrays."""
    convert = lambda to, a: (
        [to(x) for x in a] if isinstance(a, list) else to(a) if isinstance(a, np.ndarray) else a
    )
    dtype = kwargs.pop("dtype", None)
    mine = {**kwargs, **({"dtype": getattr(dg, dtype)} if dtype else {})}
    other = {**kwargs, **({"dtype": getattr(xs, dtype)} if dtype else {})}
    with np.errstate(all="ignore"):
        want = within(xs, module, name)(*[convert(xs.asarray, a) for a in arrays], *args, **other)
    got = within(dg, module, name)(*[convert(dg.tensor, a) for a in arrays], *args, **mine)
    agree(got, want, 2e-5 * scale, 1e-6 * scale)
