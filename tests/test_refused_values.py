"""Values that a loss or a draw has no meaning for are refused, in both modes, at the user's line."""

import re

import duograd as dg
import numpy as np
import pytest
from duograd.nn import functional as F

NAN, INF = float("nan"), float("inf")


def bce(x, y):
    return dg.binary_cross_entropy(x, y)


def drawn(p):
    return dg.multinomial(p, 1, replacement=True)


def drawn_once(p):
    return dg.multinomial(p, 1)


#: what is called, its arguments, and what the error says of them
CASES = {
    "a probability above 1": (bce, ([0.5, 1.25], [0.0, 1.0]), "x: float32[2] has 1.25, which is not from 0 to 1"),
    "the largest of several": (bce, ([1.25, 2.5, -3.0], [0.0] * 3), "x: float32[3] has 2.5"),
    "a logit": (bce, ([-0.5, 0.5], [0.0, 1.0]), "x: float32[2] has -0.5"),
    "the next number above 1": (bce, ([1.0000001, 0.5], [0.0, 1.0]), "x: float32[2] has 1.0000001"),
    "the next number below 0": (bce, ([-1e-45, 0.5], [0.0, 1.0]), "x: float32[2] has -1e-45"),
    "beside NaN": (bce, ([0.5, NAN, 2.0], [0.0, 1.0, 1.0]), "x: float32[3] has 2.0"),
    "minus infinity": (bce, ([0.5, -INF], [0.0, 1.0]), "x: float32[2] has -inf"),
    "infinity": (bce, ([0.5, INF], [0.0, 1.0]), "x: float32[2] has inf"),
    "a target above 1": (bce, ([0.5, 0.5], [0.0, 2.0]), "y: float32[2] has 2.0, which is not from 0 to 1"),
    "an integer target": (bce, ([0.5, 0.5], [0, -1]), "y: int64[2] has -1"),
    "a matrix": (bce, ([[0.5, 0.5], [0.5, 7.0]], [[0.0, 0.0], [1.0, 1.0]]), "x: float32[2, 2] has 7"),
    "one number": (bce, (1.5, 0.5), "x: float32[] has 1.5"),
    "the layer": (dg.nn.BCELoss(), ([1.5], [1.0]), "x: float32[1] has 1.5"),
    "the function": (F.binary_cross_entropy, ([1.5], [1.0]), "x: float32[1] has 1.5"),
    "a negative weight": (drawn, ([-1.0, 2.0],), "p: float32[2] has -1.0, which is not a finite number from 0"),
    "a negative weight of a row": (drawn_once, ([[1.0, 1.0], [1.0, -1.0]],), "p: float32[2, 2] has -1"),
    "a weight that is NaN": (drawn, ([1.0, NAN],), "p: float32[2] has nan"),
    "a weight without bound": (drawn_once, ([1.0, INF],), "p: float32[2] has inf"),
    "no weight at all": (drawn, ([0.0, 0.0],), "p: float32[2] has a row of zeros"),
    "a row of no weight": (drawn_once, ([[1.0, 0.0], [0.0, 0.0]],), "p: float32[2, 2] has a row of zeros"),
}  # fmt: skip


def tensors(row):
    return [
        dg.tensor(np.asarray(a, np.int64 if np.asarray(a).dtype.kind == "i" else np.float32)) for a in row
    ]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_a_value_without_meaning_is_refused(name, mode):
    call, row, text = CASES[name]

    def f(*args):
        return call(*args)

    fn = dg.function(f, mode=mode)
    for _ in range(3):  # a trace, a variant, one that is known
        with pytest.raises(dg.errors.ArgumentError, match=re.escape(text)) as caught:
            fn(*tensors(row))
        assert "return call(*args)" in str(caught.value) or "test_refused_values.py" in str(caught.value)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_ends_have_a_meaning_in_each_dtype(dtype):
    ends = dg.tensor([0.0, 1.0, 1.0, 0.0], dtype=dtype)
    assert dg.binary_cross_entropy(ends, ends).item() == 0
    p = dg.tensor([0.0, 1.0], dtype=dtype) * float(dg.finfo(dtype).max)
    assert drawn(p).item() == drawn_once(p).item() == 1
    with pytest.raises(dg.errors.ArgumentError, match=r"has 1\.0"):
        dg.binary_cross_entropy(ends + float(dg.finfo(dtype).eps), ends)


def test_what_nobody_asks_for_is_not_looked_at():
    assert np.isnan(dg.binary_cross_entropy(dg.ones((0,)), dg.ones((0,))).item())
    assert dg.multinomial(dg.ones((0, 3)), 2).shape == (0, 2)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_step_that_is_refused_changes_nothing(mode):
    model = dg.nn.Linear(3, 1)
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

    @dg.function(mode=mode)
    def step(x, y):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy(model(x).sigmoid(), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = dg.randn(4, 3), dg.ones((4, 1))
    step(x, y)
    before = model.weight.detach().numpy().copy()
    with pytest.raises(dg.errors.ArgumentError, match=r"y: float32\[4, 1\] has 2"):
        step(x, y * 2)
    np.testing.assert_array_equal(model.weight.detach().numpy(), before)
    step(x, y)
    assert (model.weight.detach().numpy() != before).any()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_examples_of_a_vmap_are_looked_at_together(mode):
    fn = dg.function(dg.vmap(bce, in_axes=(0, None)), mode=mode)
    x, y = dg.tensor([[0.5, 0.25], [0.25, 0.5]]), dg.tensor([1.0, 0.0])
    want = [bce(row, y).item() for row in x]
    np.testing.assert_allclose(fn(x, y).numpy(), want, rtol=1e-6)
    with pytest.raises(dg.errors.ArgumentError, match=r"has 1\.5"):
        fn(x + 1, y)


def test_turns_of_a_loop_are_looked_at_in_their_order():
    fn = dg.function(lambda x, y: dg.scan(lambda c, row: (c + bce(row, y), row), dg.zeros(()), x)[0])
    x, y = dg.tensor([[0.5, 0.25], [0.25, 0.5]]), dg.tensor([1.0, 0.0])
    assert abs(fn(x, y).item() - sum(bce(row, y).item() for row in x)) < 1e-6
    with pytest.raises(dg.errors.ArgumentError, match=r"has 2\.5"):
        fn(x + dg.tensor([[2.0], [4.0]]), y)


#: what makes probabilities, and whether a graph knows that
MAKERS = {
    "sigmoid": (lambda x: x.sigmoid()[:, 0], True),
    "a softmax": (lambda x: x.softmax(0)[:, 0], True),
    "a softmax of rows": (lambda x: dg.cat([x, -x], 1).softmax(-1)[:, 1], True),
    "an exponential": (lambda x: ((x - 0.5).exp() * (1 / (x - x).exp().sum(0)))[:, 0], False),
    "half": (lambda x: x.sigmoid().half().float()[:, 0], True),
    "clip": (lambda x: x.clip(1e-6, 1 - 1e-6).reshape((-1,)), True),
    "comparison": (lambda x: (x > 0).float().squeeze(1), True),
    "a product": (lambda x: (x.sigmoid() * (x > 0))[:, 0], True),
    "the rest": (lambda x: 1 - x.sigmoid()[:, 0] ** 2, True),
    "a choice": (lambda x: dg.where(x > 0.3, x.sigmoid(), 0.5)[:, 0], True),
    "parts": (lambda x: dg.cat([x.sigmoid()[:1], dg.ones((1, 1))])[:, 0], True),
    "random": (lambda x: dg.rand((2,)), True),
    "a maximum": (lambda x: dg.maximum(x.sigmoid(), 0.75)[:, 0], True),
    "too large a number": (lambda x: dg.maximum(x.sigmoid(), x + 0.1)[:, 0], False),
    "a difference": (lambda x: (x + 0.5 - (x.sigmoid() - 0.5))[:, 0], False),
    "a clip of a probability": (lambda x: x.sigmoid().clip(0.1, None)[:, 0], True),
    "a clip beyond": (lambda x: dg.where(x > 1, x, x.sigmoid().clip(None, 7.0))[:, 0], False),
    "a clip of one side": (lambda x: x.clip(0, None)[:, 0], False),
    "a wide clip": (lambda x: x.clip(0, 2)[:, 0], False),
    "exp": (lambda x: (x - 0.5).exp()[:, 0], False),
    "a tangent": (lambda x: ((x.tanh() + 1) / 2)[:, 0], True),
    "half a tangent": (lambda x: (0.5 * x.tanh() + 0.5)[:, 0], True),
    "too far a tangent": (lambda x: ((x.tanh() + 1) / 1.5)[:, 0], False),
    "a distribution": (lambda x: (0.5 + dg.erf(x / 2**0.5) * 0.5)[:, 0], True),
    "a smoothed target": (lambda x: (x.sigmoid() * 0.9 + 0.05)[:, 0], True),
    "a tenth ten times": (lambda x: (x.sigmoid() * 0.1 * 10)[:, 0], True),
    "more than a rounding": (lambda x: (x.sigmoid() + 0.2)[:, 0], False),
    "less than a rounding": (lambda x: (x.sigmoid() + 1e-9)[:, 0], True),
    "a quotient by what may be 0": (lambda x: (x / (x.sigmoid() + 0.25) - 0.1)[:, 0], False),
    "a magnitude": (lambda x: (x.tanh()).abs()[:, 0], True),
    "a cut": (lambda x: dg.minimum(x.relu(), 1)[:, 0], True),
    "bytes": (lambda x: ((x * 100).to(dg.uint8) / 255)[:, 0], True),
    "too large bytes": (lambda x: ((x * 100).to(dg.uint8) / 100)[:, 0], False),
    "whole numbers": (lambda x: (x.sigmoid() * 1.5).int().float()[:, 0], True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_a_graph_knows_to_be_a_probability_is_not_looked_at(name, capsys):
    """A step that writes runs up to its checks twice: the usual ones look at the target alone."""
    make, known = MAKERS[name]
    fn = dg.function(lambda x, y: bce(make(x), y))
    x, y = dg.tensor([[0.25], [0.5]]), dg.tensor([0.0, 1.0])
    if name != "random":
        assert fn(x, y).item() == bce(make(x), y).item()
    with pytest.raises(dg.errors.ArgumentError, match=r"y: float32\[2\] has 2.0"):
        fn(x, y + 1)
    if not known:
        with pytest.raises(dg.errors.ArgumentError, match=r"x: float32\[2\] has"):
            fn(x + 2, y)
    looks, shown = _looks(fn, capsys)
    assert all(line.count("%") == 2 - known for line in looks), shown


def _looks(fn, capsys):
    """What is looked at, a text for each pass, and all that `show` says."""
    shown = str(fn.show() or capsys.readouterr().out)
    looks = [line.split(" outlier ")[1] for line in shown.splitlines() if " outlier " in line]
    assert looks
    return looks, shown


@pytest.mark.parametrize(
    "name", ["a tangent", "a tenth ten times", "bytes", "a product", "a smoothed target"]
)
def test_what_may_be_rounded_otherwise_is_known_where_that_changes_nothing(name, capsys):
    fn = dg.function(lambda x, y: bce(MAKERS[name][0](x), y), precision="fast")
    fn(dg.tensor([[0.25], [0.5]]), dg.tensor([0.0, 1.0]))
    looks, shown = _looks(fn, capsys)
    known = name in ("a tangent", "a product", "a smoothed target")
    assert all(line.count("%") == 2 - known for line in looks), shown


def test_the_error_has_the_shape_of_the_call():
    fn = dg.function(lambda x, y: bce(x.exp(), y))
    for n in (2, 3, 4, 5, 6, 7):
        fn(-dg.ones((n,)), dg.ones((n,)))
        with pytest.raises(dg.errors.ArgumentError, match=rf"x: float32\[{n}\] has 2.7"):
            fn(dg.ones((n,)), dg.ones((n,)))
