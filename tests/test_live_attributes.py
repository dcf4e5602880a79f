"""Attributes of ops that change from call to call (a slope, bounds, a probability): scalars of the kernel."""

import math

import duograd as dg
import duograd.nn.functional as F
import numpy as np
import pytest
from changing_numbers import FLOATS, check, facts, story
from duograd import nn
from duograd.core.op import REGISTRY

NUMBERS = (0.1, 0.3, 1.0, 2.5, 1e-30, 7.0, 1 / 3)
SPECIAL = (0.5, 0.25, math.inf, -math.inf, math.nan, -0.0, 1e300, -1.5)

OPS = {
    "leaky_relu": lambda x, a: F.leaky_relu(x, a),
    "clip": lambda x, a: (x.clip(-a, a), dg.clip(x, min=a), dg.clip(x, max=a), x.clip(0, a)),
    "elu": lambda x, a: dg.elu(x, alpha=a),
    "celu": lambda x, a: dg.celu(x, alpha=a),
    "hardtanh": lambda x, a: F.hardtanh(x, -1 - a * a, 1 + a * a),
    "threshold": lambda x, a: F.threshold(x, a, 2 * a),
    "hardshrink": lambda x, a: F.hardshrink(x, abs(a)),
    "softshrink": lambda x, a: F.softshrink(x, abs(a)),
    "addcmul": lambda x, a: (dg.addcmul(x, x, x, value=a), dg.addcdiv(x, x, x + 9, value=a)),
    "isclose": lambda x, a: dg.isclose(x, x + 0.2, rtol=a, atol=a / 2),
}
DTYPES = (dg.float32, dg.float64, dg.float16, dg.bfloat16)


def known(out):
    """Values, and where there is none (whose sign is nobody's)."""
    row = out if isinstance(out, tuple) else (out,)
    return [(dg.where(dg.isnan(y), dg.zeros_like(y), y), dg.isnan(y)) for y in row]


def over(op):
    """The op in all float dtypes, alone and in the middle of a formula, with its gradient and that one's."""

    def body(m, x, a):
        found = []
        for dtype in DTYPES:
            y = (x * 1.7).to(dtype)
            found += [known(op(z, a)) for z in (y, y * 3 - 1, y[0])]
        return found

    return body


def slopes(op):
    def total(t, a):
        out = op(t, a)
        return sum((y.to(dg.float32) ** 3).sum() for y in (out if isinstance(out, tuple) else (out,)))

    def body(m, x, a):
        first = dg.grad(lambda t: total(t, a))(x)
        return first, dg.grad(lambda t: (dg.grad(lambda u: total(u, a))(t) ** 2).sum())(x)

    return body


@pytest.mark.parametrize("numbers", [NUMBERS, SPECIAL], ids=("numbers", "special"))
@pytest.mark.parametrize("name", OPS)
def test_an_attribute_is_traced_twice(name, numbers):
    check(over(OPS[name]), numbers, 2 if numbers is NUMBERS else None)


@pytest.mark.parametrize("name", [n for n in OPS if n != "isclose"])
def test_its_gradients_are_live_too(name):
    check(slopes(OPS[name]), NUMBERS, 2)


def test_few_variants_for_special_numbers():
    for name in ("leaky_relu", "clip", "elu", "threshold"):
        assert story(over(OPS[name]), SPECIAL, "graph")[1] <= 3


def test_integers_as_attributes_and_tensors():
    check(
        lambda m, x, a: (x.clip(-a, a), F.leaky_relu(x, a), dg.elu(x, alpha=a)), (1, 2, 3, 2**40, 2**70, 5), 2
    )
    check(lambda m, x, a: (x.clip(-a, a), F.leaky_relu(x, a)), (1, 2, 10**400, 5))
    check(lambda m, x, a: (x.to(dg.int32).clip(-a, a), x.to(dg.uint8) * 1), (1, 2, 3, 4))
    check(lambda m, x, a: (x.to(dg.int32) * 1).clip(0, a), FLOATS)
    check(lambda m, x, a: dg.addcmul(x.to(dg.complex64), x.to(dg.complex64), 1j, value=a), FLOATS)


def test_transforms_and_in_place():
    check(lambda m, x, a: dg.vmap(lambda t: F.leaky_relu(t * 2, a).clip(-a, a))(x), NUMBERS)
    check(lambda m, x, a: dg.checkpoint(lambda t: dg.elu(t, alpha=a) * a, x), NUMBERS, 2)
    check(lambda m, x, a: dg.scan(lambda c, t: (F.leaky_relu(c + t, a), c), x[0], x), NUMBERS)
    check(lambda m, x, a: dg.cond(x.sum() > 0, lambda t: t.clip(-a, a), lambda t: t * a, x), NUMBERS)

    def in_place(m, x, a):
        y = x * 3
        y.clip_(-a, a)
        return y, y * 2

    check(in_place, NUMBERS, 2)


def test_errors_are_those_of_the_attribute():
    check(lambda m, x, a: dg.celu(x, alpha=a), (0.5, 1.0, 0.0, 2.0, 3.0))
    check(lambda m, x, a: F.hardshrink(x, a), (0.5, 1.0, -1.0, 2.0, 3.0))
    check(lambda m, x, a: F.dropout(x, a), (0.5, 0.25, 1.5, 0.0, 1.0, 0.75))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_integer_that_grows_beyond_64_bits(dtype):
    """The type of bfloat16 takes no such number: its constants were refused, by eager mode alone."""
    grown = [3 * 1000003**k for k in range(1, 9)]
    check(lambda m, x, a: (x.to(dtype).clip(-a, a), F.leaky_relu(x.to(dtype) - 9, a)), grown)
    assert dg.ones(2).to(dtype).clip(-grown[-1], grown[-1]).tolist() == [1.0, 1.0]


def test_dropout_is_traced_twice():
    m = nn.Dropout(0.1)
    found = []
    for mode in ("eager", "graph"):
        dg.manual_seed(4)
        f, rows = dg.function(lambda x: m(x) + F.dropout2d(dg.ones((2, 3, 2, 2)), m.p).sum(), mode=mode), []
        for k in range(8):
            m.p = 0.1 + k / 20
            rows.append(facts(f(dg.ones((4, 5)))))
        found.append(rows)
    assert found[0] == found[1]
    assert len(f.variants) == 2


def test_layers_whose_settings_change():
    net = nn.Sequential(nn.LeakyReLU(0.1), nn.ELU(0.5), nn.Hardtanh(-1.0, 1.0), nn.Softshrink(0.1))
    found = []
    for mode in ("eager", "graph"):
        f, rows = dg.function(net, mode=mode), []
        for k in range(8):
            net[0].negative_slope, net[1].alpha, net[3].lambd = 0.1 + k / 10, 0.5 + k / 10, 0.1 + k / 50
            rows.append(facts(f(dg.tensor(np.linspace(-3, 3, 12, dtype=np.float32)))))
        found.append(rows)
    assert found[0] == found[1]
    assert len(f.variants) == 2


def test_settings_of_optimisers_are_one_variant():
    def train(mode):
        w = dg.tensor([1.0, -2.0]).requires_grad_()
        o = dg.optim.RMSprop([w], lr=0.1, weight_decay=0.1)

        def step(x):
            o.zero_grad()
            ((w - x) ** 2).sum().backward()
            o.step()

        f, rows = dg.function(step, mode=mode), []
        for k in range(6):
            o.param_groups[0].update(alpha=0.9 + k / 100, eps=1e-8 * (k + 1), weight_decay=0.1 / (k + 1))
            f(dg.ones((2,)))
            rows.append(facts(w.detach()))
        return rows, len(f.variants)

    assert train("graph") == (train("eager")[0], 1)


def test_an_opened_op_has_the_bits_of_the_attribute():
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    for name, attrs in (
        ("leaky_relu", {"negative_slope": 0.1}),
        ("clip", {"min": -0.3, "max": 0.7}),
        ("celu", {"alpha": 0.3}),
    ):
        op = REGISTRY[name]
        twin = op.opened(tuple(attrs))
        assert twin is op.opened(tuple(attrs))
        assert twin is not op
        assert op.differentiable
        want = dg.core.scalar.evaluate(op.form([dg.float32], tuple(attrs.values())).roots, [x], (7,))
        form = twin.form([dg.float32, *(float for _ in attrs)], ())
        got = dg.core.scalar.evaluate(form.roots, [x, *attrs.values()], (7,))
        assert want[0].tobytes() == got[0].tobytes()


def test_a_body_that_chooses_by_an_attribute_is_not_opened():
    with pytest.raises(TypeError, match="not known"):
        REGISTRY["gelu"].opened(("approximate",)).form([dg.float32, float], ())
