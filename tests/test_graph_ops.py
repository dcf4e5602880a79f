"""Promise 1: eager equals graph bit for bit, for every sample of every op, forward and gradient."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.reference import has_floats, has_halves, make_arguments, samples
from duograd.core.types import DTYPES


def _identify(case):
    return f"{case[0].name}-{case[1]}" if isinstance(case, tuple) else str(case)


CASES = [c for c in samples() if c[0].name != "to_device"]


def _run(op, sample, arguments, gradient):
    """Outputs and gradients of one sample; the same function is run in both modes."""
    which = [k for k, a in enumerate(arguments) if isinstance(a, dg.Tensor) and a.dtype.is_float]
    rest = {k: a for k, a in enumerate(arguments) if k not in which}

    def f(*floats):
        row = [rest[k] if k in rest else floats[which.index(k)] for k in range(len(arguments))]
        made = op(*row, **sample.attrs)
        outs = made if isinstance(made, tuple) else (made,)
        if not gradient:
            return outs
        total = None
        for y in outs:
            if y.dtype.is_float and y.requires_grad:
                weight = dg.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape)
                part = (y * weight).sum()
                total = part if total is None else total + part
        if total is not None:
            total.backward()
        return *(y.detach() for y in outs), *(x.grad for x in floats)

    return f, [arguments[k] for k in which]


#: a dtype beyond float32 that every op's first sample runs in: either of the 16-bit floats, by turns
FURTHER = [(c, ("float16", "bfloat16")[k % 2]) for k, c in enumerate(CASES) if c[1] == 0 and has_halves(c[0])]


@pytest.mark.parametrize(("case", "dtype"), [(c, "float32") for c in CASES] + FURTHER, ids=_identify)
def test_graph_equals_eager(case, dtype):
    op, _, sample = case
    gradient = sample.grad and has_floats(sample) and (op.differentiable or op.kind == "composite")
    results = []
    row = make_arguments(sample, dtype=DTYPES[dtype])
    for graph in (False, True):
        arguments = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in row]
        if gradient:
            arguments = [
                a.requires_grad_() if isinstance(a, dg.Tensor) and a.dtype.is_float else a for a in arguments
            ]
        f, floats = _run(op, sample, arguments, gradient)
        dg.manual_seed(7)
        results.append((dg.function(f) if graph else f)(*floats))
    for a, b in zip(*results, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
            assert a.dtype is b.dtype
