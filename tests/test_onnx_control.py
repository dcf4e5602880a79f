"""Control flow in models: `cond`, `while_loop` and `scan` go out as If, Loop and Scan, nested too."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from duograd.interop.onnx.evaluator import evaluator  # noqa: E402

WEIGHT = dg.tensor(np.random.default_rng(1).normal(size=(3, 3)).astype("float32") * 0.3, requires_grad=True)


def step(h, row):
    h = dg.tanh(h @ WEIGHT + row)
    return h, h * 2


CASES = {
    "If": lambda x: dg.cond(x.sum() > 0, lambda x: x @ WEIGHT, lambda x: -x * 2, x),
    "If of inputs": lambda x: dg.cond(x.sum() > 0, lambda: x, lambda: x + 0),
    "Loop": lambda x: dg.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] @ WEIGHT + x), (0, x)),
    "Loop by value": lambda x: dg.while_loop(lambda v: (v * v).sum() < 50, lambda v: v * 1.5 + 0.1, x),
    "Scan": lambda x: dg.scan(step, dg.zeros((3,)), x),
    "Scan back": lambda x: dg.scan(lambda h, r: (h + r, h * r), dg.zeros((3,)), x, reverse=True),
    "Scan with If": lambda x: dg.scan(
        lambda h, r: (dg.cond(r.sum() > 0, lambda: h + r, lambda: h - r), dg.softmax(r, axis=0)),
        dg.zeros((3,)),
        x,
    ),
}


def rows(n, sign=1):
    return (np.random.default_rng(n).normal(size=(n, 3)) * sign).astype("float32")


def flat(result):
    return [y for x in result for y in flat(x)] if isinstance(result, tuple) else [result.detach().numpy()]


@pytest.mark.parametrize("name", CASES)
def test_control_flow_goes_out(name, close):
    fn = CASES[name]
    proto = dg.onnx.export(fn, dg.tensor(rows(4)), dynamic={"x": {0: "n"}})
    assert name.split()[0] in {n.op_type for n in proto.graph.node}
    run, loaded = evaluator(proto), dg.onnx.load(proto)
    for x in (rows(4), rows(4, -1), rows(2), rows(7)):
        want = flat(fn(dg.tensor(x)))
        for got, y in zip(run.run(None, {"x": x}), want, strict=True):
            close(got, y, scale=5)
        for got, y in zip(flat(loaded(dg.tensor(x))), want, strict=True):
            close(got, y, scale=5)


def test_what_a_function_inside_reads_keeps_its_name():
    proto = dg.onnx.export(CASES["Scan"], dg.tensor(rows(4)))
    assert [t.name for t in proto.graph.initializer] == ["WEIGHT"]


def test_fault_inside_a_loop_is_found(monkeypatch):
    from duograd.core.op import REGISTRY

    monkeypatch.setattr(REGISTRY["tanh"], "onnx", "Sigmoid")
    with pytest.raises(dg.errors.OnnxError, match="stands for scan") as caught:
        dg.onnx.export(CASES["Scan"], dg.tensor(rows(4)))
    assert "test_onnx_control.py:" in str(caught.value)
