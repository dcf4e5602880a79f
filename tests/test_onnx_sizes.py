"""Sizes that a function computes from dynamic ones: which formula the traces tell, and models at sizes not traced."""

import duograd as dg
import numpy as np
import pytest
from duograd.interop.onnx.arguments import size_plans
from duograd.interop.onnx.dimension import ENOUGH, Affine, Undecided, solve
from duograd.nn import functional as F

FORMULAS = {
    "n // 2": lambda n: n // 2,
    "(n + 1) // 3": lambda n: (n + 1) // 3,
    "(n + 2) // 4": lambda n: (n + 2) // 4,
    "n // 5": lambda n: n // 5,
    "-n % 8": lambda n: -n % 8,
    "(n + 3) % 8": lambda n: (n + 3) % 8,
    "n % 2": lambda n: n % 2,
    "up to 8": lambda n: -(-n // 8) * 8,
    "down to 4": lambda n: n // 4 * 4,
}


def _value(form, n):
    if isinstance(form, Affine):
        return (form.p * n + form.r) // form.q
    w = (form.sign * n + form.r) % form.m
    return w if form.side == 0 else n + form.side * w


def _solved(fn, base, axis):
    """The formula that exports find for a size of one of two dynamic axes, and the number of traces."""
    more = 0
    while True:
        plan = size_plans({"a": base, "b": base}, more)[0]
        u = (base, *[sizes[axis] for sizes in plan])
        try:
            return solve(tuple(map(fn, u)), [u]), len(u)
        except Undecided:
            more += ENOUGH


@pytest.mark.parametrize("axis", "ab")
@pytest.mark.parametrize("name", FORMULAS)
def test_quotients_and_remainders_are_told_from_traces(name, axis):
    fn = FORMULAS[name]
    for base in range(3, 40):
        form, traces = _solved(fn, base, axis)
        assert [_value(form, n) for n in range(1, 200)] == [fn(n) for n in range(1, 200)], (base, form)
        assert ENOUGH <= traces <= 3 * ENOUGH


def test_lines_take_few_traces():
    for base in range(1, 20):
        assert _solved(lambda n: 3 * n + 2, base, "a")[1] == 5


FUNCTIONS = {
    "padding to a multiple": lambda x: F.pad(x, (0, 0, 0, -x.shape[0] % 8)),
    "blocks": lambda x: F.pad(x, (0, 0, 0, -x.shape[0] % 8)).reshape(-1, 8, 3).sum(axis=1),
    "rolled by more than some sizes": lambda x: dg.roll(x, shift=(6, -4), axis=(0, 1)),
    "rolled as one": lambda x: dg.roll(x, shift=7),
    "a rounded size": lambda x: dg.zeros(((x.shape[0] + 1) // 3,)) + x.sum(),
    "a cut": lambda x: x[: x.shape[0] // 4 * 4],
    "a number": lambda x: x * (x.shape[0] % 4) + (x.shape[0] + 1) // 3,
}


@pytest.mark.parametrize("base", [4, 5, 8])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_models_are_right_at_sizes_that_no_trace_had(name, base):
    onnxruntime = pytest.importorskip("onnxruntime")
    fn = FUNCTIONS[name]
    draw = lambda n: (np.arange(3 * n, dtype="float32") + 1).reshape(n, 3)
    model = dg.onnx.export(fn, (dg.tensor(draw(base)),), dynamic={"x": {0: "n"}})
    assert dg.onnx.check(fn, (dg.tensor(draw(base)),), dynamic={"x": {0: "n"}}).ok
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for n in range(1, 50):
        np.testing.assert_array_equal(session.run(None, {"x": draw(n)})[0], fn(dg.tensor(draw(n))).numpy())


@pytest.mark.parametrize("base", [(4, 1), (3, 2), (2, 2), (1, 1)])
def test_some_trace_has_an_odd_number_of_elements(base):
    """4 x 1, 13 x 8, 6 x 6, ...: halves of all of these were whole, so the median of 7 x 7 was the 24th."""
    made = dg.onnx.load(
        dg.onnx.export(dg.median, (dg.randn(*base),), dynamic={"x": {0: "a", 1: "b"}}, input_names=["x"])
    )
    for shape in ((7, 7), (2, 3), (1, 1), (5, 4)):
        x = dg.randn(*shape)
        assert made(x).item() == dg.median(x).item()


@pytest.mark.parametrize("base", [3, 10, 70])
@pytest.mark.parametrize("multiple", [16, 64, 100])
def test_a_multiple_larger_than_the_example_is_found(multiple, base):
    onnxruntime = pytest.importorskip("onnxruntime")
    fn = lambda x: F.pad(x, (0, -x.shape[0] % multiple))
    model = dg.onnx.export(fn, (dg.ones(base),), dynamic={"x": {0: "n"}}, verify=False)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for n in (1, 2, 15, 16, 17, 63, 64, 65, 99, 100, 101, 127, 128, 129, 640, 2000):
        (y,) = session.run(None, {"x": np.ones(n, "float32")})
        assert y.shape == (n + -n % multiple,)


@pytest.mark.parametrize("base", [3, 10])
@pytest.mark.parametrize("size", [lambda n: min(n, 512), lambda n: n // 64 + 1, lambda n: n % 64 + 1])
def test_what_is_a_line_or_a_constant_near_the_example_alone_is_an_error(size, base):
    fn = lambda x: dg.zeros((size(x.shape[0]),)) + x.sum()
    with pytest.raises(dg.errors.OnnxError, match="no formula in input sizes fits"):
        dg.onnx.export(fn, (dg.ones(base),), dynamic={"x": {0: "n"}}, verify=False)


def test_a_function_that_takes_small_sizes_alone_is_exported():
    table = dg.arange(40.0)
    model = dg.onnx.export(lambda x: x + table[: x.shape[0]], (dg.ones(4),), dynamic={"x": {0: "n"}})
    assert model.graph.node
