"""Loop kernels by their roots: lowered, compiled and run over NumPy arrays; and values for them."""

from __future__ import annotations

import math

import duograd.backends  # noqa: F401
import numpy as np
from duograd.core import types as T
from duograd.core.backend import Operand, Program, Scalar, get_backend, scalar_bits
from duograd.core.legalize import is_plain
from duograd.core.lower import lower_map, lower_reduce
from duograd.core.scalar import Expr

ALL = tuple(filter(is_plain, T.DTYPES.values()))
INTS = tuple(d for d in ALL if d.is_integer)


def arg(k, dtype=T.float32):
    return Expr("arg", dtype, (), k)


def reduce(kind, x, dtype=None):
    return Expr("reduce", dtype or x.dtype, (x,), kind)


def run(roots, arrays, outs, domain, axes=None, chunks=None):
    """Lower, compile and run; arrays: NumPy arrays or (number, dtype); outs: arrays to fill."""
    program, dynamic, operands = Program(get_backend("cpu")), [], []
    if chunks is not None:
        program.chunks = lambda items, work: chunks
    for a in (*arrays, *outs):
        source = program.dynamic()
        if isinstance(a, tuple):
            operands.append(Scalar(source, a[1]))
            dynamic.append(scalar_bits(*a))
        else:
            steps = tuple(st // a.itemsize for st in a.strides)
            operands.append(Operand(source, 0, T.as_dtype(a.dtype), a.shape, steps))
            dynamic.append(a.ctypes.data)
    ins, outputs = operands[: len(arrays)], operands[len(arrays) :]
    if axes is None:
        lower_map(program, domain, ins, roots, outputs)
    else:
        lower_reduce(program, domain, axes, ins, roots, outputs)
    if program.scratch_source >= 0:
        scratch = get_backend("cpu").empty(program.scratch_bytes)
        dynamic += [0] * (program.n_dynamic - len(dynamic))
        dynamic[program.scratch_source] = scratch.ptr
    program.backend.load(program).run(dynamic)
    return outs


def run_map(roots, arrays, domain=None, chunks=None):
    domain = domain or np.broadcast_shapes(*(a.shape for a in arrays if not isinstance(a, tuple)))
    return run(roots, arrays, [np.zeros(domain, r.dtype.np) for r in roots], domain, None, chunks)


def run_reduce(roots, arrays, axes, chunks=None, element=()):
    """Outputs numbered in `element` have the domain's shape, others the kept shape."""
    arrays = [np.asarray(a) for a in arrays]
    domain = np.broadcast_shapes(*(a.shape for a in arrays))
    kept = tuple(1 if a in axes else n for a, n in enumerate(domain))
    outs = [np.zeros(domain if k in element else kept, r.dtype.np) for k, r in enumerate(roots)]
    return run(roots, arrays, outs, domain, axes, chunks)


SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-40, -1e-30, 1e30, -1e30)
NOT_FINITE = (math.inf, -math.inf, math.nan)


def values(dtype, rng, count=301):
    """Random and special values; `count` is odd, so that the last vector is not full."""
    if dtype is T.bool_:
        return rng.random(count) < 0.5
    if dtype.is_float:
        x = rng.standard_normal(count) * np.exp(rng.uniform(-4, 4, count))
        return np.concatenate([np.array(SPECIAL + NOT_FINITE), x]).astype(dtype.np)[:count]
    info = np.iinfo(dtype.np)
    some = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1], dtype.np)
    small = rng.integers(max(-20, info.min), 20, count // 2).astype(dtype.np)
    return np.concatenate([some, small, rng.integers(info.min, info.max, count, dtype.np)])[:count]
