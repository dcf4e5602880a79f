"""Eager mode: numbers among an op's attributes that vary from call to call share a kernel, with the same bits."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.backend import get_backend
from duograd.core.op import REGISTRY
from duograd.core.scalar import evaluate
from duograd.eager.execute import OFTEN

OPS = {
    "clip": lambda a: {"min": -a, "max": a / 3},
    "leaky_relu": lambda a: {"negative_slope": a},
    "elu": lambda a: {"alpha": a},
    "celu": lambda a: {"alpha": a},
    "isclose": lambda a: {"rtol": a / 100, "atol": a},
}


def kernels():
    return get_backend("cpu").kernel_stats()["compiled"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", list(OPS))
def test_numbers_that_vary_share_a_kernel_and_keep_their_bits(name, dtype):
    op, values = REGISTRY[name], [0.1 + k / 7 for k in range(40)]
    rows = [np.linspace(-3, 3, 35).reshape(5, 7).astype(dtype), np.full(7, 0.25, dtype)][: op.n_inputs]
    inputs = [dg.tensor(x) for x in rows]
    before = kernels()
    for a in values:
        attrs = OPS[name](a)
        form = op.form(
            [x.dtype for x in inputs], tuple({**dict(zip(op.attr_names, op.defaults)), **attrs}.values())
        )
        (want,) = evaluate(form.roots, [x.astype(t.np) for x, t in zip(rows, form.arg_dtypes)], (5, 7))
        found = op(*inputs, **attrs).numpy()
        np.testing.assert_allclose(found, want, rtol=1e-6 if name in ("elu", "celu") else 0)
    assert kernels() - before <= OFTEN + 1


def test_gradients_and_changes_in_place_share_kernels_too():
    x = dg.tensor(np.linspace(-3, 3, 12, dtype=np.float32))
    slope = lambda a: dg.grad(lambda t: (dg.leaky_relu(t, a) * t).sum())(x)
    for a in (0.1, 0.2, 0.3, 0.4, 0.5):
        slope(a)
        x.clone().clip_(-a, a)
    before = kernels()
    for a in (0.6, 0.75, 0.9):
        want = np.where(x.numpy() > 0, 2 * x.numpy(), 2 * np.float32(a) * x.numpy())
        np.testing.assert_allclose(slope(a).numpy(), want, rtol=1e-6)
        y = x.clone()
        assert y.clip_(-a, a) is y
        np.testing.assert_array_equal(y.numpy(), np.clip(x.numpy(), np.float32(-a), np.float32(a)))
    assert kernels() == before


def test_both_modes_agree_over_a_schedule():
    def run(mode):
        x = dg.tensor(np.linspace(-2, 2, 64, dtype=np.float32)).requires_grad_()
        f = dg.function(lambda x, a: dg.elu(x.clip(-a, a), alpha=a) * a, mode=mode)
        found = []
        for k in range(12):
            y = f(x, 0.3 + k / 9)
            y.sum().backward()
            found += [y.detach().numpy().copy(), x.grad.numpy().copy()]
        return found

    for a, b in zip(run("eager"), run("graph"), strict=True):
        np.testing.assert_array_equal(a, b)
